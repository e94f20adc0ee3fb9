// ImageDecoder: a picture file as a tensor.
#include "ops/all_ops.hpp"
#include "ops/images.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

Status infer_decoder(Infer& c) {
  c.set(0, DType::u8, {c.fresh(), c.fresh(), Dim(c.node.s("pixel_format", "RGB") == "Grayscale" ? 1 : 3)});
  return {};
}

Status eval_decoder(Eval& e) {
  std::string format = e.node.s("pixel_format", "RGB");
  if (format != "RGB" && format != "BGR" && format != "Grayscale")
    return e.error("pixel_format \"" + format + "\" is none of RGB, BGR, Grayscale.");
  bool gray = format == "Grayscale";
  auto image = decode_image(e.in(0).as<uint8_t>());
  if (!image.ok()) {
    if (image.status().code() != Code::data_loss) return std::move(image).status();
    AI_VMM_TAKE(e.make(0, DType::u8, {0, 0, gray ? 1 : 3}));  // what ONNX asks for when the bytes cannot be read
    return {};
  }
  if (format == "RGB") {
    e.set(0, Data(*std::move(image)));
    return {};
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::u8, {image->dim(0), image->dim(1), gray ? 1 : 3}));
  auto from = image->as<uint8_t>();
  auto to = y->as_mutable<uint8_t>();
  for (size_t i = 0; i < from.size() / 3; ++i) {
    unsigned r = from[3 * i], g = from[3 * i + 1], b = from[3 * i + 2];
    if (gray) {  // luma of ITU-R BT.601 in 16-bit fixed point
      to[i] = uint8_t((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16);
    } else {
      to[3 * i] = uint8_t(b);
      to[3 * i + 1] = uint8_t(g);
      to[3 * i + 2] = uint8_t(r);
    }
  }
  return {};
}

const OpDef kOps[] = {
    {"ImageDecoder", "", 20, "encoded_stream:u8 -> image:u8", "pixel_format:string=RGB",
     "Decodes a picture file (JPEG, PNG, BMP, WebP, TIFF, JPEG 2000, PNM) to [height, width, channels]; bytes that "
     "cannot be read give an empty picture.",
     kHostOnly | kDataDependent, infer_decoder, nullptr, eval_decoder},
};

}  // namespace

std::span<const OpDef> image_ops() { return kOps; }

}  // namespace ai_vmm
