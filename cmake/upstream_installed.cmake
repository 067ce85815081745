# SPDX-License-Identifier: MIT
# kvsieve_find_installed_upstream(OUT REASON): whether an installed llama.cpp can be used. Its CMake package exports
# libllama and ggml only, so libmtmd and its headers are looked for separately and all headers are tried.
# Targets `llama` and `ggml::ggml` are created only when everything fits: a rejected package must not take the names.

function(kvsieve_find_installed_upstream out reason)
  set(${out} OFF PARENT_SCOPE)
  if(NOT KVSIEVE_INSTALLED_LLAMA_CPP)
    set(${reason} "KVSIEVE_INSTALLED_LLAMA_CPP is off" PARENT_SCOPE)
    return()
  endif()
  if("thread" IN_LIST KVSIEVE_SANITIZE)
    set(${reason} "the thread sanitizer needs an instrumented one" PARENT_SCOPE)
    return()
  endif()

  find_path(KVSIEVE_LLAMA_INCLUDE_DIR llama.h)
  find_library(KVSIEVE_MTMD_LIBRARY mtmd)
  find_path(KVSIEVE_MTMD_INCLUDE_DIR mtmd-helper.h)
  mark_as_advanced(KVSIEVE_LLAMA_INCLUDE_DIR KVSIEVE_MTMD_LIBRARY KVSIEVE_MTMD_INCLUDE_DIR)
  foreach(part "LLAMA_INCLUDE_DIR llama.h" "MTMD_LIBRARY the libmtmd library" "MTMD_INCLUDE_DIR mtmd-helper.h")
    string(REGEX MATCH "^[^ ]+" variable "${part}")
    string(REGEX REPLACE "^[^ ]+ " "" name "${part}")
    if(NOT KVSIEVE_${variable})
      set(${reason} "${name} was not found" PARENT_SCOPE)
      return()
    endif()
  endforeach()

  set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
  try_compile(fits "${CMAKE_BINARY_DIR}/try_upstream" SOURCES "${PROJECT_SOURCE_DIR}/cmake/upstream_features.cpp"
    CMAKE_FLAGS "-DINCLUDE_DIRECTORIES:STRING=${KVSIEVE_LLAMA_INCLUDE_DIR};${KVSIEVE_MTMD_INCLUDE_DIR}"
    CXX_STANDARD 20)
  unset(fits CACHE)
  if(NOT fits)
    set(${reason} "${KVSIEVE_LLAMA_INCLUDE_DIR}/llama.h and ${KVSIEVE_MTMD_INCLUDE_DIR}/mtmd.h are of another version "
                  PARENT_SCOPE)
    return()
  endif()

  find_package(llama ${KVSIEVE_LLAMA_CPP_MIN}...<${KVSIEVE_LLAMA_CPP_END} CONFIG QUIET)
  if(NOT llama_FOUND)
    set(versions "${llama_CONSIDERED_VERSIONS}")
    if(NOT versions)
      set(versions "none")
    endif()
    set(${reason} "its CMake package has to be of version ${KVSIEVE_LLAMA_CPP_MIN} up to ${KVSIEVE_LLAMA_CPP_END}, found ${versions}"
                  PARENT_SCOPE)
    return()
  endif()
  set(LLAMA_INCLUDE_DIR "${LLAMA_INCLUDE_DIR}" PARENT_SCOPE)
  set(${out} ON PARENT_SCOPE)
endfunction()
