# SPDX-License-Identifier: MIT
# kvsieve_mend_tiles(LLAMA_CPP): ggml's AMX products of this source tree, a subproject by now, work when a GCC before 14
# compiles them (upstream/tiles_with_memory.h).
function(kvsieve_mend_tiles llama_cpp)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14
     AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND TARGET ggml-cpu)
    set_source_files_properties("${llama_cpp}/ggml/src/ggml-cpu/amx/mmq.cpp" TARGET_DIRECTORY ggml-cpu
      PROPERTIES COMPILE_OPTIONS "-include;${CMAKE_CURRENT_FUNCTION_LIST_DIR}/upstream/tiles_with_memory.h")
  endif()
endfunction()
