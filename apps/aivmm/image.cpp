#include "image.hpp"

#include <png.h>
#include <setjmp.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include <jpeglib.h>

#include "base/npy.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"

namespace ai_vmm::cli {

namespace {
constexpr Option kImageOptions[] = {
    {"--image-size", "HxW", "Resize pictures (bilinear); a letter for a side keeps the proportions: 48xW."},
    {"--image-mean", "M[,M,M]", "Subtracted from each channel's 0…255; default 127.5 for floats, 0 for integers."},
    {"--image-scale", "S[,S,S]", "Multiplied after that; fractions may be written: 1/127.5, the default for floats."},
    {"--image-channels", "ORDER", "Order of channels; default rgb, or gray for a model that wants one channel.", false,
     "rgb|bgr|gray"},
    {"--image-layout", "LAYOUT", "Order of dimensions; default as the model's shape shows, else nchw.", false,
     "nchw|nhwc"},
};

constexpr int64_t kMostSide = 1 << 16;

Status damaged(const char* what) {
  return Status(Code::data_loss, std::string("The picture cannot be read: ") + what + ".");
}

Result<Image> read_png(const std::string& bytes) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) return damaged(png.message);
  if (png.width > kMostSide || png.height > kMostSide) {
    png_image_free(&png);
    return damaged("it is wider or higher than 65536 pixels");
  }
  png.format = PNG_FORMAT_RGB;
  Image image{png.height, png.width, std::vector<uint8_t>(PNG_IMAGE_SIZE(png))};
  png_color white{255, 255, 255};
  if (!png_image_finish_read(&png, &white, image.rgb.data(), 0, nullptr)) return damaged(png.message);
  return image;
}

// libjpeg leaves through a long jump on errors.
struct JpegFailure {
  jpeg_error_mgr manager;
  jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

// What the jump passes over lives in the caller, so that nothing it changed is lost.
bool decode_jpeg(const std::string& bytes, Image& image, JpegFailure& failure, jpeg_decompress_struct& jpeg) {
  if (setjmp(failure.back)) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&jpeg, TRUE);
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  image.height = jpeg.output_height;
  image.width = jpeg.output_width;
  image.rgb.resize(static_cast<size_t>(image.height * image.width * 3));
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = image.rgb.data() + size_t(jpeg.output_scanline) * static_cast<size_t>(image.width) * 3;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

Result<Image> read_jpeg(const std::string& bytes) {
  Image image;
  jpeg_decompress_struct jpeg{};
  JpegFailure failure{};
  jpeg.err = jpeg_std_error(&failure.manager);
  failure.manager.error_exit = [](j_common_ptr info) {
    auto* f = reinterpret_cast<JpegFailure*>(info->err);
    info->err->format_message(info, f->message);
    longjmp(f->back, 1);
  };
  failure.manager.output_message = [](j_common_ptr) {};
  bool read = decode_jpeg(bytes, image, failure, jpeg);
  jpeg_destroy_decompress(&jpeg);
  if (!read) return damaged(failure.message);
  return image;
}

// Bilinear with pixel centres at halves: height × width × 3 floats.
std::vector<float> resize(const Image& image, int64_t height, int64_t width) {
  std::vector<float> out(static_cast<size_t>(height * width * 3));
  auto at = [&](int64_t y, int64_t x, int c) {
    return float(image.rgb[static_cast<size_t>((y * image.width + x) * 3 + c)]);
  };
  for (int64_t y = 0; y < height; ++y) {
    double sy =
        std::clamp((double(y) + 0.5) * double(image.height) / double(height) - 0.5, 0.0, double(image.height - 1));
    auto y0 = int64_t(sy), y1 = std::min(y0 + 1, image.height - 1);
    auto fy = float(sy - double(y0));
    for (int64_t x = 0; x < width; ++x) {
      double sx =
          std::clamp((double(x) + 0.5) * double(image.width) / double(width) - 0.5, 0.0, double(image.width - 1));
      auto x0 = int64_t(sx), x1 = std::min(x0 + 1, image.width - 1);
      auto fx = float(sx - double(x0));
      for (int c = 0; c < 3; ++c) {
        float top = at(y0, x0, c) * (1 - fx) + at(y0, x1, c) * fx,
              bottom = at(y1, x0, c) * (1 - fx) + at(y1, x1, c) * fx;
        out[static_cast<size_t>((y * width + x) * 3 + c)] = top * (1 - fy) + bottom * fy;
      }
    }
  }
  return out;
}

// "127.5" or "1/127.5", one or three of them.
Result<std::vector<double>> numbers(const Arguments& arguments, const char* option) {
  std::vector<double> values;
  if (!arguments.has(option)) return values;
  std::string text = arguments.text(option);
  auto number = [](std::string_view t) -> std::optional<double> {
    double v = 0;
    auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), v);
    return error == std::errc() && end == t.data() + t.size() && std::isfinite(v) ? std::optional(v) : std::nullopt;
  };
  for (std::string_view part : split(text, ',')) {
    auto fraction = split(part, '/');
    auto above = number(fraction[0]), below = fraction.size() == 2 ? number(fraction[1]) : std::optional(1.0);
    if (fraction.size() > 2 || !above || !below || *below == 0)
      values.clear();
    else
      values.push_back(*above / *below);
    if (values.empty()) break;
  }
  if (values.size() != 1 && values.size() != 3)
    return Status(Code::invalid_argument, std::string(option) + " is \"" + text +
                                              "\", but must be one or three numbers, such as 0.5 or 1/127.5.");
  return values;
}
}  // namespace

std::span<const Option> image_options() { return kImageOptions; }

Result<Image> read_image(const std::string& path) {
  std::string bytes = AI_VMM_TAKE(read_file(path));
  auto image = bytes.substr(0, 4) == "\x89PNG"        ? read_png(bytes)
               : bytes.substr(0, 3) == "\xff\xd8\xff" ? read_jpeg(bytes)
                                                      : Result<Image>(damaged("it is neither PNG nor JPEG"));
  if (!image.ok()) return std::move(image).status().during("reading " + path);
  return image;
}

Result<Preprocess> preprocess_options(const Arguments& arguments) {
  Preprocess p;
  if (arguments.has("--image-size")) {
    std::string text = arguments.text("--image-size");
    auto sides = split(text, 'x');
    bool good = sides.size() == 2;
    for (size_t i = 0; good && i < 2; ++i) {
      int64_t& side = i ? p.width : p.height;
      auto [end, error] = std::from_chars(sides[i].data(), sides[i].data() + sides[i].size(), side);
      bool letter = sides[i] == (i ? "W" : "H");
      good =
          letter || (error == std::errc() && end == sides[i].data() + sides[i].size() && side > 0 && side <= kMostSide);
      if (letter) side = 0;
    }
    if (!good || (!p.height && !p.width))
      return Status(Code::invalid_argument,
                    "--image-size is \"" + text + "\", but must be of the form 224x224, 48xW or Hx320.");
  }
  p.mean = AI_VMM_TAKE(numbers(arguments, "--image-mean"));
  p.scale = AI_VMM_TAKE(numbers(arguments, "--image-scale"));
  p.channels = arguments.text("--image-channels");
  std::string layout = arguments.text("--image-layout");
  if (!layout.empty()) p.layout = layout == "nchw" ? Preprocess::Layout::nchw : Preprocess::Layout::nhwc;
  return p;
}

Result<Tensor> to_tensor(const Image& image, const Preprocess& how, DType dtype, const std::vector<int64_t>& shape,
                         std::string& said) {
  if (dtype == DType::string || dtype == DType::boolean || is_complex(dtype))
    return Status(Code::invalid_argument, std::string("A picture cannot become elements of type ") + name(dtype) + ".");
  size_t rank = shape.empty() ? 4 : shape.size();
  if (rank != 3 && rank != 4)
    return Status(Code::invalid_argument,
                  "A picture fits an input of 3 or 4 dimensions, but this one has " + std::to_string(rank) + ".");
  auto wanted = [&](size_t from_end) { return shape.empty() ? -1 : shape[rank - from_end]; };
  bool last_is_channels = (wanted(1) == 1 || wanted(1) == 3) && wanted(3) != 1 && wanted(3) != 3;
  bool nhwc =
      how.layout == Preprocess::Layout::nhwc || (how.layout == Preprocess::Layout::automatic && last_is_channels);
  int64_t fixed_channels = wanted(nhwc ? 1 : 3), fixed_h = wanted(nhwc ? 3 : 2), fixed_w = wanted(nhwc ? 2 : 1);

  std::string order = !how.channels.empty() ? how.channels : fixed_channels == 1 ? "gray" : "rgb";
  int64_t channels = order == "gray" ? 1 : 3;
  if (fixed_channels > 0 && fixed_channels != channels)
    return Status(Code::invalid_argument, "The input wants " + std::to_string(fixed_channels) + " channels, but " +
                                              order + " has " + std::to_string(channels) + "; see --image-channels.");

  // A side is: asked for, fixed by the model, from the other side by proportion, the picture's own.
  int64_t h = how.height    ? how.height
              : fixed_h > 0 ? fixed_h
                            : 0,
          w = how.width     ? how.width
              : fixed_w > 0 ? fixed_w
                            : 0;
  if (!h)
    h = w ? std::max<int64_t>(1, std::llround(double(image.height) * double(w) / double(image.width))) : image.height;
  if (!w) w = std::max<int64_t>(1, std::llround(double(image.width) * double(h) / double(image.height)));

  bool floats = is_float(dtype);
  auto mean = how.mean.empty() ? std::vector<double>{floats ? 127.5 : 0} : how.mean;
  auto scale = how.scale.empty() ? std::vector<double>{floats ? 1 / 127.5 : 1} : how.scale;
  std::vector<float> pixels = resize(image, h, w);
  Shape out_shape = nhwc ? Shape{h, w, channels} : Shape{channels, h, w};
  if (rank == 4) out_shape.insert(out_shape.begin(), 1);
  Tensor t = AI_VMM_TAKE(Tensor::make(dtype, out_shape));
  for (int64_t c = 0; c < channels; ++c) {
    double m = mean[mean.size() == 1 ? 0 : size_t(c)], s = scale[scale.size() == 1 ? 0 : size_t(c)];
    for (int64_t i = 0; i < h * w; ++i) {
      const float* p = &pixels[static_cast<size_t>(i * 3)];
      // Gray is luma of ITU-R BT.601, as JPEG and most image libraries use it.
      double v = order == "gray" ? 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2] : p[order == "rgb" ? c : 2 - c];
      v = (v - m) * s;
      write_double(dtype, t.mutable_data(), nhwc ? i * channels + c : c * h * w + i, floats ? v : std::nearbyint(v));
    }
  }

  auto list = [](const std::vector<double>& values) {
    std::string text;
    for (double v : values) {
      char n[32];
      std::snprintf(n, sizeof n, "%s%.6g", text.empty() ? "" : ",", v);
      text += n;
    }
    return text;
  };
  said = std::to_string(image.height) + "x" + std::to_string(image.width) +
         (h == image.height && w == image.width
              ? ""
              : " resized to " + std::to_string(h) + "x" + std::to_string(w) + " (bilinear)") +
         ", " + order + ", " + (nhwc ? "nhwc" : "nchw") + ", (pixel - " + list(mean) + ") * " + list(scale);
  return t;
}

}  // namespace ai_vmm::cli
