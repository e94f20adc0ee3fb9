// Pictures as model inputs: PNG and JPEG, resized and normalised as stated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ai_vmm/types.hpp"
#include "command.hpp"

namespace ai_vmm::cli {

struct Image {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;  // height × width × 3; transparency is laid over white
};
Result<Image> read_image(const std::string& path);

// How a picture becomes numbers: resize, then (pixel − mean) · scale for each channel.
struct Preprocess {
  int64_t height = 0,
          width = 0;  // 0: as the model's input fixes it; where it does not, by the picture's own proportions
  enum class Layout { automatic, nchw, nhwc } layout = Layout::automatic;
  std::string channels;             // "rgb", "bgr", "gray"; empty: gray for a model with one channel, else rgb
  std::vector<double> mean, scale;  // one, or one a channel; empty: 127.5 and 1/127.5 for floats, 0 and 1 for integers
};
std::span<const Option> image_options();
Result<Preprocess> preprocess_options(const Arguments& arguments);

// One picture as a tensor of `dtype` that fits `shape` (-1: free; empty: rank not known). `said` gets a line that
// states what was done.
Result<Tensor> to_tensor(const Image& image, const Preprocess& how, DType dtype, const std::vector<int64_t>& shape,
                         std::string& said);

}  // namespace ai_vmm::cli
