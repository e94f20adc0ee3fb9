include(${CMAKE_CURRENT_LIST_DIR}/ai_vmmTargets.cmake)

# ai_vmm_add_backend(NAME SOURCE…): the plugin NAME.so, which shows its entry function and nothing else of its own, and
# links nothing of AI VMM.
function(ai_vmm_add_backend name)
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE ai_vmm::backend)
  set_target_properties(${name} PROPERTIES PREFIX "" C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON CXX_EXTENSIONS ON)
  # Objects that are unique across libraries would tie one plugin to another.
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>)
endfunction()
