# SPDX-License-Identifier: MIT
# ggml, libllama and libmtmd. In this order: a source tree that the user names, an installed llama.cpp with libmtmd,
# the source distribution of the PyPI package llama-cpp-python, fetched with pip and checked.
# Defines kvsieve::upstream_ggml, kvsieve::upstream_llama and kvsieve::upstream_mtmd, and KVSIEVE_UPSTREAM_INSTALLED.
# A named source tree goes first because naming it says that it is wanted.

set(KVSIEVE_LLAMA_CPP_DIR "" CACHE PATH "A llama.cpp source tree to build instead of the fetched one")
option(KVSIEVE_INSTALLED_LLAMA_CPP "Use an installed llama.cpp with libmtmd where there is one" ON)
option(KVSIEVE_DEBUG_UPSTREAM "Let a debug build compile upstream without optimisation too" OFF)
set(KVSIEVE_UPSTREAM_CACHE "${PROJECT_SOURCE_DIR}/.upstream" CACHE PATH
    "Where the fetched source distribution is kept, for all build directories")

set(KVSIEVE_LLAMA_CPP_MIN 0.5.0)  # llama.cpp versions whose headers we know
set(KVSIEVE_LLAMA_CPP_END 0.6)

find_package(Threads REQUIRED)
include(upstream_fetch)
include(upstream_installed)

set(KVSIEVE_UPSTREAM_INSTALLED OFF)
if(KVSIEVE_LLAMA_CPP_DIR)
  set(KVSIEVE_LLAMA_CPP "${KVSIEVE_LLAMA_CPP_DIR}")
else()
  kvsieve_find_installed_upstream(KVSIEVE_UPSTREAM_INSTALLED reason)
  if(KVSIEVE_UPSTREAM_INSTALLED)
    message(STATUS "llama.cpp: installed, ${LLAMA_INCLUDE_DIR}")
  else()
    message(STATUS "llama.cpp: no installed one is used: ${reason}")
    kvsieve_fetch_upstream(KVSIEVE_LLAMA_CPP)
  endif()
endif()

if(NOT KVSIEVE_UPSTREAM_INSTALLED)
  if(NOT EXISTS "${KVSIEVE_LLAMA_CPP}/tools/mtmd/mtmd.h")
    message(FATAL_ERROR "${KVSIEVE_LLAMA_CPP} is not a llama.cpp source tree: it lacks tools/mtmd/mtmd.h")
  endif()
  message(STATUS "llama.cpp: source tree ${KVSIEVE_LLAMA_CPP}")
  add_subdirectory("${PROJECT_SOURCE_DIR}/cmake/upstream" "${CMAKE_BINARY_DIR}/upstream" EXCLUDE_FROM_ALL SYSTEM)
endif()

foreach(part ggml llama mtmd)
  add_library(kvsieve_upstream_${part} INTERFACE)
  add_library(kvsieve::upstream_${part} ALIAS kvsieve_upstream_${part})
endforeach()
if(KVSIEVE_UPSTREAM_INSTALLED)
  target_link_libraries(kvsieve_upstream_ggml INTERFACE ggml::ggml)
  target_link_libraries(kvsieve_upstream_llama INTERFACE llama)
  target_link_libraries(kvsieve_upstream_mtmd INTERFACE "${KVSIEVE_MTMD_LIBRARY}" llama)
  target_include_directories(kvsieve_upstream_mtmd SYSTEM INTERFACE "${KVSIEVE_MTMD_INCLUDE_DIR}")
else()
  target_link_libraries(kvsieve_upstream_ggml INTERFACE ggml)
  target_link_libraries(kvsieve_upstream_llama INTERFACE llama)
  target_link_libraries(kvsieve_upstream_mtmd INTERFACE mtmd)
endif()
