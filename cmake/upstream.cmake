# SPDX-License-Identifier: MIT
# ggml, libllama and libmtmd. In this order: an installed llama.cpp, a source tree that the user names,
# the source distribution of the PyPI package llama-cpp-python, fetched with pip and checked.
# Defines kvsieve::upstream_ggml, kvsieve::upstream_llama and kvsieve::upstream_mtmd.

set(KVSIEVE_LLAMA_CPP_DIR "" CACHE PATH "A llama.cpp source tree to build instead of the fetched one")
set(KVSIEVE_UPSTREAM_CACHE "${PROJECT_SOURCE_DIR}/.upstream" CACHE PATH "Where the fetched source distribution is kept")

set(kvsieve_upstream_version 0.3.36)
set(kvsieve_upstream_sha256 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e)

function(kvsieve_fetch_upstream out)
  set(dir "${KVSIEVE_UPSTREAM_CACHE}")
  set(name "llama_cpp_python-${kvsieve_upstream_version}")
  if(NOT EXISTS "${dir}/${name}/vendor/llama.cpp/CMakeLists.txt")
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    file(MAKE_DIRECTORY "${dir}")
    message(STATUS "Fetching ${name} (77 MB)")
    execute_process(
      COMMAND "${Python3_EXECUTABLE}" -m pip download --quiet --no-deps --no-binary llama-cpp-python
              "llama-cpp-python==${kvsieve_upstream_version}" -d "${dir}"
      RESULT_VARIABLE result)
    if(NOT result EQUAL 0)
      message(FATAL_ERROR "pip could not download llama-cpp-python ${kvsieve_upstream_version}; "
                          "name a llama.cpp source tree with -DKVSIEVE_LLAMA_CPP_DIR=DIR instead")
    endif()
    file(SHA256 "${dir}/${name}.tar.gz" sum)
    if(NOT sum STREQUAL kvsieve_upstream_sha256)
      message(FATAL_ERROR "${name}.tar.gz has SHA-256 ${sum}, expected ${kvsieve_upstream_sha256}")
    endif()
    file(ARCHIVE_EXTRACT INPUT "${dir}/${name}.tar.gz" DESTINATION "${dir}")
    file(REMOVE "${dir}/${name}.tar.gz")
  endif()
  set(${out} "${dir}/${name}/vendor/llama.cpp" PARENT_SCOPE)
endfunction()

find_package(Threads REQUIRED)
if(KVSIEVE_LLAMA_CPP_DIR)
  set(kvsieve_llama_cpp "${KVSIEVE_LLAMA_CPP_DIR}")
else()
  kvsieve_fetch_upstream(kvsieve_llama_cpp)
endif()

set(BUILD_SHARED_LIBS OFF)
set(LLAMA_BUILD_COMMON OFF)
set(LLAMA_BUILD_TESTS OFF)
set(LLAMA_BUILD_TOOLS OFF)
set(LLAMA_BUILD_EXAMPLES OFF)
set(LLAMA_BUILD_SERVER OFF)
set(LLAMA_BUILD_APP OFF)
set(LLAMA_BUILD_MTMD ON CACHE BOOL "" FORCE)
set(MTMD_VIDEO OFF CACHE BOOL "" FORCE)
set(LLAMA_OPENSSL OFF CACHE BOOL "" FORCE)
add_subdirectory("${kvsieve_llama_cpp}" "${CMAKE_BINARY_DIR}/upstream" EXCLUDE_FROM_ALL SYSTEM)

add_library(kvsieve_upstream_ggml INTERFACE)
target_link_libraries(kvsieve_upstream_ggml INTERFACE ggml)
add_library(kvsieve_upstream_llama INTERFACE)
target_link_libraries(kvsieve_upstream_llama INTERFACE llama)
add_library(kvsieve_upstream_mtmd INTERFACE)
target_link_libraries(kvsieve_upstream_mtmd INTERFACE mtmd)
foreach(part ggml llama mtmd)
  add_library(kvsieve::upstream_${part} ALIAS kvsieve_upstream_${part})
endforeach()
