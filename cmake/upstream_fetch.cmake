# SPDX-License-Identifier: MIT
# kvsieve_fetch_upstream(OUT): fetches the source distribution of llama-cpp-python with pip, checks it, and extracts
# what we build of vendor/llama.cpp into KVSIEVE_UPSTREAM_CACHE, once for all build directories.
# Download and extraction go into a directory whose rename is the last step: an interrupted call leaves nothing
# that a later one would take for whole.

set(kvsieve_sdist llama_cpp_python-0.3.36)
set(kvsieve_sdist_requirement llama-cpp-python==0.3.36)
set(kvsieve_sdist_size 76589250)
set(kvsieve_sdist_sha256 832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e)

function(kvsieve_fetch_upstream out)
  set(cache "${KVSIEVE_UPSTREAM_CACHE}")
  set(final "${cache}/${kvsieve_sdist}")
  set(${out} "${final}/vendor/llama.cpp" PARENT_SCOPE)
  if(EXISTS "${final}")
    return()
  endif()

  file(MAKE_DIRECTORY "${cache}")
  file(LOCK "${cache}/lock" GUARD FUNCTION TIMEOUT 1800 RESULT_VARIABLE locked)
  if(EXISTS "${final}")  # another configure run was faster
    return()
  endif()
  set(work "${cache}/unfinished")
  file(REMOVE_RECURSE "${work}")
  file(MAKE_DIRECTORY "${work}")

  set(archive "${work}/${kvsieve_sdist}.tar.gz")
  set(advice "name a llama.cpp source tree with -DKVSIEVE_LLAMA_CPP_DIR=DIR instead, or try again")
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(NOT Python3_Interpreter_FOUND)
    message(FATAL_ERROR "python3 with pip is needed to fetch llama.cpp and was not found: install it or ${advice}")
  endif()
  message(STATUS "Fetching ${kvsieve_sdist} (77 MB)")
  # `--no-binary :all:` would also build every build dependency from source.
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps
            --no-binary llama-cpp-python "${kvsieve_sdist_requirement}" --dest "${work}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0 OR NOT EXISTS "${archive}")
    message(FATAL_ERROR "pip could not download ${kvsieve_sdist_requirement} (exit status ${result}); ${advice}:\n"
                        "${output}")
  endif()
  file(SIZE "${archive}" size)
  file(SHA256 "${archive}" sum)
  if(NOT size EQUAL kvsieve_sdist_size OR NOT sum STREQUAL kvsieve_sdist_sha256)
    message(FATAL_ERROR "${kvsieve_sdist}.tar.gz has ${size} bytes and SHA-256 ${sum}, expected "
                        "${kvsieve_sdist_size} bytes and ${kvsieve_sdist_sha256}; ${advice}")
  endif()

  foreach(part CMakeLists.txt LICENSE cmake ggml include src vendor tools/mtmd)
    list(APPEND parts "${kvsieve_sdist}/vendor/llama.cpp/${part}")
  endforeach()
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${work}" PATTERNS ${parts})
  file(RENAME "${work}/${kvsieve_sdist}" "${final}")
  file(REMOVE_RECURSE "${work}")
endfunction()
