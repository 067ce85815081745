# SPDX-License-Identifier: MIT
# What `cmake --install` puts where, and the package that find_package(kvsieve) finds.
#   lib/libkvsieve.a      all layers and, unless an installed llama.cpp is used, ggml, libllama and libmtmd
#   include/kvsieve/      the public headers
#   bin/kvsieve           the program      share/kvsieve/models  its embedded model      share/doc/kvsieve
# One archive, made of the object files of all targets it needs: the upstream targets cannot be exported (their
# interfaces name directories of the build), and a consumer gets one library to link.

include(CMakePackageConfigHelpers)

# Walks the link closure of `target`: object files go to KVSIEVE_OBJECTS, what only a consumer can resolve (system
# libraries, imported targets) to KVSIEVE_EXTERNALS.
function(kvsieve_collect target)
  string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" target "${target}")
  if(target MATCHES "^::@" OR target MATCHES "^\\$<")
    return()
  endif()
  if(TARGET ${target})
    get_target_property(aliased ${target} ALIASED_TARGET)
    if(aliased)
      set(target ${aliased})
    endif()
  endif()
  get_property(seen GLOBAL PROPERTY KVSIEVE_COLLECTED)
  if(target IN_LIST seen)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY KVSIEVE_COLLECTED "${target}")

  set(external ON)
  if(TARGET ${target})
    get_target_property(imported ${target} IMPORTED)
    if(NOT imported)
      set(external OFF)
    endif()
  endif()
  if(external)
    set_property(GLOBAL APPEND PROPERTY KVSIEVE_EXTERNALS "${target}")
    return()
  endif()

  get_target_property(type ${target} TYPE)
  set(links "")
  if(type STREQUAL "INTERFACE_LIBRARY")
    get_target_property(links ${target} INTERFACE_LINK_LIBRARIES)
  else()
    set_property(GLOBAL APPEND PROPERTY KVSIEVE_OBJECTS "$<TARGET_OBJECTS:${target}>")
    get_target_property(links ${target} LINK_LIBRARIES)
  endif()
  if(NOT links)  # unset reads links-NOTFOUND
    return()
  endif()
  foreach(link IN LISTS links)
    kvsieve_collect("${link}")
  endforeach()
endfunction()

get_property(layers GLOBAL PROPERTY KVSIEVE_LAYERS)
foreach(layer IN LISTS layers)
  kvsieve_collect(${layer})
endforeach()
get_property(objects GLOBAL PROPERTY KVSIEVE_OBJECTS)
get_property(externals GLOBAL PROPERTY KVSIEVE_EXTERNALS)

add_library(kvsieve STATIC ${objects})
add_library(kvsieve::kvsieve ALIAS kvsieve)
set_target_properties(kvsieve PROPERTIES LINKER_LANGUAGE CXX)
target_compile_features(kvsieve INTERFACE cxx_std_20)
target_include_directories(kvsieve INTERFACE "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
                                             "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
if(KVSIEVE_SANITIZE)
  string(REPLACE ";" "," sanitizers "${KVSIEVE_SANITIZE}")
  target_link_options(kvsieve INTERFACE -fsanitize=${sanitizers})
endif()

# Packages of the externals, for find_dependency in kvsieve-config.cmake.
set(KVSIEVE_DEPENDENCIES "")
foreach(external IN LISTS externals)
  set(package "")
  if(external MATCHES "^nlohmann_json::|^CCCL::")
    continue()  # headers only, and not in our public headers
  elseif(external MATCHES "^OpenMP::")
    set(external OpenMP::OpenMP_CXX)  # the runtime is the same for C, and a consumer may be C++ only
    set(package "OpenMP COMPONENTS CXX")
  elseif(external MATCHES "^PkgConfig::(.*)")
    string(TOLOWER "${CMAKE_MATCH_1}" module)
    list(APPEND KVSIEVE_DEPENDENCIES "find_dependency(PkgConfig)"
                "pkg_check_modules(${CMAKE_MATCH_1} REQUIRED QUIET IMPORTED_TARGET GLOBAL ${module})")
  elseif(external MATCHES "^CUDA::")
    set(package CUDAToolkit)
  elseif(external STREQUAL "llama" OR external MATCHES "^ggml::")
    set(package llama)
  elseif(external MATCHES "^([A-Za-z0-9_]+)::")
    set(package "${CMAKE_MATCH_1}")
  endif()
  target_link_libraries(kvsieve INTERFACE "$<LINK_ONLY:${external}>")
  if(package)
    list(APPEND KVSIEVE_DEPENDENCIES "find_dependency(${package})")
  endif()
endforeach()
list(REMOVE_DUPLICATES KVSIEVE_DEPENDENCIES)
list(JOIN KVSIEVE_DEPENDENCIES "\n" KVSIEVE_DEPENDENCIES)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/kvsieve")
set(KVSIEVE_MODELS_INSTALL_DIR "${CMAKE_INSTALL_DATADIR}/kvsieve/models")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/kvsieve-config.cmake.in"
  "${PROJECT_BINARY_DIR}/kvsieve-config.cmake" INSTALL_DESTINATION "${package_dir}"
  PATH_VARS KVSIEVE_MODELS_INSTALL_DIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/kvsieve-config-version.cmake" COMPATIBILITY SameMinorVersion)

install(TARGETS kvsieve EXPORT kvsieve-targets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT kvsieve-targets NAMESPACE kvsieve:: DESTINATION "${package_dir}")
install(FILES "${PROJECT_BINARY_DIR}/kvsieve-config.cmake" "${PROJECT_BINARY_DIR}/kvsieve-config-version.cmake"
        DESTINATION "${package_dir}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/kvsieve" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")
if(TARGET kvsieve_cli)
  install(TARGETS kvsieve_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/models/" DESTINATION "${KVSIEVE_MODELS_INSTALL_DIR}")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/docs/" DESTINATION "${CMAKE_INSTALL_DOCDIR}" FILES_MATCHING PATTERN "*.md")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/examples" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
if(NOT KVSIEVE_UPSTREAM_INSTALLED)
  install(FILES "${KVSIEVE_LLAMA_CPP}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}" RENAME LICENSE.llama.cpp)
endif()
