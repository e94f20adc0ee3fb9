// Every step between versions of ai.onnx and ai.onnx.ml that changes what a node means or how it says it. A version
// that only admits more element types, or rewords the specification, has no row. Nor has ConvTranspose with an output
// shape: its versions below 11 put the odd pixel of padding on the other side by the letter, and no runtime ever did.
#include "import/convert_rules.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>

namespace ai_vmm {

namespace {

Status take_away(Rewrite& r, std::initializer_list<const char*> attributes) {
  for (const char* a : attributes) r.node.remove(a);
  return {};
}

// ---------------------------------------------------------------- broadcasting before version 7

// Input `k` gets trailing dimensions of size 1, so that its first dimension stands at `axis` of input 0 under NumPy's
// rule.
Status align(Rewrite& r, size_t k, int64_t axis) {
  AI_VMM_TRY(r.require_inputs(k + 1));
  ValueId a = r.input(0), b = r.input(k);
  int64_t rank_a = r.type(a).rank(), rank_b = r.type(b).rank();
  if (rank_b == 0) return {};
  if (rank_a >= 0 && rank_b >= 0) {
    int64_t trailing = rank_a - (axis < 0 ? axis + rank_a : axis) - rank_b;
    if (trailing <= 0) return {};
    std::vector<int64_t> axes;
    for (int64_t i = 0; i < trailing; ++i) axes.push_back(rank_b + i);
    r.set_input(k, r.emit("Unsqueeze", {b, r.constant(axes)}));
    return {};
  }
  auto rank = [&](ValueId v) { return r.emit("Shape", {r.emit("Shape", {v})}); };
  ValueId shape_b = r.emit("Shape", {b});
  ValueId end = axis < 0 ? r.constant(std::vector<int64_t>{-axis})
                         : r.emit("Sub", {rank(a), r.constant(std::vector<int64_t>{axis})});
  ValueId trailing = r.emit("Sub", {end, r.emit("Shape", {shape_b})});
  ValueId ones = r.emit("ConstantOfShape", {r.emit("Max", {trailing, r.constant(std::vector<int64_t>{0})})},
                        {{"value", Tensor::vector<int64_t>({1})}});
  ValueId shape = r.emit("Concat", {shape_b, ones}, {{"axis", int64_t{0}}});
  r.set_input(k, r.emit("Reshape", {b, shape}, {{"allowzero", int64_t{1}}}));
  return {};
}

Status limited_broadcast_7(Rewrite& r) {
  auto broadcast = AI_VMM_TAKE(r.i("broadcast", 0));
  bool placed = r.node.has("axis");
  auto axis = AI_VMM_TAKE(r.i("axis", 0));
  AI_VMM_TRY(take_away(r, {"broadcast", "axis"}));
  return broadcast && placed ? align(r, 1, axis) : Status();
}

// One slope, or one a channel.
Status prelu_7(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(2));
  auto shape = r.type(r.input(1)).shape();
  return shape && element_count(*shape) == 1 ? Status() : align(r, 1, 1);
}

// ---------------------------------------------------------------- attributes that became inputs

Status reshape_5(Rewrite& r) { return r.ints_to_input("shape", 1); }
Status axes_to_input(Rewrite& r) {
  // An empty list means "all", as no list does.
  if (AI_VMM_TAKE(r.ints("axes")).empty()) return take_away(r, {"axes"});
  return r.ints_to_input("axes", 1);
}
Status unsqueeze_13(Rewrite& r) { return r.ints_to_input("axes", 1); }

Status slice_10(Rewrite& r) {
  AI_VMM_TRY(r.ints_to_input("starts", 1));
  AI_VMM_TRY(r.ints_to_input("ends", 2));
  return r.ints_to_input("axes", 3);
}

Status topk_10(Rewrite& r) {
  if (!r.node.has("k")) return r.error(Code::invalid_argument, "attribute \"k\" is missing.");
  auto k = AI_VMM_TAKE(r.i("k", 0));
  r.node.remove("k");
  r.set_input(1, r.constant(std::vector<int64_t>{k}));
  return {};
}

Status clip_11(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  size_t k = 1;
  for (const char* bound : {"min", "max"}) {
    if (r.node.has(bound)) {
      auto value = AI_VMM_TAKE(r.f(bound, 0));
      r.node.remove(bound);
      r.set_input(k, r.scalar_like(value, r.input(0)));
    }
    ++k;
  }
  return {};
}

Status pad_2(Rewrite& r) {
  if (!r.node.has("paddings")) return {};
  auto pads = AI_VMM_TAKE(r.ints("paddings"));
  r.node.remove("paddings");
  r.node.set("pads", std::move(pads));
  return {};
}
Status pad_11(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  AI_VMM_TRY(r.ints_to_input("pads", 1));
  auto value = AI_VMM_TAKE(r.f("value", 0));
  r.node.remove("value");
  if (value != 0) r.set_input(2, r.scalar_like(value, r.input(0)));
  return {};
}

// The first version took the sizes from an input, of the element type of the data.
Status split_2(Rewrite& r) {
  if (r.node.has_input(1)) r.set_input(1, r.emit("Cast", {r.input(1)}, {{"to", int64_t(DType::i64)}}));
  return {};
}
Status split_13(Rewrite& r) { return r.ints_to_input("split", 1); }
Status split_18(Rewrite& r) {
  if (!r.node.has_input(1)) r.node.set("num_outputs", static_cast<int64_t>(r.node.outputs.size()));
  return {};
}

// Input 1 was the number of copies and input 2 the one axis to repeat, both scalars of the element type of the data.
Status tile_6(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(3));
  auto as_index = [&](ValueId v) {
    return r.emit("Reshape", {r.emit("Cast", {v}, {{"to", int64_t(DType::i64)}}), r.constant(std::vector<int64_t>{1})});
  };
  ValueId copies = as_index(r.input(1)), axis = as_index(r.input(2));
  ValueId rank = r.emit("Shape", {r.emit("Shape", {r.input(0)})});
  ValueId ones = r.emit("ConstantOfShape", {rank}, {{"value", Tensor::vector<int64_t>({1})}});
  r.become("Tile", {r.input(0), r.emit("ScatterElements", {ones, axis, copies})});
  return {};
}

// The default axis moved from 1 to -2 when it became an input.
Status dft_20(Rewrite& r) {
  auto axis = AI_VMM_TAKE(r.i("axis", 1));
  r.node.remove("axis");
  r.set_input(2, r.constant(Tensor::scalar<int64_t>(axis)));
  return {};
}

// ---------------------------------------------------------------- attributes that changed

Status cast_6(Rewrite& r) {
  auto to = AI_VMM_TAKE(r.s("to", ""));
  std::string lower = to;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  auto dtype = dtype_from_name(lower);
  if (!dtype) return r.error(Code::invalid_argument, "there is no element type \"" + to + "\".");
  r.node.set("to", static_cast<int64_t>(*dtype));
  return {};
}

Status concat_4(Rewrite& r) {
  if (!r.node.has("axis")) r.node.set("axis", int64_t{1});
  return {};
}

Status pool_norm_2(Rewrite& r) {
  if (!r.node.has("p")) return {};
  auto p = AI_VMM_TAKE(r.f("p", 2));
  if (p != std::floor(p) || !(p >= 1 && p <= 1e6f))
    return r.error(Code::unimplemented,
                   "the norm's exponent " + std::to_string(p) + " is not a whole number from 1 up.");
  r.node.set("p", static_cast<int64_t>(p));
  return {};
}

Status gru_3(Rewrite& r) {
  if (AI_VMM_TAKE(r.s("direction", "forward")) == "foward")
    r.node.set("direction", std::string("forward"));  // the specification's own slip
  return {};
}
// The first constants had four decimals.
Status selu_6(Rewrite& r) {
  r.node.set("alpha", AI_VMM_TAKE(r.f("alpha", 1.6732f)));
  r.node.set("gamma", AI_VMM_TAKE(r.f("gamma", 1.0507f)));
  return {};
}
Status recurrent_7(Rewrite& r) { return take_away(r, {"output_sequence"}); }
Status gemm_7(Rewrite& r) { return take_away(r, {"broadcast"}); }

Status roi_align_16(Rewrite& r) {
  r.node.set("coordinate_transformation_mode", std::string("output_half_pixel"));
  return {};
}

Status grid_sample_20(Rewrite& r) {
  auto mode = AI_VMM_TAKE(r.s("mode", "bilinear"));
  r.node.set("mode", std::string(mode == "bilinear" ? "linear" : mode == "bicubic" ? "cubic" : mode));
  return {};
}

Status scatter_11(Rewrite& r) {
  r.node.op = "ScatterElements";
  return {};
}

// ---------------------------------------------------------------- operators whose meaning changed

// Before version 13 the input was seen as a matrix, split before `axis`, and normalised along its rows.
Status softmax_13(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  auto axis = AI_VMM_TAKE(r.i("axis", 1));
  ValueId x = r.input(0);
  int64_t rank = r.type(x).rank();
  r.node.set("axis", int64_t{-1});
  if (axis == -1 || (rank >= 0 && axis == rank - 1)) return {};
  if (!r.node.has_output(0)) return {};
  r.set_input(0, r.emit("Flatten", {x}, {{"axis", axis}}));
  r.finish(0, "Reshape", {kAbsent, r.emit("Shape", {x})}, {{"allowzero", int64_t{1}}});
  return {};
}

Status dropout_7(Rewrite& r) { return take_away(r, {"is_test"}); }
// The mask had the element type of the data.
Status dropout_10(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  if (r.node.has_output(1) && r.used(1)) r.finish(1, "CastLike", {kAbsent, r.input(0)});
  return {};
}
// Without its training input, Dropout passes its data on, whatever the ratio.
Status dropout_12(Rewrite& r) { return take_away(r, {"ratio"}); }

Status batch_norm_7(Rewrite& r) {
  if (AI_VMM_TAKE(r.i("is_test", 0))) r.drop_outputs_from(1);
  return take_away(r, {"is_test"});
}
// spatial = 0: statistics for each element of a sample instead of for each channel.
Status batch_norm_9(Rewrite& r) {
  auto spatial = AI_VMM_TAKE(r.i("spatial", 1));
  r.node.remove("spatial");
  if (spatial) return {};
  AI_VMM_TRY(r.require_inputs(5));
  for (size_t k = 1; k < r.node.outputs.size(); ++k)
    if (r.used(k))
      return r.error(Code::unimplemented,
                     "training with spatial = 0 is not implemented; export the model for inference.");
  r.drop_outputs_from(1);
  ValueId x = r.input(0);
  ValueId epsilon = r.scalar_like(AI_VMM_TAKE(r.f("epsilon", 1e-5f)), x);
  ValueId deviation = r.emit("Sqrt", {r.emit("Add", {r.input(4), epsilon})});
  ValueId normal = r.emit("Div", {r.emit("Sub", {x, r.input(3)}), deviation});
  r.become("Add", {r.emit("Mul", {normal, r.input(1)}), r.input(2)});
  return {};
}
// Training used to be told by the outputs. Exporters list outputs that nobody reads; those do not count.
Status batch_norm_14(Rewrite& r) {
  for (size_t k : {3, 4})
    if (r.used(k))
      return r.error(Code::unimplemented,
                     "its output " + std::to_string(k) +
                         ", kept for a backward pass, is not implemented; export the model for inference.");
  bool training = r.used(1) || r.used(2);
  if (training) r.node.set("training_mode", int64_t{1});
  r.drop_outputs_from(training ? 3 : 1);
  return {};
}

// scale and bias were for each group; now they are for each channel.
Status group_norm_21(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(3));
  auto groups = AI_VMM_TAKE(r.i("num_groups", 1));
  if (groups <= 0) return r.error(Code::invalid_argument, "num_groups is " + std::to_string(groups) + ".");
  ValueId channels = r.emit("Shape", {r.input(0)}, {{"start", int64_t{1}}, {"end", int64_t{2}}});
  ValueId each = r.emit("Div", {channels, r.constant(std::vector<int64_t>{groups})});
  ValueId shape = r.emit("Concat", {r.constant(std::vector<int64_t>{groups}), each}, {{"axis", int64_t{0}}});
  for (size_t k : {1, 2}) {
    ValueId column = r.emit("Reshape", {r.input(k), r.constant({-1, 1})});
    r.set_input(k, r.emit("Reshape", {r.emit("Expand", {column, shape}), r.constant(std::vector<int64_t>{-1})}));
  }
  return {};
}

// ---------------------------------------------------------------- Upsample and Resize

Status upsample_7(Rewrite& r) {
  auto height = AI_VMM_TAKE(r.f("height_scale", 1));
  auto width = AI_VMM_TAKE(r.f("width_scale", 1));
  AI_VMM_TRY(take_away(r, {"height_scale", "width_scale"}));
  if (AI_VMM_TAKE(r.s("mode", "nearest")) == "bilinear") r.node.set("mode", std::string("linear"));
  r.node.set("scales", std::vector<float>{1, 1, height, width});
  return {};
}
Status upsample_9(Rewrite& r) {
  auto scales = AI_VMM_TAKE(r.floats("scales"));
  r.node.remove("scales");
  r.set_input(1, r.constant(Tensor::vector(scales)));
  return {};
}
Status upsample_10(Rewrite& r) {
  r.node.op = "Resize";
  return {};
}

// Version 10 had one way to map coordinates, and "nearest" rounded away from what was left out: down where an axis
// grows, up where it shrinks.
Status resize_11(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(2));
  ValueId x = r.input(0), scales = r.input(1);
  r.node.inputs = {x, kAbsent, scales};
  r.node.set("coordinate_transformation_mode", std::string("asymmetric"));
  auto mode = AI_VMM_TAKE(r.s("mode", "nearest"));
  if (mode == "bilinear") r.node.set("mode", std::string("linear"));
  if (mode != "nearest") return {};
  const Tensor* known = r.constant(scales);
  bool grows = true, shrinks = true;  // "may", where the scales are not known
  if (known && known->dtype() == DType::f32) {
    auto values = known->as<float>();
    grows = std::any_of(values.begin(), values.end(), [](float v) { return v > 1; });
    shrinks = std::any_of(values.begin(), values.end(), [](float v) { return v < 1; });
  }
  if (!shrinks) {
    r.node.set("nearest_mode", std::string("floor"));
    return {};
  }
  r.node.set("nearest_mode", std::string("ceil"));
  if (!grows) return {};
  ValueId one = r.constant(Tensor::scalar<float>(1));
  ValueId up = r.emit("Max", {scales, one}), down = r.emit("Min", {scales, one});
  ValueId grown = r.emit("Resize", {x, kAbsent, up},
                         {{"mode", mode},
                          {"coordinate_transformation_mode", std::string("asymmetric")},
                          {"nearest_mode", std::string("floor")}});
  r.node.inputs = {grown, kAbsent, down};
  return {};
}

// "tf_half_pixel_for_nn" went away: floor((x + 0.5) / scale) is half_pixel's (x + 0.5) / scale - 0.5 rounded half up.
Status resize_13(Rewrite& r) {
  if (AI_VMM_TAKE(r.s("coordinate_transformation_mode", "half_pixel")) != "tf_half_pixel_for_nn") return {};
  auto mode = AI_VMM_TAKE(r.s("mode", "nearest"));
  auto nearest_mode = AI_VMM_TAKE(r.s("nearest_mode", "round_prefer_floor"));
  if (mode != "nearest" || nearest_mode != "floor")
    return r.error(Code::unimplemented, "coordinate_transformation_mode \"tf_half_pixel_for_nn\" with mode \"" + mode +
                                            "\" and nearest_mode \"" + nearest_mode +
                                            "\" is not implemented; only nearest with floor is.");
  r.node.set("coordinate_transformation_mode", std::string("half_pixel"));
  r.node.set("nearest_mode", std::string("round_prefer_ceil"));
  return {};
}

// An empty tensor for an input that is not given.
Status resize_any(Rewrite& r) {
  for (size_t k = 1; k < r.node.inputs.size(); ++k)
    if (const Tensor* t = r.constant(r.input(k)); t && t->count() == 0) r.node.inputs[k] = kAbsent;
  return {};
}

// ---------------------------------------------------------------- Scan with a batch

// Version 8 scanned each sample of a batch (axis 0) along axis 1. That is a Scan over the batch around a Scan over the
// sequence: the outer one hands each sample's initial states and sequences to the inner one. With sequence_lens it
// hands over the sample's length too: the sequences are cut to it, and what was made of them is padded to the full
// length.
Status scan_9(Rewrite& r) {
  auto sequences = AI_VMM_TAKE(r.i("num_scan_inputs", 0));
  auto directions = AI_VMM_TAKE(r.ints("directions"));
  if (r.node.bodies.size() != 1 || r.node.inputs.empty() || sequences < 1 ||
      sequences > int64_t(r.node.inputs.size()) - 1)
    return r.error(Code::invalid_argument, "needs a body and as many inputs as num_scan_inputs says.");
  Body& body = r.node.bodies[0];
  auto sample = std::make_shared<Graph>();
  sample->name = body.graph->name + "/sample";
  Node inner;
  inner.op = "Scan";
  inner.name = r.node.name;
  for (size_t k = 1; k < r.node.inputs.size(); ++k)
    inner.inputs.push_back(sample->add_value("in_" + std::to_string(k)));
  sample->inputs = inner.inputs;
  for (size_t k = 0; k < body.graph->outputs.size(); ++k)
    inner.outputs.push_back(sample->add_value("out_" + std::to_string(k)));
  sample->outputs = inner.outputs;
  std::vector<Node> padding;
  if (r.node.has_input(0)) {
    const size_t states = inner.inputs.size() - size_t(sequences);
    auto vector = [&](std::vector<int64_t> v) { return sample->add_constant("constant", Tensor::vector<int64_t>(v)); };
    auto emit = [&](std::string_view op, std::vector<ValueId> inputs) -> ValueId {
      ValueId y = sample->add_value("length");
      sample->add_node(op, std::move(inputs), {y});
      return y;
    };
    ValueId given = sample->add_value("sequence_len");
    sample->inputs.insert(sample->inputs.begin(), given);
    ValueId all = emit("Shape", {inner.inputs[states]});
    all = emit("Slice", {all, vector({0}), vector({1})});
    ValueId length = emit("Reshape", {given, vector({1})}), rest = emit("Sub", {all, length});
    ValueId lengths = sample->add_value("lengths"), pads = sample->add_value("pads");
    sample->add_node("Concat", {length, rest}, {lengths}).set("axis", int64_t{0});
    sample->add_node("Concat", {vector({0}), rest}, {pads}).set("axis", int64_t{0});
    for (size_t k = states; k < inner.inputs.size(); ++k) {  // Split refuses a length that is negative or too large
      ValueId head = sample->add_value("head"), tail = sample->add_value("tail");
      sample->add_node("Split", {inner.inputs[k], lengths}, {head, tail}).set("axis", int64_t{0});
      inner.inputs[k] = head;
    }
    for (size_t k = states; k < inner.outputs.size(); ++k) {
      ValueId made = sample->add_value("made");
      Node pad;
      pad.op = "Pad";
      pad.inputs = {made, pads, kAbsent, vector({0})};
      pad.outputs = {std::exchange(inner.outputs[k], made)};
      padding.push_back(std::move(pad));
    }
  }
  for (ValueId v : body.captures) {
    const Value& outer = r.graph.value(v);
    ValueId capture = sample->add_value(outer.name, outer.type);
    sample->value(capture).constant = outer.constant;
    sample->captures.push_back(capture);
  }
  inner.set("num_scan_inputs", sequences);
  if (!directions.empty()) inner.set("scan_input_directions", directions);
  inner.bodies.push_back({"body", body.graph, sample->captures});
  sample->nodes.push_back(std::move(inner));
  for (Node& pad : padding) sample->nodes.push_back(std::move(pad));
  body.graph = std::move(sample);
  if (!r.node.has_input(0)) r.node.inputs.erase(r.node.inputs.begin());
  r.node.attributes = {{"num_scan_inputs", static_cast<int64_t>(r.node.inputs.size())}};
  return {};
}

// ---------------------------------------------------------------- experimental operators of the first exporters

Status affine(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  ValueId x = r.input(0);
  ValueId alpha = r.scalar_like(AI_VMM_TAKE(r.f("alpha", 1)), x), beta = r.scalar_like(AI_VMM_TAKE(r.f("beta", 0)), x);
  r.become("Add", {r.emit("Mul", {x, alpha}), beta});
  return {};
}
Status scaled_tanh(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  ValueId x = r.input(0);
  ValueId alpha = r.scalar_like(AI_VMM_TAKE(r.f("alpha", 1)), x), beta = r.scalar_like(AI_VMM_TAKE(r.f("beta", 1)), x);
  r.become("Mul", {r.emit("Tanh", {r.emit("Mul", {x, beta})}), alpha});
  return {};
}
Status parametric_softplus(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  ValueId x = r.input(0);
  ValueId alpha = r.scalar_like(AI_VMM_TAKE(r.f("alpha", 1)), x), beta = r.scalar_like(AI_VMM_TAKE(r.f("beta", 1)), x);
  r.become("Mul", {r.emit("Softplus", {r.emit("Mul", {x, beta})}), alpha});
  return {};
}
Status scale(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  r.become("Mul", {r.input(0), r.scalar_like(AI_VMM_TAKE(r.f("scale", 1)), r.input(0))});
  return {};
}
// x * scale + bias, one bias a channel.
Status image_scaler(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  ValueId x = r.input(0);
  ValueId scaled = r.emit("Mul", {x, r.scalar_like(AI_VMM_TAKE(r.f("scale", 1)), x)});
  auto bias = AI_VMM_TAKE(r.floats("bias"));
  if (bias.empty()) {
    r.become("Identity", {scaled});
    return {};
  }
  ValueId column = r.constant(Tensor::of<float>({static_cast<int64_t>(bias.size()), 1, 1}, bias));
  r.become("Add", {scaled, r.type(x).dtype == DType::f32 ? column : r.emit("CastLike", {column, x})});
  return {};
}
// Cuts border = [left, top, right, bottom] off an image, or a window of size `scale` = [height, width] from its corner.
Status crop(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  auto border = AI_VMM_TAKE(r.ints("border"));
  auto window = AI_VMM_TAKE(r.ints("scale"));
  if (border.size() != 4 || (!window.empty() && window.size() != 2))
    return r.error(Code::invalid_argument, "needs four values in \"border\", and two in \"scale\" if that is given.");
  auto end = [&](size_t side, size_t axis) {
    int64_t e = INT64_MAX;
    if (!window.empty()) {
      if (__builtin_add_overflow(border[1 - axis], window[axis], &e)) e = INT64_MAX;
    } else if (border[side] > 0) {
      e = -border[side];
    }
    return e;
  };
  r.become("Slice",
           {r.input(0), r.constant({border[1], border[0]}), r.constant({end(3, 0), end(2, 1)}), r.constant({2, 3})});
  return {};
}
Status mean_variance_9(Rewrite& r) {
  AI_VMM_TRY(r.require_inputs(1));
  std::vector<int64_t> axes = {0, 2, 3};
  if (AI_VMM_TAKE(r.i("across_channels", 0))) axes = {0, 1, 2, 3};
  auto divide = AI_VMM_TAKE(r.i("normalize_variance", 1));
  ValueId x = r.input(0);
  if (divide)
    r.become("MeanVarianceNormalization", {x}, {{"axes", axes}});
  else
    r.become("Sub", {x, r.emit("ReduceMean", {x, r.constant(axes)})});
  return {};
}

// ---------------------------------------------------------------- ai.onnx.ml

// The first LabelEncoder mapped strings to their places in one list, or back: a CategoryMapper with 0, 1, 2, ….
Status label_encoder_2(Rewrite& r) {
  auto classes = AI_VMM_TAKE(r.get<std::vector<std::string>>("classes_strings", {}));
  std::vector<int64_t> places(classes.size());
  for (size_t k = 0; k < places.size(); ++k) places[k] = static_cast<int64_t>(k);
  r.node.op = "CategoryMapper";
  r.node.remove("classes_strings");
  r.node.set("cats_strings", std::move(classes));
  r.node.set("cats_int64s", std::move(places));
  return {};
}

constexpr VersionStep kSteps[] = {
    {"", "Add Sub Mul Div Pow And Or Xor Equal Greater Less", 7, limited_broadcast_7},
    {"", "PRelu", 7, prelu_7},
    {"", "Gemm", 7, gemm_7},
    {"ai.onnx.preview", "FlexAttention", kEveryVersion, expand_flex_attention},
    {"", "Reshape", 5, reshape_5},
    {"", "Squeeze", 13, axes_to_input},
    {"", "Unsqueeze", 13, unsqueeze_13},
    {"", "ReduceSum", 13, axes_to_input},
    {"", "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare", 18,
     axes_to_input},
    {"", "Slice", 10, slice_10},
    {"", "TopK", 10, topk_10},
    {"", "Clip", 11, clip_11},
    {"", "Pad", 2, pad_2},
    {"", "Pad", 11, pad_11},
    {"", "Split", 2, split_2},
    {"", "Split", 13, split_13},
    {"", "Split", 18, split_18},
    {"", "Tile", 6, tile_6},
    {"", "DFT", 20, dft_20},
    {"", "Cast", 6, cast_6},
    {"", "Concat", 4, concat_4},
    {"", "LpPool GlobalLpPool", 2, pool_norm_2},
    {"", "Selu", 6, selu_6},
    {"", "GRU", 3, gru_3},
    {"", "LSTM GRU RNN", 7, recurrent_7},
    {"", "RoiAlign", 16, roi_align_16},
    {"", "GridSample", 20, grid_sample_20},
    {"", "Scatter", 11, scatter_11},
    {"", "Softmax LogSoftmax Hardmax", 13, softmax_13},
    {"", "Dropout", 7, dropout_7},
    {"", "Dropout", 10, dropout_10},
    {"", "Dropout", 12, dropout_12},
    {"", "BatchNormalization", 7, batch_norm_7},
    {"", "BatchNormalization", 9, batch_norm_9},
    {"", "BatchNormalization", 14, batch_norm_14},
    {"", "GroupNormalization", 21, group_norm_21},
    {"", "Upsample", 7, upsample_7},
    {"", "Upsample", 9, upsample_9},
    {"", "Upsample", 10, upsample_10},
    {"", "Resize", 11, resize_11},
    {"", "Resize", 13, resize_13},
    {"", "Resize", kEveryVersion, resize_any},
    {"", "Scan", 9, scan_9},
    {"", "Affine", kEveryVersion, affine},
    {"", "ScaledTanh", kEveryVersion, scaled_tanh},
    {"", "ParametricSoftplus", kEveryVersion, parametric_softplus},
    {"", "Scale", kEveryVersion, scale},
    {"", "ImageScaler", kEveryVersion, image_scaler},
    {"", "Crop", kEveryVersion, crop},
    {"", "MeanVarianceNormalization", 9, mean_variance_9},
    {"ai.onnx.ml", "LabelEncoder", 2, label_encoder_2},
};

}  // namespace

std::span<const VersionStep> version_steps() { return kSteps; }

}  // namespace ai_vmm
