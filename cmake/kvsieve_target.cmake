# SPDX-License-Identifier: MIT
# kvsieve_compile_options(TARGET): our language level, warnings and sanitizers on any target of ours.
# kvsieve_library(LAYER sources...): a static library of one layer of the design, with these options.

function(kvsieve_compile_options target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wcast-qual
                                           -Wold-style-cast -Woverloaded-virtual
                         # GCC 12 warns wrongly about "text" + temporary (its bug 105651)
                         $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>)
  if(KVSIEVE_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(KVSIEVE_SANITIZE)
    string(REPLACE ";" "," sanitizers "${KVSIEVE_SANITIZE}")
    # assertions on; g++ documents false positives of -Wmaybe-uninitialized under -fsanitize
    target_compile_options(${target} PRIVATE -O1 -g1 -UNDEBUG -fsanitize=${sanitizers} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all -Wno-maybe-uninitialized)
    target_link_options(${target} PUBLIC -fsanitize=${sanitizers})
  endif()
endfunction()

function(kvsieve_library layer)
  add_library(kvsieve_${layer} STATIC ${ARGN})
  add_library(kvsieve::${layer} ALIAS kvsieve_${layer})
  target_include_directories(kvsieve_${layer} PUBLIC "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
  kvsieve_compile_options(kvsieve_${layer})
  set_property(GLOBAL APPEND PROPERTY KVSIEVE_LAYERS kvsieve_${layer})
endfunction()
