// The part of OpenVINO's C interface that we use (openvino/c/openvino.h of the PyPI package openvino 2026.4). Every
// function that returns an int returns 0 on success.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/library.hpp"

namespace ai_vmm::openvino {

// Opaque objects of the library.
struct ov_core;
struct ov_model;
struct ov_compiled_model;
struct ov_infer_request;
struct ov_tensor;
struct ov_const_port;

struct ov_version {
  const char *build_number, *description;
};
struct ov_devices {
  char** names;
  size_t count;
};
struct ov_shape {
  int64_t rank;
  int64_t* dims;
};

struct ov_range {  // ov_rank_t and ov_dimension_t; max -1: open
  int64_t min, max;
};
struct ov_partial_shape {
  ov_range rank;
  ov_range* dims;
};

inline constexpr int kInvalidParameter = -14;  // ov_status_e; those below it are of the C interface too

// ov_element_type_e as of 2025.0; earlier ones count differently.
enum ov_element_type : int {
  kBoolean = 1,
  kBf16 = 2,
  kF16 = 3,
  kF32 = 4,
  kI4 = 6,
  kI8 = 7,
  kI16 = 8,
  kI32 = 9,
  kI64 = 10,
  kU4 = 14,
  kU8 = 16,
  kU16 = 17,
  kU32 = 18,
  kU64 = 19,
};

struct Api : Library {
  Symbol<int(ov_version*)> ov_get_openvino_version{this, "ov_get_openvino_version"};
  Symbol<void(ov_version*)> ov_version_free{this, "ov_version_free"};
  Symbol<const char*()> ov_get_last_err_msg{this, "ov_get_last_err_msg"};  // to be freed by ov_free
  Symbol<const char*(int status)> ov_get_error_info{this, "ov_get_error_info"};
  Symbol<void(const char*)> ov_free{this, "ov_free"};
  Symbol<int(ov_core**)> ov_core_create{this, "ov_core_create"};
  Symbol<int(const ov_core*, ov_devices*)> ov_core_get_available_devices{this, "ov_core_get_available_devices"};
  Symbol<void(ov_devices*)> ov_available_devices_free{this, "ov_available_devices_free"};
  Symbol<int(const ov_core*, const char* device, const char* key, char** value)> ov_core_get_property{
      this, "ov_core_get_property"};
  Symbol<int(const ov_core*, const char* model, size_t bytes, const ov_tensor* weights, ov_model**)>
      ov_core_read_model_from_memory_buffer{this, "ov_core_read_model_from_memory_buffer"};
  // `texts` keys and values follow the last named argument, each a const char*.
  Symbol<int(const ov_core*, const ov_model*, const char* device, size_t texts, ov_compiled_model**, ...)>
      ov_core_compile_model{this, "ov_core_compile_model"};
  Symbol<void(ov_model*)> ov_model_free{this, "ov_model_free"};
  Symbol<int(const ov_compiled_model*, size_t*)> ov_compiled_model_inputs_size{this, "ov_compiled_model_inputs_size"};
  Symbol<int(const ov_compiled_model*, size_t, ov_const_port**)> ov_compiled_model_input_by_index{
      this, "ov_compiled_model_input_by_index"};
  Symbol<int(const ov_compiled_model*, const char*, ov_const_port**)> ov_compiled_model_input_by_name{
      this, "ov_compiled_model_input_by_name"};
  Symbol<int(const ov_compiled_model*, size_t, ov_const_port**)> ov_compiled_model_output_by_index{
      this, "ov_compiled_model_output_by_index"};
  Symbol<int(const ov_compiled_model*, size_t*)> ov_compiled_model_outputs_size{this, "ov_compiled_model_outputs_size"};
  Symbol<int(const ov_const_port*, ov_element_type*)> ov_port_get_element_type{this, "ov_port_get_element_type"};
  Symbol<int(const ov_const_port*, ov_partial_shape*)> ov_port_get_partial_shape{this, "ov_port_get_partial_shape"};
  Symbol<void(ov_partial_shape*)> ov_partial_shape_free{this, "ov_partial_shape_free"};
  Symbol<void(ov_const_port*)> ov_output_const_port_free{this, "ov_output_const_port_free"};
  Symbol<int(const ov_compiled_model*, ov_infer_request**)> ov_compiled_model_create_infer_request{
      this, "ov_compiled_model_create_infer_request"};
  Symbol<void(ov_compiled_model*)> ov_compiled_model_free{this, "ov_compiled_model_free"};
  Symbol<int(ov_infer_request*, const ov_const_port*, const ov_tensor*)> ov_infer_request_set_tensor_by_const_port{
      this, "ov_infer_request_set_tensor_by_const_port"};
  Symbol<int(ov_infer_request*, size_t, const ov_tensor*)> ov_infer_request_set_output_tensor_by_index{
      this, "ov_infer_request_set_output_tensor_by_index"};
  Symbol<int(const ov_infer_request*, size_t, ov_tensor**)> ov_infer_request_get_output_tensor_by_index{
      this, "ov_infer_request_get_output_tensor_by_index"};
  Symbol<int(ov_infer_request*)> ov_infer_request_infer{this, "ov_infer_request_infer"};
  Symbol<void(ov_infer_request*)> ov_infer_request_free{this, "ov_infer_request_free"};
  Symbol<int(ov_element_type, ov_shape, void* data, ov_tensor**)> ov_tensor_create_from_host_ptr{
      this, "ov_tensor_create_from_host_ptr"};
  Symbol<int(const ov_tensor*, ov_shape*)> ov_tensor_get_shape{this, "ov_tensor_get_shape"};
  Symbol<int(ov_shape*)> ov_shape_free{this, "ov_shape_free"};
  Symbol<int(const ov_tensor*, void**)> ov_tensor_data{this, "ov_tensor_data"};
  Symbol<void(ov_tensor*)> ov_tensor_free{this, "ov_tensor_free"};
};

}  // namespace ai_vmm::openvino
