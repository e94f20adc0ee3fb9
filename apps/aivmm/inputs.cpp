#include "inputs.hpp"

#include <algorithm>
#include <charconv>

#include "base/npy.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "import/onnx.hpp"
#include "ops/op.hpp"

namespace ai_vmm::cli {

namespace {
Status wrong(const std::string& what) { return Status(Code::invalid_argument, what); }

std::vector<std::string> names(const std::vector<Port>& ports) {
  std::vector<std::string> all;
  for (const Port& p : ports) all.push_back(p.name);
  return all;
}

Result<const Port*> find(const std::vector<Port>& ports, const std::string& name) {
  for (const Port& p : ports)
    if (p.name == name) return &p;
  return wrong("The model has no input \"" + name + "\"; its inputs are " + join(names(ports), ", ") + ".");
}

// The shape, if it does not fit what the model says of the input.
Status check_shape(const Port& port, const Shape& shape) {
  if (!port.is_tensor || (port.dims.size() == 1 && port.dims[0] == "...")) return {};
  bool fits = shape.size() == port.shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = port.shape[i] < 0 || port.shape[i] == shape[i];
  if (fits) return {};
  return wrong("Input \"" + port.name + "\" is " + port.type + " in the model, but the shape given is " +
               to_string(shape) + ".");
}

// The type that a Port's text states: "seq(f32[...])", "optional(…)"; element types only.
Type parse_type(std::string_view text) {
  auto inside = [&](size_t skip) { return parse_type(text.substr(skip, text.size() - skip - 1)); };
  if (text.starts_with("seq(")) return Type::sequence(inside(4));
  if (text.starts_with("optional(")) return Type::optional(inside(9));
  return Type::tensor(dtype_from_name(text.substr(0, text.find('['))).value_or(DType::undefined));
}

// Little-endian bytes without a header: the shape is --shape, or the model's with at most one size taken from the
// length.
Result<Tensor> parse_raw(const Port& port, const std::optional<Shape>& asked, std::string bytes) {
  if (bits(port.dtype) == 0)
    return wrong("Raw bytes cannot fill input \"" + port.name + "\" of type " + port.type + ".");
  Shape shape = asked.value_or(port.shape);
  auto elements = static_cast<int64_t>(bytes.size()) * 8 / bits(port.dtype);
  auto free_side = std::find(shape.begin(), shape.end(), -1);
  if (free_side != shape.end()) {
    *free_side = 1;
    auto rest = element_count(shape);
    if (rest && *rest > 0 && elements % *rest == 0) *free_side = elements / *rest;
  }
  auto count = element_count(shape);
  if (!count || bytes_for(port.dtype, *count) != static_cast<int64_t>(bytes.size()))
    return wrong("The raw file for input \"" + port.name + "\" has " + std::to_string(bytes.size()) +
                 " bytes, which is not " + port.type + "; give its sizes with --shape " + port.name + "=….");
  Tensor t = AI_VMM_TAKE(Tensor::make(port.dtype, shape));
  if (!bytes.empty()) std::memcpy(t.mutable_data(), bytes.data(), bytes.size());
  return t;
}

Status add(Feed& feed, const Port& port, Data data, const std::string& said) {
  if (data.is_tensor()) {
    if (!port.is_tensor) {
      if (!port.type.starts_with("optional("))
        return wrong("Input \"" + port.name + "\" is " + port.type + ", not a tensor; give it as a .pb file.");
    } else {
      auto fitted = fit_dtype(data.tensor(), port.dtype);
      if (!fitted.ok())
        return std::move(fitted).status().during("reading input \"" + port.name + "\" (" + port.type +
                                                 " in the model) from " + said);
      data = *std::move(fitted);
      AI_VMM_TRY(check_shape(port, data.tensor().shape()));
    }
  }
  if (!feed.inputs.emplace(port.name, std::move(data)).second)
    return wrong("Input \"" + port.name + "\" is given twice.");
  feed.said[port.name] = said;
  return {};
}

Result<Data> load(const Port& port, const std::string& path, const std::optional<Shape>& asked, const Preprocess& how,
                  std::string& said) {
  auto ends = [&](std::string_view ending) { return path.size() > ending.size() && path.ends_with(ending); };
  if (ends(".npy")) return Data(AI_VMM_TAKE(read_npy(path)));
  if (ends(".npz")) {
    NamedTensors arrays = AI_VMM_TAKE(read_npz(path));
    for (auto& [key, tensor] : arrays)
      if (key == port.name || arrays.size() == 1) return Data(std::move(tensor));
    return wrong("The file \"" + path + "\" has no array \"" + port.name + "\".");
  }
  if (ends(".png") || ends(".jpg") || ends(".jpeg")) {
    Image image = AI_VMM_TAKE(read_image(path));
    std::string done;
    auto t = to_tensor(image, how, port.dtype, asked ? std::vector<int64_t>(*asked) : port.shape, done);
    if (!t.ok()) return std::move(t).status().during("reading input \"" + port.name + "\" from " + path);
    said += ", " + done;
    return Data(*std::move(t));
  }
  std::string bytes = AI_VMM_TAKE(read_file(path));
  if (!ends(".pb")) return Data(AI_VMM_TAKE(parse_raw(port, asked, std::move(bytes))));
  auto data = read_onnx_data(std::as_bytes(std::span(bytes)), parse_type(port.type));
  if (!data.ok()) return std::move(data).status().during("reading " + path);
  return *std::move(data);
}

// Floats N(0,1), integers 0 or 1, booleans true, strings "a".
Result<Tensor> random_tensor(DType dtype, const Shape& shape, Random& random) {
  Tensor t = AI_VMM_TAKE(Tensor::make(dtype, shape));
  if (dtype == DType::string) {
    for (std::string& s : t.as_mutable<std::string>()) s = "a";
    return t;
  }
  if (is_complex(dtype)) {
    DType part = dtype == DType::c64 ? DType::f32 : DType::f64;
    for (int64_t i = 0; i < 2 * t.count(); ++i) write_double(part, t.mutable_data(), i, random.normal());
    return t;
  }
  for (int64_t i = 0; i < t.count(); ++i)
    if (dtype == DType::boolean)
      write_int64(dtype, t.mutable_data(), i, 1);
    else if (is_float(dtype))
      write_double(dtype, t.mutable_data(), i, random.normal());
    else
      write_int64(dtype, t.mutable_data(), i, static_cast<int64_t>(random.next() >> 63));
  return t;
}
}  // namespace

Result<std::map<std::string, Shape>> parse_shapes(const Arguments& arguments) {
  std::map<std::string, Shape> shapes;
  for (const std::string& word : arguments.all("--shape")) {
    size_t equals = word.rfind('=');
    auto bad = [&] {
      return wrong("--shape is \"" + word + "\", but must be of the form NAME=1x3x224x224 (NAME= for a scalar).");
    };
    if (equals == word.npos || equals == 0) return bad();
    Shape shape;
    std::string_view sizes = std::string_view(word).substr(equals + 1);
    if (!sizes.empty())
      for (std::string_view part : split(sizes, 'x')) {
        int64_t n = 0;
        auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), n);
        if (error != std::errc() || end != part.data() + part.size() || n < 0) return bad();
        shape.push_back(n);
      }
    if (!element_count(shape)) return wrong("--shape " + word + " has more elements than any memory.");
    if (!shapes.emplace(word.substr(0, equals), shape).second)
      return wrong("--shape gives \"" + word.substr(0, equals) + "\" twice.");
  }
  return shapes;
}

Result<Feed> make_feed(const std::vector<Port>& ports, const Arguments& arguments) {
  Feed feed;
  auto shapes = AI_VMM_TAKE(parse_shapes(arguments));
  Preprocess how = AI_VMM_TAKE(preprocess_options(arguments));
  for (const auto& [name, shape] : shapes) {
    const Port* port = AI_VMM_TAKE(find(ports, name));
    AI_VMM_TRY(check_shape(*port, shape));
  }
  for (const std::string& word : arguments.all("--input")) {
    // A name may hold '=' only if it is a model's; the longest one that fits wins.
    size_t equals = word.npos;
    for (size_t at = word.find('='); at != word.npos; at = word.find('=', at + 1)) {
      auto all = names(ports);
      if (equals == word.npos || std::find(all.begin(), all.end(), word.substr(0, at)) != all.end()) equals = at;
    }
    if (equals == word.npos) {
      if (!word.ends_with(".npz"))
        return wrong("--input \"" + word + "\" names no input: write NAME=" + word + ", where NAME is one of " +
                     join(names(ports), ", ") + ".");
      NamedTensors arrays = AI_VMM_TAKE(read_npz(word));
      for (auto& [key, tensor] : arrays) {
        const Port* port = AI_VMM_TAKE(find(ports, key));
        AI_VMM_TRY(add(feed, *port, Data(std::move(tensor)), word));
      }
      continue;
    }
    const Port* port = AI_VMM_TAKE(find(ports, word.substr(0, equals)));
    std::string path = word.substr(equals + 1), said = path;
    auto asked = shapes.find(port->name);
    Data data =
        AI_VMM_TAKE(load(*port, path, asked == shapes.end() ? std::nullopt : std::optional(asked->second), how, said));
    AI_VMM_TRY(add(feed, *port, std::move(data), said));
  }

  std::vector<const Port*> missing;
  for (const Port& p : ports)
    if (!feed.inputs.count(p.name) && !p.optional) missing.push_back(&p);
  if (missing.empty()) return feed;
  if (!arguments.has("--random")) {
    std::string list;
    for (const Port* p : missing) list += (list.empty() ? "" : ", ") + p->name + " " + p->type;
    return wrong("Missing inputs: " + list + ". Give each with --input NAME=FILE, or pass --random SEED.");
  }

  int64_t seed = AI_VMM_TAKE(arguments.integer("--random", 0, 0, INT64_MAX));
  Random random;
  random.state ^= static_cast<uint64_t>(seed) * 0xbf58476d1ce4e5b9ull;
  // Sizes that the given inputs and shapes settle hold for all inputs.
  std::map<std::string, int64_t> sizes;
  auto learn = [&](const Port& p, const Shape& shape) {
    for (size_t i = 0; i < std::min(shape.size(), p.dims.size()); ++i)
      if (i < p.shape.size() && p.shape[i] < 0) sizes.emplace(p.dims[i], shape[i]);
  };
  for (const Port& p : ports) {
    auto given = feed.inputs.find(p.name);
    if (given != feed.inputs.end() && given->second.is_tensor())
      learn(p, given->second.tensor().shape());
    else if (auto asked = shapes.find(p.name); asked != shapes.end())
      learn(p, asked->second);
  }
  for (const Port* p : missing) {
    if (!p->is_tensor || p->dtype == DType::undefined)
      return wrong("Input \"" + p->name + "\" is " + p->type +
                   ", for which nothing is drawn at random; give it as a .pb file.");
    auto asked = shapes.find(p->name);
    if (asked == shapes.end() && p->shape.empty() && p->type.find("...") != std::string::npos)
      return wrong("The model does not say how many dimensions input \"" + p->name + "\" has; give --shape " + p->name +
                   "=….");
    Shape shape = asked != shapes.end() ? asked->second : p->shape;
    std::string free;
    for (size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] >= 0) continue;
      auto known = sizes.find(p->dims[i]);
      shape[i] = known == sizes.end() ? 1 : known->second;
      if (known == sizes.end()) free += (free.empty() ? "" : ", ") + p->dims[i] + " = 1";
    }
    if (!free.empty())
      feed.notes.push_back("Input \"" + p->name + "\" " + p->type + ": not given, so " + free + "; see --shape.");
    Tensor t = AI_VMM_TAKE(random_tensor(p->dtype, shape, random));
    AI_VMM_TRY(add(feed, *p, Data(std::move(t)), "random, seed " + std::to_string(seed)));
  }
  return feed;
}

}  // namespace ai_vmm::cli
