// Sequences and optionals.
#include "ops/all_ops.hpp"
#include "ops/control.hpp"
#include "ops/move.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

Type element_of(const Type& t) { return t.element ? *t.element : Type{}; }

// One element out of a sequence: symbolic sizes differ from element to element, so each gets a new name.
Type some_element(Infer& c, const Type& sequence) {
  Type t = element_of(sequence);
  for (Dim& d : t.dims)
    if (!d.is_constant()) d = c.fresh();
  return t;
}

// Positions may count from the end. `past_end`: how far beyond the last element one may point.
Result<int64_t> position(const Eval& e, size_t k, int64_t size, int64_t past_end) {
  int64_t p = AI_VMM_TAKE(scalar_int(e, e.in(k), "the position"));
  if (p < -size || p >= size + past_end)
    return e.error("position " + std::to_string(p) + " is outside a sequence of length " + std::to_string(size) + ".");
  return p < 0 ? p + size : p;
}

Status set_sequence(Eval& e, Sequence s) {
  e.set(0, Data(std::make_shared<Sequence>(std::move(s))));
  return {};
}
Status need_sequence(const Eval& e) {
  return e.has(0) && e.data(0).is_sequence() ? Status() : e.error("the input is not a sequence.");
}

// ---------------------------------------------------------------- making and changing sequences

Status infer_construct(Infer& c) {
  Type element = c.type(0);
  for (size_t k = 1; k < c.inputs(); ++k) element = join_types(c, element, c.type(k));
  c.set(0, Type::sequence(std::move(element)));
  return {};
}
Status eval_construct(Eval& e) { return set_sequence(e, {e.in_.begin(), e.in_.end()}); }

Status infer_empty(Infer& c) {
  int64_t dtype = c.node.i("dtype", int64_t(DType::f32));
  if (dtype <= 0 || dtype >= kDTypeCount) return c.error("dtype " + std::to_string(dtype) + " is not an element type.");
  c.set(0, Type::sequence(Type::tensor(DType(dtype))));
  return {};
}
Status eval_empty(Eval& e) { return set_sequence(e, {}); }

Status infer_insert(Infer& c) {
  Type element = element_of(c.type(0));
  c.set(0, Type::sequence(element.kind == Type::Kind::unknown ? Type::tensor(c.dtype(1))
                                                              : join_types(c, element, c.type(1))));
  return {};
}
Status eval_insert(Eval& e) {
  AI_VMM_TRY(need_sequence(e));
  Sequence s = e.data(0).sequence();
  int64_t at = int64_t(s.size());
  if (e.has(2)) at = AI_VMM_TAKE(position(e, 2, at, 1));
  s.insert(s.begin() + at, e.data(1));
  return set_sequence(e, std::move(s));
}

Status infer_erase(Infer& c) {
  c.set(0, c.type(0));
  return {};
}
Status eval_erase(Eval& e) {
  AI_VMM_TRY(need_sequence(e));
  Sequence s = e.data(0).sequence();
  int64_t at = int64_t(s.size()) - 1;
  if (e.has(1)) at = AI_VMM_TAKE(position(e, 1, int64_t(s.size()), 0));
  if (at < 0) return e.error("an empty sequence has nothing to erase.");
  s.erase(s.begin() + at);
  return set_sequence(e, std::move(s));
}

// ---------------------------------------------------------------- reading sequences

Status infer_at(Infer& c) {
  c.set(0, some_element(c, c.type(0)));
  return {};
}
Status eval_at(Eval& e) {
  AI_VMM_TRY(need_sequence(e));
  const Sequence& s = e.data(0).sequence();
  int64_t at = AI_VMM_TAKE(position(e, 1, int64_t(s.size()), 0));
  e.set(0, s[size_t(at)]);
  return {};
}

Status infer_length(Infer& c) {
  c.set(0, DType::i64, {});
  return {};
}
Status eval_length(Eval& e) {
  AI_VMM_TRY(need_sequence(e));
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::i64, {}));
  y->as_mutable<int64_t>()[0] = int64_t(e.data(0).sequence().size());
  return {};
}

// ---------------------------------------------------------------- between tensors and sequences

Status infer_split_to_sequence(Infer& c) {
  if (!c.ranked(0)) {
    c.set(0, Type::sequence(Type::tensor(c.dtype(0))));
    return {};
  }
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis", 0), c.rank(0)));
  std::vector<Dim> dims = c.dims(0);
  if (!c.has(1) && c.node.i("keepdims", 1) == 0)
    dims.erase(dims.begin() + axis);
  else if (!c.has(1))
    dims[size_t(axis)] = 1;
  else
    dims[size_t(axis)] = c.fresh();
  c.set(0, Type::sequence(Type::tensor(c.dtype(0), std::move(dims))));
  return {};
}
Status eval_split_to_sequence(Eval& e) {
  const Tensor& x = e.in(0);
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis", 0), x.rank())), size = x.dim(axis);
  std::vector<int64_t> sizes;
  if (e.has(1) && e.in(1).rank() > 0) {
    sizes = ref::ints(e.in(1));
  } else {
    int64_t chunk = 1;
    if (e.has(1)) chunk = AI_VMM_TAKE(scalar_int(e, e.in(1), "the split size"));
    if (chunk < 1) return e.error("the split size " + std::to_string(chunk) + " is not positive.");
    for (int64_t left = size; left > 0; left -= chunk) sizes.push_back(std::min(chunk, left));
  }
  bool drop = !e.has(1) && e.node.i("keepdims", 1) == 0;
  Sequence out;
  Shape strides = ref::strides_of(x.shape());
  int64_t at = 0;
  for (int64_t n : sizes) {
    if (n < 0 || n > size - at)
      return e.error("sizes " + to_string(sizes) + " do not divide a dimension of size " + std::to_string(size) + ".");
    Shape shape = x.shape();
    shape[size_t(axis)] = n;
    Tensor part = AI_VMM_TAKE(Tensor::make(x.dtype(), shape));
    copy_view(part, {0, ref::strides_of(shape)}, x, {at * strides[size_t(axis)], strides}, shape);
    if (drop) {
      shape.erase(shape.begin() + axis);
      part = part.reshaped(shape);
    }
    out.emplace_back(std::move(part));
    at += n;
  }
  if (at != size) return e.error("sizes " + to_string(sizes) + " do not add up to " + std::to_string(size) + ".");
  return set_sequence(e, std::move(out));
}

Status infer_concat_from_sequence(Infer& c) {
  Type t = some_element(c, c.type(0));
  if (!t.ranked) {
    c.set_unranked(0, t.dtype);
    return {};
  }
  bool stack = c.node.i("new_axis", 0) != 0;
  int64_t axis = AI_VMM_TAKE(c.axis(c.node.i("axis"), t.rank() + stack));
  if (stack)
    t.dims.insert(t.dims.begin() + axis, c.fresh());
  else
    t.dims[size_t(axis)] = c.fresh();
  c.set(0, std::move(t));
  return {};
}
Status eval_concat_from_sequence(Eval& e) {
  AI_VMM_TRY(need_sequence(e));
  const Sequence& s = e.data(0).sequence();
  if (s.empty()) return e.error("an empty sequence cannot be joined.");
  for (const Data& d : s)
    if (!d.is_tensor()) return e.error("an element of the sequence is not a tensor.");
  const Tensor& first = s[0].tensor();
  bool stack = e.node.i("new_axis", 0) != 0;
  int64_t axis = AI_VMM_TAKE(e.axis(e.node.i("axis"), first.rank() + stack));
  auto shape_of = [&](const Tensor& t) {
    Shape shape = t.shape();
    if (stack) shape.insert(shape.begin() + std::min<int64_t>(axis, t.rank()), 1);
    return shape;
  };
  Shape shape = shape_of(first);
  shape[size_t(axis)] = 0;
  for (const Data& d : s) {
    Shape one = shape_of(d.tensor());
    bool fits = one.size() == shape.size() && d.tensor().dtype() == first.dtype();
    for (size_t i = 0; fits && i < one.size(); ++i) fits = int64_t(i) == axis || one[i] == shape[i];
    if (!fits)
      return e.error("elements of shapes " + to_string(first.shape()) + " and " + to_string(d.tensor().shape()) +
                     " do not join.");
    shape[size_t(axis)] += one[size_t(axis)];
  }
  Tensor* y = AI_VMM_TAKE(e.make(0, first.dtype(), shape));
  Shape strides = ref::strides_of(shape);
  int64_t at = 0;
  for (const Data& d : s) {
    Shape one = shape_of(d.tensor());
    copy_view(*y, {at * strides[size_t(axis)], strides}, d.tensor(), {0, ref::strides_of(one)}, one);
    at += one[size_t(axis)];
  }
  return {};
}

// ---------------------------------------------------------------- optionals

Status infer_optional(Infer& c) {
  const AttrValue* type = c.node.find("type");
  c.set(0, Type::optional(c.has(0) ? c.type(0) : type ? std::get<Type>(*type) : Type{}));
  return {};
}
Status eval_optional(Eval& e) {
  e.set(0, e.has(0) ? e.data(0) : Data());
  return {};
}

Status infer_get(Infer& c) {
  c.set(0, c.type(0).kind == Type::Kind::optional ? element_of(c.type(0)) : c.type(0));
  return {};
}
Status eval_get(Eval& e) {
  if (!e.has(0)) return e.error("the optional is empty.");
  e.set(0, e.data(0));
  return {};
}

Status infer_has(Infer& c) {
  c.set(0, DType::boolean, {});
  return {};
}
Status eval_has(Eval& e) {
  Tensor* y = AI_VMM_TAKE(e.make(0, DType::boolean, {}));
  *static_cast<uint8_t*>(y->mutable_data()) = e.has(0);
  return {};
}

const OpDef kOps[] = {
    {"SequenceConstruct", "", 11, "inputs:T* -> output_sequence:S | T: tensor, S: seq", "",
     "A sequence of the given tensors.", kHostOnly, infer_construct, nullptr, eval_construct},
    {"SequenceEmpty", "", 11, "-> output:S | S: seq", "dtype:int",
     "A sequence without elements, of tensors of the element type dtype (float32 when absent).", kHostOnly, infer_empty,
     nullptr, eval_empty},
    {"SequenceInsert", "", 11,
     "input_sequence:S, tensor:T, position:I? -> output_sequence:S | T: tensor, S: seq, I: i32 i64", "",
     "The sequence with a tensor inserted before a position (at the end when absent); negative positions count from "
     "the end.",
     kHostOnly, infer_insert, nullptr, eval_insert},
    {"SequenceErase", "", 11, "input_sequence:S, position:I? -> output_sequence:S | S: seq, I: i32 i64", "",
     "The sequence without the element at a position (the last when absent).", kHostOnly, infer_erase, nullptr,
     eval_erase},
    {"SequenceAt", "", 11, "input_sequence:S, position:I -> tensor:T | S: seq, T: tensor, I: i32 i64", "",
     "The element at a position; negative ones count from the end.", kHostOnly, infer_at, nullptr, eval_at},
    {"SequenceLength", "", 11, "input_sequence:S -> length:i64 | S: seq", "", "The number of elements, as a scalar.",
     kHostOnly, infer_length, nullptr, eval_length},
    {"SplitToSequence", "", 24, "input:T, split:I? -> output_sequence:S | T: tensor, I: i32 i64, S: seq",
     "axis:int=0, keepdims:int=1",
     "Cuts a tensor along one axis into a sequence: parts of one size (a scalar; the last may be smaller), of the "
     "listed sizes, or of size 1, whose axis keepdims=0 drops.",
     kHostOnly, infer_split_to_sequence, nullptr, eval_split_to_sequence},
    {"ConcatFromSequence", "", 11, "input_sequence:S -> concat_result:T | S: seq, T: tensor",
     "axis:int!, new_axis:int=0", "Joins the elements of a sequence along an axis, or stacks them along a new one.",
     kHostOnly, infer_concat_from_sequence, nullptr, eval_concat_from_sequence},
    {"Optional", "", 28, "input:V? -> output:O | V: any, O: optional", "type:type",
     "An optional that holds the input, or an empty one of the given type.", kHostOnly, infer_optional, nullptr,
     eval_optional},
    {"OptionalGetElement", "", 28, "input:O -> output:V | O: any, V: any", "",
     "What the optional holds; an empty one is an error. A plain value is itself.", kHostOnly, infer_get, nullptr,
     eval_get},
    {"OptionalHasElement", "", 28, "input:O? -> output:bool | O: any", "",
     "Whether there is a value: true for a full optional and for a plain value.", kHostOnly, infer_has, nullptr,
     eval_has},
};

}  // namespace

std::span<const OpDef> sequence_ops() { return kOps; }

}  // namespace ai_vmm
