// NumPy's array files: .npy (one array) and .npz (a zip of named arrays).
//
// NumPy has no names for the narrow float kinds. What ml_dtypes writes as raw bytes is read so: V2 is bf16, V1 is u8,
// to be fitted to the type that is wanted. Written are: bf16 as V2, 8-bit floats and f4e2m1 as V1 (one byte an
// element), 2- and 4-bit integers as i1 or u1, strings as U (UTF-32).
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// One array. Fortran order and big-endian data are turned; object arrays (pickles) are refused.
Result<Tensor> parse_npy(std::span<const std::byte> bytes);
Result<std::string> format_npy(const Tensor& tensor);

Result<Tensor> read_npy(const std::string& path);
Result<NamedTensors> read_npz(const std::string& path);
Status write_npy(const std::string& path, const Tensor& tensor);
Status write_npz(const std::string& path, const NamedTensors& arrays);

// `tensor` as `wanted` where its bytes or integers only stand for that type in NumPy: u8 → 8-bit floats, u16 → f16 and
// bf16, one integer a byte → packed 2- and 4-bit types. Other differences are invalid_argument: nothing is converted
// silently.
Result<Tensor> fit_dtype(const Tensor& tensor, DType wanted);

// Whole files. A failed write leaves the old file as it was.
Result<std::string> read_file(const std::string& path);
Status write_file(const std::string& path, std::string_view bytes);

}  // namespace ai_vmm
