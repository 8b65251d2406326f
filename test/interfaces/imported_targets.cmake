# Targets imported from binary packages may name include folders of the machine
# that built them, which CMake refuses at its generate step. Header paths that do
# not exist cannot be needed by anything that compiles here, so they are dropped.
get_property(imported_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(target IN LISTS imported_targets)
  get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(NOT folders)
    continue()
  endif()
  set(kept "")
  foreach(folder IN LISTS folders)
    # Generator expressions are not paths yet.
    if(folder MATCHES "\\$<" OR EXISTS "${folder}")
      list(APPEND kept "${folder}")
    endif()
  endforeach()
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
endforeach()
