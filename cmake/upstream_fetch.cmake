# SPDX-License-Identifier: MIT
# kvsieve_fetch_upstream(OUT [WITH path...]): the llama.cpp tree inside the source distribution of llama-cpp-python;
# only what we build of it is extracted. WITH more paths it is a tree of its own.

include(pypi_fetch)

function(kvsieve_fetch_upstream out)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "WITH")
  set(sdist llama_cpp_python-0.3.36)
  set(tree ${sdist})
  if(arg_WITH)
    string(APPEND tree -tools)
  endif()
  set(members "")
  foreach(part CMakeLists.txt LICENSE cmake ggml include src vendor tools/mtmd ${arg_WITH})
    list(APPEND members "${sdist}/vendor/llama.cpp/${part}")
  endforeach()
  kvsieve_fetch_pypi(
    REQUIREMENT llama-cpp-python==0.3.36 NO_BINARY llama-cpp-python
    ARCHIVE ${sdist}.tar.gz MEGABYTES 77
    SHA256 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
    MEMBERS ${members} TAKE ${sdist} AS ${tree}
    ADVICE "name a llama.cpp source tree with -DKVSIEVE_LLAMA_CPP_DIR=DIR instead, or try again")
  set(${out} "${KVSIEVE_UPSTREAM_CACHE}/${tree}/vendor/llama.cpp" PARENT_SCOPE)
endfunction()
