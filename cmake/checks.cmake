# SPDX-License-Identifier: MIT
# Targets `format` (rewrites our sources), `check-format` and `check-tidy` (fail on what they find).
# Version 14 of the tools, which Debian 12 and Ubuntu 24.04 have: another version formats differently.

file(GLOB_RECURSE kvsieve_sources CONFIGURE_DEPENDS
  "${PROJECT_SOURCE_DIR}/apps/*.cpp" "${PROJECT_SOURCE_DIR}/apps/*.h" "${PROJECT_SOURCE_DIR}/bench/*.cpp"
  "${PROJECT_SOURCE_DIR}/bench/*.h" "${PROJECT_SOURCE_DIR}/cmake/*.cpp" "${PROJECT_SOURCE_DIR}/examples/*.cpp"
  "${PROJECT_SOURCE_DIR}/include/*.h" "${PROJECT_SOURCE_DIR}/src/*.cpp" "${PROJECT_SOURCE_DIR}/src/*.h"
  "${PROJECT_SOURCE_DIR}/tests/*.cpp" "${PROJECT_SOURCE_DIR}/tests/*.h")

find_program(KVSIEVE_CLANG_FORMAT clang-format-14)
find_program(KVSIEVE_CLANG_TIDY clang-tidy-14)

function(kvsieve_missing_tool target tool)
  add_custom_target(${target} COMMAND ${CMAKE_COMMAND} -E echo "${tool} is needed and was not found"
                    COMMAND ${CMAKE_COMMAND} -E false VERBATIM)
endfunction()

if(KVSIEVE_CLANG_FORMAT)
  add_custom_target(format COMMAND "${KVSIEVE_CLANG_FORMAT}" -i ${kvsieve_sources} VERBATIM)
  add_custom_target(check-format COMMAND "${KVSIEVE_CLANG_FORMAT}" --dry-run --Werror ${kvsieve_sources} VERBATIM)
else()
  kvsieve_missing_tool(format clang-format-14)
  kvsieve_missing_tool(check-format clang-format-14)
endif()

# One stamp per source of src/ and apps/: a second run looks only at what changed. Headers are checked through them.
if(KVSIEVE_CLANG_TIDY)
  set(headers ${kvsieve_sources})
  list(FILTER headers INCLUDE REGEX "/(include|src|apps)/.*\\.h$")
  set(tidied ${kvsieve_sources})
  list(FILTER tidied INCLUDE REGEX "^${PROJECT_SOURCE_DIR}/(src|apps)/.*\\.cpp$")
  set(stamps "")
  foreach(source IN LISTS tidied)
    file(RELATIVE_PATH name "${PROJECT_SOURCE_DIR}" "${source}")
    set(stamp "${PROJECT_BINARY_DIR}/tidy/${name}.stamp")
    get_filename_component(stamp_dir "${stamp}" DIRECTORY)
    file(MAKE_DIRECTORY "${stamp_dir}")
    add_custom_command(OUTPUT "${stamp}"
      COMMAND "${KVSIEVE_CLANG_TIDY}" --quiet -p "${PROJECT_BINARY_DIR}" "${source}"
      COMMAND ${CMAKE_COMMAND} -E touch "${stamp}"
      DEPENDS "${source}" ${headers} "${PROJECT_SOURCE_DIR}/.clang-tidy"
      COMMENT "clang-tidy ${name}" VERBATIM)
    list(APPEND stamps "${stamp}")
  endforeach()
  add_custom_target(check-tidy DEPENDS ${stamps})
else()
  kvsieve_missing_tool(check-tidy clang-tidy-14)
endif()
