// Decoding of picture files.
#pragma once

#include <span>

#include "ai_vmm/types.hpp"

namespace ai_vmm {

// The picture as u8 [height, width, 3], red first. Knows JPEG, PNG, BMP, WebP, TIFF, JPEG 2000 and PNM (P1 to P6), told
// by their first bytes. Damaged or unknown bytes fail with data_loss, too large pictures with resource_exhausted.
Result<Tensor> decode_image(std::span<const uint8_t> bytes);

}  // namespace ai_vmm
