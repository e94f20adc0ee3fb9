#include "ops/images.hpp"

#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>
#include <openjpeg.h>
#include <png.h>
#include <tiffio.h>
#include <webp/decode.h>

#include <algorithm>
#include <cctype>
#include <string_view>

namespace ai_vmm {

namespace {

using Bytes = std::span<const uint8_t>;

constexpr int64_t kMostPixels = int64_t(1) << 28;  // the decoders allocate for themselves, outside the memory limit

Status damaged(const char* format) {
  return Status(Code::data_loss, std::string("The picture is not a valid ") + format + " file.");
}

Result<Tensor> canvas(int64_t height, int64_t width) {
  if (height <= 0 || width <= 0) return Status(Code::data_loss, "The picture has no pixels.");
  if (width > kMostPixels / height)
    return Status(Code::resource_exhausted, "The picture has " + std::to_string(height) + " x " +
                                                std::to_string(width) + " pixels; the limit is " +
                                                std::to_string(kMostPixels) + ".");
  return Tensor::make(DType::u8, {height, width, 3}, true);
}
uint8_t* pixels(Tensor& t) { return static_cast<uint8_t*>(t.mutable_data()); }

// ---------------------------------------------------------------- JPEG

struct JpegError {
  jpeg_error_mgr base;
  std::jmp_buf back;
};
[[noreturn]] void jpeg_fail(j_common_ptr info) { std::longjmp(reinterpret_cast<JpegError*>(info->err)->back, 1); }
void jpeg_silent(j_common_ptr, int) {}

// libjpeg reports errors by longjmp, so no object with a destructor lives in these two functions.
bool jpeg_open(jpeg_decompress_struct& info, JpegError& error, Bytes bytes) {
  info.err = jpeg_std_error(&error.base);
  error.base.error_exit = jpeg_fail;
  error.base.emit_message = jpeg_silent;
  if (setjmp(error.back)) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, bytes.data(), static_cast<unsigned long>(bytes.size()));
  return jpeg_read_header(&info, TRUE) == JPEG_HEADER_OK;
}
bool jpeg_read(jpeg_decompress_struct& info, JpegError& error, uint8_t* out) {
  if (setjmp(error.back)) return false;
  info.out_color_space = JCS_RGB;
  jpeg_start_decompress(&info);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = out + size_t(info.output_scanline) * info.output_width * 3;
    jpeg_read_scanlines(&info, &row, 1);
  }
  return jpeg_finish_decompress(&info);
}
Result<Tensor> decode_jpeg(Bytes bytes) {
  jpeg_decompress_struct info{};
  JpegError error{};
  Result<Tensor> image = damaged("JPEG");
  if (jpeg_open(info, error, bytes)) {
    image = canvas(info.image_height, info.image_width);
    if (image.ok() && !jpeg_read(info, error, pixels(*image))) image = damaged("JPEG");
  }
  jpeg_destroy_decompress(&info);
  return image;
}

// ---------------------------------------------------------------- PNG, WebP

Result<Tensor> decode_png(Bytes bytes) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  Result<Tensor> image = damaged("PNG");
  if (png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) {
    png.format = PNG_FORMAT_RGB;
    image = canvas(png.height, png.width);
    const png_color black{0, 0, 0};
    if (image.ok() && !png_image_finish_read(&png, &black, pixels(*image), 0, nullptr)) image = damaged("PNG");
  }
  png_image_free(&png);
  return image;
}

Result<Tensor> decode_webp(Bytes bytes) {
  int width = 0, height = 0;
  if (!WebPGetInfo(bytes.data(), bytes.size(), &width, &height)) return damaged("WebP");
  Tensor image = AI_VMM_TAKE(canvas(height, width));
  if (!WebPDecodeRGBInto(bytes.data(), bytes.size(), pixels(image), size_t(image.bytes()), width * 3))
    return damaged("WebP");
  return image;
}

// ---------------------------------------------------------------- reading from memory, for TIFF and JPEG 2000

struct Source {
  Bytes bytes;
  size_t at = 0;
  size_t read(void* to, size_t n) {
    n = std::min(n, bytes.size() - std::min(at, bytes.size()));
    if (n) std::memcpy(to, bytes.data() + at, n);
    at += n;
    return n;
  }
};

Result<Tensor> decode_tiff(Bytes bytes) {
  TIFFSetErrorHandler(nullptr);
  TIFFSetWarningHandler(nullptr);
  Source source{bytes};
  TIFF* tiff = TIFFClientOpen(
      "memory", "rm", &source,
      [](thandle_t h, void* to, tmsize_t n) -> tmsize_t {
        return n < 0 ? -1 : tmsize_t(static_cast<Source*>(h)->read(to, size_t(n)));
      },
      [](thandle_t, void*, tmsize_t) -> tmsize_t { return -1; },
      [](thandle_t h, toff_t offset, int whence) -> toff_t {
        auto* s = static_cast<Source*>(h);
        s->at = size_t(whence == SEEK_SET ? offset : (whence == SEEK_CUR ? s->at : s->bytes.size()) + offset);
        return s->at;
      },
      [](thandle_t) { return 0; }, [](thandle_t h) -> toff_t { return static_cast<Source*>(h)->bytes.size(); }, nullptr,
      nullptr);
  if (!tiff) return damaged("TIFF");
  uint32_t width = 0, height = 0;
  TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width);
  TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height);
  Result<Tensor> image = canvas(height, width);
  if (image.ok()) {
    auto raster = Tensor::make(DType::u32, {height, width});
    if (!raster.ok()) {
      image = std::move(raster).status();
    } else if (auto* from = static_cast<uint32_t*>(raster->mutable_data());
               TIFFReadRGBAImageOriented(tiff, width, height, from, ORIENTATION_TOPLEFT, 1)) {
      uint8_t* to = pixels(*image);
      for (int64_t i = 0; i < raster->count(); ++i, to += 3) {
        to[0] = uint8_t(TIFFGetR(from[i]));
        to[1] = uint8_t(TIFFGetG(from[i]));
        to[2] = uint8_t(TIFFGetB(from[i]));
      }
    } else {
      image = damaged("TIFF");
    }
  }
  TIFFClose(tiff);
  return image;
}

Result<Tensor> decode_jpeg2000(Bytes bytes) {
  Source source{bytes};
  bool bare = bytes[0] == 0xff;  // a code stream without the JP2 wrapping
  opj_codec_t* codec = opj_create_decompress(bare ? OPJ_CODEC_J2K : OPJ_CODEC_JP2);
  opj_stream_t* stream = opj_stream_default_create(OPJ_TRUE);
  opj_image_t* picture = nullptr;
  opj_stream_set_user_data(stream, &source, nullptr);
  opj_stream_set_user_data_length(stream, bytes.size());
  opj_stream_set_read_function(stream, [](void* to, OPJ_SIZE_T n, void* s) -> OPJ_SIZE_T {
    size_t got = static_cast<Source*>(s)->read(to, n);
    return got ? got : OPJ_SIZE_T(-1);
  });
  opj_stream_set_skip_function(stream, [](OPJ_OFF_T n, void* s) -> OPJ_OFF_T {
    static_cast<Source*>(s)->at += size_t(n);
    return n;
  });
  opj_stream_set_seek_function(stream, [](OPJ_OFF_T at, void* s) -> OPJ_BOOL {
    static_cast<Source*>(s)->at = size_t(at);
    return OPJ_TRUE;
  });
  opj_dparameters_t parameters;
  opj_set_default_decoder_parameters(&parameters);
  Result<Tensor> image = damaged("JPEG 2000");
  if (opj_setup_decoder(codec, &parameters) && opj_read_header(stream, codec, &picture)) {
    int64_t width = int64_t(picture->x1) - picture->x0, height = int64_t(picture->y1) - picture->y0;
    image = canvas(height, width);
    if (image.ok() && !(opj_decode(codec, stream, picture) && opj_end_decompress(codec, stream)))
      image = damaged("JPEG 2000");
    for (int k = 0; image.ok() && k < 3; ++k) {
      const opj_image_comp_t* c = picture->numcomps == 0 ? nullptr : &picture->comps[picture->numcomps < 3 ? 0 : k];
      if (!c || !c->data || int64_t(c->w) != width || int64_t(c->h) != height || c->prec < 1 || c->prec > 16) {
        image = damaged("JPEG 2000");
        break;
      }
      int offset = c->sgnd ? 1 << (c->prec - 1) : 0, top = (1 << c->prec) - 1;
      for (int64_t i = 0; i < width * height; ++i) {
        int v = std::clamp(c->data[i] + offset, 0, top);
        pixels(*image)[3 * i + k] = uint8_t(c->prec == 8 ? v : (v * 255 + top / 2) / top);
      }
    }
  }
  if (picture) opj_image_destroy(picture);
  opj_stream_destroy(stream);
  opj_destroy_codec(codec);
  return image;
}

// ---------------------------------------------------------------- BMP

Result<Tensor> decode_bmp(Bytes b) {
  auto u16 = [&](size_t at) { return at + 2 <= b.size() ? uint32_t(b[at] | b[at + 1] << 8) : 0u; };
  auto u32 = [&](size_t at) { return u16(at) | u16(at + 2) << 16; };
  uint32_t header = u32(14), depth = u16(28), compression = u32(30);
  int64_t width = int32_t(u32(18)), height = int32_t(u32(22)), start = u32(10);
  bool plain =
      compression == 0 || (compression == 3 && depth == 32);  // 3: bit fields, of which only the usual order is known
  if (header < 40 || !plain || (depth != 1 && depth != 4 && depth != 8 && depth != 24 && depth != 32))
    return damaged("uncompressed BMP");
  if (compression == 3 && (u32(54) != 0xff0000 || u32(58) != 0xff00 || u32(62) != 0xff))
    return damaged("BMP in the usual order of colours");
  bool top_down = height < 0;
  height = top_down ? -height : height;
  Tensor image = AI_VMM_TAKE(canvas(height, width));
  int64_t stride = (width * depth + 31) / 32 * 4;
  if (start + stride * height > int64_t(b.size())) return damaged("BMP");
  size_t palette = 14 + size_t(header);
  uint8_t* to = pixels(image);
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = b.data() + start + stride * (top_down ? y : height - 1 - y);
    for (int64_t x = 0; x < width; ++x, to += 3) {
      const uint8_t* from = row + x * depth / 8;
      if (depth < 24) {
        uint32_t index = *from >> (8 - depth - x * depth % 8) & ((1u << depth) - 1);
        if (palette + 4 * (index + 1) > b.size()) return damaged("BMP");
        from = b.data() + palette + 4 * index;
      }
      to[0] = from[2];
      to[1] = from[1];
      to[2] = from[0];
    }
  }
  return image;
}

// ---------------------------------------------------------------- PNM

Result<Tensor> decode_pnm(Bytes b) {
  int kind = b[1] - '0';
  bool text = kind <= 3, bitmap = kind == 1 || kind == 4;
  int channels = kind == 3 || kind == 6 ? 3 : 1;
  size_t at = 2;
  // The next number of the header or of a text body; -1 at the end. `digit`: one digit, as P1 may write them close.
  auto number = [&](bool digit) -> int64_t {
    while (at < b.size() && (std::isspace(b[at]) || b[at] == '#'))
      if (b[at++] == '#')
        while (at < b.size() && b[at] != '\n') ++at;
    if (at >= b.size() || !std::isdigit(b[at])) return -1;
    int64_t v = 0;
    do v = std::min<int64_t>(v * 10 + (b[at++] - '0'), kMostPixels + 1);
    while (!digit && at < b.size() && std::isdigit(b[at]));
    return v;
  };
  int64_t width = number(false), height = number(false), top = bitmap ? 1 : number(false);
  if (width < 1 || height < 1 || top < 1 || top > 65535) return damaged("PNM");
  ++at;  // the one white space before a binary body
  Tensor image = AI_VMM_TAKE(canvas(height, width));
  int64_t wide = top > 255 ? 2 : 1, stride = bitmap ? (width + 7) / 8 : width * channels * wide;
  if (!text && (at > b.size() || stride * height > int64_t(b.size() - at))) return damaged("PNM");
  uint8_t* to = pixels(image);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x, to += 3)
      for (int c = 0; c < channels; ++c) {
        int64_t v;
        const uint8_t* from =
            text ? nullptr : b.data() + at + stride * y + (bitmap ? x / 8 : (x * channels + c) * wide);
        if (text)
          v = number(bitmap);
        else if (bitmap)
          v = *from >> (7 - x % 8) & 1;
        else
          v = wide == 2 ? from[0] << 8 | from[1] : *from;
        if (v < 0 || v > top) return damaged("PNM");
        if (bitmap) v = 1 - v;  // 1 is black
        to[c] = uint8_t(top == 255 ? v : (v * 255 + top / 2) / top);
        if (channels == 1) to[1] = to[2] = to[0];
      }
  return image;
}

}  // namespace

Result<Tensor> decode_image(Bytes bytes) {
  std::string_view head(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 16));
  auto starts = [&](std::string_view magic, size_t at = 0) {
    return head.substr(std::min(at, head.size()), magic.size()) == magic;
  };
  if (starts("\xff\xd8\xff")) return decode_jpeg(bytes);
  if (starts("\x89PNG\r\n")) return decode_png(bytes);
  if (starts("RIFF") && starts("WEBP", 8)) return decode_webp(bytes);
  if (starts(std::string_view("II*\0", 4)) || starts(std::string_view("MM\0*", 4))) return decode_tiff(bytes);
  if (starts("\xff\x4f\xff\x51") || starts("jP  ", 4)) return decode_jpeg2000(bytes);
  if (starts("BM")) return decode_bmp(bytes);
  if (head.size() > 2 && head[0] == 'P' && head[1] >= '1' && head[1] <= '6') return decode_pnm(bytes);
  return Status(Code::data_loss,
                "The picture is in none of the formats JPEG, PNG, BMP, WebP, TIFF, JPEG 2000 and PNM.");
}

}  // namespace ai_vmm
