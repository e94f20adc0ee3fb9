#include "ops/ref.hpp"

#include "base/check.hpp"

namespace ai_vmm::ref {

template <>
std::vector<double> load<double>(const Tensor& t) {
  std::vector<double> v(size_t(t.count()));
  if (t.dtype() == DType::f32) {
    auto s = t.as<float>();
    std::copy(s.begin(), s.end(), v.begin());
  } else {
    for (int64_t i = 0; i < t.count(); ++i) v[size_t(i)] = read_double(t.dtype(), t.data(), i);
  }
  return v;
}
template <>
std::vector<int64_t> load<int64_t>(const Tensor& t) {
  std::vector<int64_t> v(size_t(t.count()));
  for (int64_t i = 0; i < t.count(); ++i) v[size_t(i)] = read_int64(t.dtype(), t.data(), i);
  return v;
}
template <>
std::vector<uint64_t> load<uint64_t>(const Tensor& t) {
  std::vector<uint64_t> v(size_t(t.count()));
  for (int64_t i = 0; i < t.count(); ++i) v[size_t(i)] = uint64_t(read_int64(t.dtype(), t.data(), i));
  return v;
}
template <>
std::vector<Complex> load<Complex>(const Tensor& t) {
  std::vector<Complex> v(size_t(t.count()));
  for (int64_t i = 0; i < t.count(); ++i) {
    if (t.dtype() == DType::c64) {
      const float* p = static_cast<const float*>(t.data()) + 2 * i;
      v[size_t(i)] = {p[0], p[1]};
    } else if (t.dtype() == DType::c128) {
      const double* p = static_cast<const double*>(t.data()) + 2 * i;
      v[size_t(i)] = {p[0], p[1]};
    } else {
      v[size_t(i)] = read_double(t.dtype(), t.data(), i);
    }
  }
  return v;
}
template <>
std::vector<std::string> load<std::string>(const Tensor& t) {
  auto s = t.as<std::string>();
  return {s.begin(), s.end()};
}

template <>
void store<double>(Tensor& t, std::span<const double> v) {
  AI_VMM_CHECK(int64_t(v.size()) == t.count());
  for (int64_t i = 0; i < t.count(); ++i) write_double(t.dtype(), t.mutable_data(), i, v[size_t(i)]);
}
template <>
void store<int64_t>(Tensor& t, std::span<const int64_t> v) {
  AI_VMM_CHECK(int64_t(v.size()) == t.count());
  for (int64_t i = 0; i < t.count(); ++i) write_int64(t.dtype(), t.mutable_data(), i, v[size_t(i)]);
}
template <>
void store<uint64_t>(Tensor& t, std::span<const uint64_t> v) {
  AI_VMM_CHECK(int64_t(v.size()) == t.count());
  for (int64_t i = 0; i < t.count(); ++i) {
    if (is_float(t.dtype()))
      write_double(t.dtype(), t.mutable_data(), i, double(v[size_t(i)]));
    else
      write_int64(t.dtype(), t.mutable_data(), i, int64_t(v[size_t(i)]));
  }
}
template <>
void store<Complex>(Tensor& t, std::span<const Complex> v) {
  AI_VMM_CHECK(int64_t(v.size()) == t.count());
  for (int64_t i = 0; i < t.count(); ++i) {
    if (t.dtype() == DType::c64) {
      float* p = static_cast<float*>(t.mutable_data()) + 2 * i;
      p[0] = float(v[size_t(i)].real());
      p[1] = float(v[size_t(i)].imag());
    } else if (t.dtype() == DType::c128) {
      double* p = static_cast<double*>(t.mutable_data()) + 2 * i;
      p[0] = v[size_t(i)].real();
      p[1] = v[size_t(i)].imag();
    } else {
      write_double(t.dtype(), t.mutable_data(), i, v[size_t(i)].real());
    }
  }
}
template <>
void store<std::string>(Tensor& t, std::span<const std::string> v) {
  AI_VMM_CHECK(int64_t(v.size()) == t.count());
  auto to = t.as_mutable<std::string>();
  std::copy(v.begin(), v.end(), to.begin());
}

std::vector<int64_t> ints(const Tensor& t) { return load<int64_t>(t); }

int64_t product(std::span<const int64_t> dims) {
  int64_t n = 1;
  for (int64_t d : dims) n *= d;
  return n;
}

Status affordable(const Shape& shape) { return Tensor::make(DType::f64, shape).status().copy(); }

Shape strides_of(const Shape& shape) {
  Shape s(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) s[i - 1] = s[i] * shape[i];
  return s;
}

Result<Shape> broadcast(const Eval& e, std::span<const Shape> shapes) {
  size_t rank = 0;
  for (const Shape& s : shapes) rank = std::max(rank, s.size());
  Shape out(rank, 1);
  for (const Shape& s : shapes)
    for (size_t i = 0; i < s.size(); ++i) {
      int64_t& o = out[rank - s.size() + i];
      if (o != 1 && s[i] != 1 && o != s[i]) {
        std::string all;
        for (const Shape& x : shapes) all += (all.empty() ? "" : " and ") + ai_vmm::to_string(x);
        return e.error("shapes " + all + " do not broadcast.");
      }
      if (o == 1) o = s[i];
    }
  return out;
}

Shape broadcast_strides(const Shape& from, const Shape& to) {
  Shape own = strides_of(from), s(to.size(), 0);
  for (size_t i = 0; i < from.size(); ++i) s[to.size() - from.size() + i] = from[i] == 1 ? 0 : own[i];
  return s;
}

void write_narrow(Tensor& y, int64_t i, double v, const Narrowing& how) {
  auto byte = [&](uint32_t bits) { static_cast<uint8_t*>(y.mutable_data())[i] = uint8_t(bits); };
  switch (y.dtype()) {
    case DType::f8e4m3fn: return byte(encode(kF8E4M3FN, v, how.saturate));
    case DType::f8e4m3fnuz: return byte(encode(kF8E4M3FNUZ, v, how.saturate));
    case DType::f8e5m2: return byte(encode(kF8E5M2, v, how.saturate));
    case DType::f8e5m2fnuz: return byte(encode(kF8E5M2FNUZ, v, how.saturate));
    case DType::f8e8m0: return byte(encode_e8m0(v, how.saturate, how.rounding));
    default: return write_double(y.dtype(), y.mutable_data(), i, v);
  }
}

void copy_element(Tensor& to, int64_t i, const Tensor& from, int64_t j) {
  if (to.dtype() == DType::string) {
    to.as_mutable<std::string>()[size_t(i)] = from.as<std::string>()[size_t(j)];
  } else if (int b = bits(to.dtype()); b < 8) {
    int per = 8 / b;
    auto source = static_cast<const uint8_t*>(from.data());
    auto target = static_cast<uint8_t*>(to.mutable_data());
    unsigned mask = (1u << b) - 1, v = (unsigned(source[j / per]) >> (b * int(j % per))) & mask;
    unsigned shift = unsigned(b * int(i % per));
    target[i / per] = uint8_t((target[i / per] & ~(mask << shift)) | (v << shift));
  } else {
    size_t size = size_t(b) / 8;
    std::memcpy(static_cast<char*>(to.mutable_data()) + size_t(i) * size,
                static_cast<const char*>(from.data()) + size_t(j) * size, size);
  }
}

}  // namespace ai_vmm::ref
