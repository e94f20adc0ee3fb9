#include "certify/harness.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ai_vmm/compute_backend.hpp"
#include "base/numbers.hpp"
#include "base/text.hpp"
#include "certify/child.hpp"
#include "hal/backends.hpp"
#include "ops/op.hpp"

namespace ai_vmm::certify {

Status broken(const std::string& what) { return Status(Code::failed_precondition, what); }

AiVmmStatus new_status() { return backend::make<AiVmmStatus>(); }

Status sentence(int32_t code, const AiVmmStatus& status, std::string* text) {
  if (code < 1 || code > 16) return broken("it gave code " + std::to_string(code) + ", which is none of 1 to 16");
  if (status.text_size == 0) return broken("it failed with code " + std::to_string(code) + " and no sentence");
  if (status.text_size > sizeof status.text) return broken("it gave a text_size larger than its text");
  if (status.device_state < 0 || status.device_state > AI_VMM_DEVICE_DRIVER_MISMATCH)
    return broken("it gave device_state " + std::to_string(status.device_state) + ", which there is not");
  if (text) text->assign(status.text, status.text_size);
  return {};
}

Status Subject::open(const AiVmmHost& host) {
  auto connected = connect(entry, host);
  if (!connected.ok()) return std::move(connected).status();
  api = *connected;
  AiVmmStatus s = new_status();
  if (int32_t code = api->open_device(api->self, index, &device, &s)) {
    std::string text;
    AI_VMM_TRY(sentence(code, s, &text));
    return broken("device " + std::to_string(index) + " cannot be opened: " + text);
  }
  return {};
}

Result<std::vector<const Case*>> Subject::supported() {
  std::vector<const Case*> list;
  for (const Case& c : cases()) {
    doing("judging " + c.name);
    GraphView view(c.graph);
    AiVmmStatus s = new_status();
    if (!api->query) {
      auto options = backend::make<AiVmmCompileOptions>();
      AiVmmExecutable* e = nullptr;
      if (api->compile(device, view.get(), &options, &e, &s)) continue;
      api->release_executable(e);
      list.push_back(&c);
      continue;
    }
    auto verdict = backend::make<AiVmmVerdict>();
    AiVmmVerdict* verdicts[] = {&verdict};
    if (int32_t code = api->query(device, view.get(), verdicts, &s)) {
      std::string text;
      AI_VMM_TRY(sentence(code, s, &text));
      return broken("query of " + c.name + " failed: " + text);
    }
    if (verdict.reason < AI_VMM_SUPPORTED || verdict.reason > AI_VMM_REFUSED_NEIGHBOURS)
      return broken("query of " + c.name + " gave reason " + std::to_string(verdict.reason) + ", which there is not");
    if (!(verdict.est_ns >= 0) || !(verdict.est_bytes >= 0) || std::isinf(verdict.est_ns) ||
        std::isinf(verdict.est_bytes))
      return broken("query of " + c.name + " gave an estimate that is no number of nanoseconds or bytes");
    if (verdict.reason <= AI_VMM_SUPPORTED_GENERIC) list.push_back(&c);
  }
  if (list.empty())
    return broken("it takes none of the " + std::to_string(cases().size()) +
                  " operator cases, so nothing can be tested");
  return list;
}

Result<std::unique_ptr<Compiled>> Compiled::make(Subject& subject, const Graph& graph, bool alias, uint32_t extra) {
  auto c = std::unique_ptr<Compiled>(new Compiled(subject));
  c->graph = graph.clone();
  struct Larger {
    AiVmmCompileOptions options;
    char newer[64];
  } o{};
  std::memset(o.newer, 0x5a, sizeof o.newer);
  o.options = backend::make<AiVmmCompileOptions>();
  o.options.head.size += extra;
  o.options.threads = 1;
  std::vector<int32_t> over(graph.outputs.size(), -1);
  if (alias) {
    over[0] = 0;
    o.options.alias = over.data();
  }
  AiVmmStatus s = new_status();
  {
    // The graph is gone when the executable runs: only constants' elements stay. Its nodes are spoiled first, so that a
    // plugin that kept them does not find them whole by chance.
    GraphView view(c->graph);
    struct Spoil {
      GraphView& view;
      ~Spoil() {
        for (uint32_t n = 0; n < view.get()->node_count; ++n)
          std::memset(const_cast<AiVmmNode*>(view.get()->nodes[n]), 0x5a, sizeof(AiVmmNode));
      }
    } spoil{view};
    if (int32_t code = subject.api->compile(subject.device, view.get(), &o.options, &c->executable, &s)) {
      c->executable = nullptr;
      std::string text;
      AI_VMM_TRY(sentence(code, s, &text));
      return Status(static_cast<Code>(code), text).on_device(static_cast<DeviceState>(s.device_state));
    }
  }
  if (!c->executable) return broken("compile reported success, but made no executable");
  if (int32_t code = subject.api->create_context(c->executable, &c->context, &s)) {
    c->context = nullptr;
    std::string text;
    AI_VMM_TRY(sentence(code, s, &text));
    return broken("create_context failed: " + text);
  }
  return c;
}

Compiled::~Compiled() {
  if (context) subject.api->release_context(context);
  if (executable) subject.api->release_executable(executable);
}

namespace {

constexpr size_t kGuard = 256;
constexpr unsigned char kGuardByte = 0xa7;

// Bytes with guards on both sides.
class Guarded {
 public:
  explicit Guarded(int64_t bytes) : bytes_(size_t(bytes)), all_(bytes_ + 2 * kGuard + 64, kGuardByte) {
    auto at = reinterpret_cast<uintptr_t>(all_.data()) + kGuard;
    offset_ = size_t((at + 63) / 64 * 64 - reinterpret_cast<uintptr_t>(all_.data()));
  }
  unsigned char* data() { return all_.data() + offset_; }
  // How many bytes beyond the memory were written, and the nearest of them.
  bool touched(std::string* where) const {
    for (size_t i = 0; i < all_.size(); ++i) {
      if (i >= offset_ && i < offset_ + bytes_) continue;
      if (all_[i] == kGuardByte) continue;
      *where = i < offset_ ? std::to_string(offset_ - i) + " bytes before"
                           : std::to_string(i - offset_ - bytes_) + " bytes past";
      return true;
    }
    return false;
  }

 private:
  size_t bytes_;
  std::vector<unsigned char> all_;
  size_t offset_ = 0;
};

struct Output {
  DType dtype = DType::undefined;
  Shape shape;
  std::unique_ptr<Guarded> memory;
  bool wanted_other = false;  // allocate was asked for something that the graph does not give
};

struct Given {
  std::vector<Output>* outputs;
  bool refuse;
};

void* allocate(void* user, uint32_t index, int32_t dtype, int32_t rank, const int64_t* shape) {
  auto* g = static_cast<Given*>(user);
  if (g->refuse || index >= g->outputs->size()) return nullptr;
  Output& o = (*g->outputs)[index];
  auto count = rank >= 0 && (rank == 0 || shape) ? element_count({shape, size_t(rank)}) : std::nullopt;
  if (!count || dtype <= 0 || dtype >= kDTypeCount || *count > (1 << 28)) {
    o.wanted_other = true;
    return nullptr;
  }
  o.dtype = static_cast<DType>(dtype);
  o.shape.assign(shape, shape + rank);
  o.memory = std::make_unique<Guarded>(bytes_for(o.dtype, *count));
  return o.memory->data();
}

}  // namespace

Result<std::vector<Tensor>> expected(const Graph& g, const std::vector<Tensor>& inputs) {
  std::vector<Data> slots(g.values.size());
  for (size_t v = 0; v < g.values.size(); ++v)
    if (g.values[v].constant) slots[v] = Data(g.values[v].constant);
  for (size_t i = 0; i < inputs.size(); ++i) slots[size_t(g.inputs[i])] = Data(inputs[i]);
  Random random;
  for (const Node& n : g.nodes) {
    std::vector<Data> in;
    for (ValueId v : n.inputs) in.push_back(v == kAbsent ? Data() : slots[size_t(v)]);
    auto out = AI_VMM_TAKE(evaluate(n, in, random));
    for (size_t k = 0; k < n.outputs.size(); ++k)
      if (n.outputs[k] != kAbsent) slots[size_t(n.outputs[k])] = std::move(out[k]);
  }
  std::vector<Tensor> results;
  for (ValueId v : g.outputs) results.push_back(slots[size_t(v)].tensor());
  return results;
}

Result<std::vector<Tensor>> Compiled::run(const std::vector<Tensor>& inputs, RunSetup& setup, AiVmmContext* with) {
  struct LargerTensor {
    AiVmmTensor tensor;
    char newer[64];
  };
  const size_t n = inputs.size(), m = graph.outputs.size();
  std::vector<LargerTensor> tensors(n + m);
  std::vector<const AiVmmTensor*> pointers;
  std::vector<std::unique_ptr<Guarded>> copies;
  std::vector<Output> outputs(m);
  std::vector<Tensor> reference;
  if (setup.in_place) reference = AI_VMM_TAKE(ai_vmm::certify::expected(graph, inputs));
  for (auto& t : tensors) {
    std::memset(t.newer, 0x5a, sizeof t.newer);
    t.tensor = backend::make<AiVmmTensor>();
    t.tensor.head.size += setup.extra_size;
    t.tensor.device_type = 1;
    pointers.push_back(&t.tensor);
  }
  for (size_t i = 0; i < n; ++i) {
    copies.push_back(std::make_unique<Guarded>(inputs[i].bytes()));
    if (inputs[i].bytes()) std::memcpy(copies[i]->data(), inputs[i].data(), size_t(inputs[i].bytes()));
    tensors[i].tensor.data = copies[i]->data();
    tensors[i].tensor.dtype = int32_t(inputs[i].dtype());
    tensors[i].tensor.rank = int32_t(inputs[i].rank());
    tensors[i].tensor.shape = inputs[i].shape().data();
  }
  for (size_t k = 0; k < m; ++k) {
    AiVmmTensor& t = tensors[n + k].tensor;
    if (!setup.in_place) continue;
    outputs[k].dtype = reference[k].dtype();
    outputs[k].shape = reference[k].shape();
    outputs[k].memory = std::make_unique<Guarded>(reference[k].bytes());
    t.data = outputs[k].memory->data();
    t.dtype = int32_t(reference[k].dtype());
    t.rank = int32_t(reference[k].rank());
    t.shape = outputs[k].shape.data();
  }
  if (setup.alias_first) tensors[n].tensor.data = tensors[0].tensor.data;
  struct LargerRun {
    AiVmmRun run;
    char newer[64];
  } r{};
  std::memset(r.newer, 0x5a, sizeof r.newer);
  r.run = backend::make<AiVmmRun>();
  r.run.head.size += setup.extra_size;
  Given given{&outputs, setup.refuse_memory};
  r.run.allocate = allocate;
  r.run.user = &given;
  r.run.threads = 1;
  r.run.cancel = setup.cancel;
  setup.status = new_status();
  setup.code = subject.api->execute(with ? with : context, pointers.data(), uint32_t(n), pointers.data() + n,
                                    uint32_t(m), &r.run, &setup.status);
  std::string where;
  for (size_t k = 0; k < m; ++k) {
    if (outputs[k].memory && outputs[k].memory->touched(&where))
      return broken("it wrote " + where + " output " + std::to_string(k));
    if (outputs[k].wanted_other) return broken("it asked for impossible memory for output " + std::to_string(k));
  }
  for (size_t i = 0; i < n; ++i) {
    if (copies[i]->touched(&where)) return broken("it wrote " + where + " input " + std::to_string(i));
    if (!(setup.alias_first && i == 0) && inputs[i].bytes() &&
        std::memcmp(copies[i]->data(), inputs[i].data(), size_t(inputs[i].bytes())) != 0)
      return broken("it changed input " + std::to_string(i));
  }
  if (setup.code) {
    std::string text;
    AI_VMM_TRY(sentence(setup.code, setup.status, &text));
    return Status(static_cast<Code>(setup.code), text).on_device(static_cast<DeviceState>(setup.status.device_state));
  }
  std::vector<Tensor> results;
  for (size_t k = 0; k < m; ++k) {
    if (!outputs[k].memory) return broken("it reported success, but made no output " + std::to_string(k));
    const void* data = setup.alias_first && k == 0 ? copies[0]->data() : outputs[k].memory->data();
    Tensor t = Tensor::view(outputs[k].dtype, outputs[k].shape, data);
    auto own = t.clone();
    if (!own.ok()) return std::move(own).status();
    results.push_back(*std::move(own));
  }
  return results;
}

Status Compiled::compare(const std::vector<Tensor>& inputs, RunSetup& setup, AiVmmContext* with) {
  auto right = AI_VMM_TAKE(ai_vmm::certify::expected(graph, inputs));
  auto got = AI_VMM_TAKE(run(inputs, setup, with));
  for (size_t k = 0; k < right.size(); ++k)
    AI_VMM_TRY(certify::compare("output " + std::to_string(k), got[k], right[k]));
  return {};
}

Status compare(const std::string& where, const Tensor& got, const Tensor& right) {
  auto of = [](const Tensor& t) { return std::string(name(t.dtype())) + to_string(t.shape()); };
  if (got.dtype() != right.dtype() || got.shape() != right.shape())
    return broken(where + " is " + of(got) + ", but must be " + of(right));
  const DType type = right.dtype();
  auto differs = [&](int64_t i, const std::string& is, const std::string& must) {
    return broken("element " + std::to_string(i) + " of " + where + " is " + is + ", but must be " + must);
  };
  if (!is_float(type)) {
    if (bits(type) >= 8 && !is_complex(type))
      for (int64_t i = 0; i < right.count(); ++i)
        if (int64_t a = read_int64(type, got.data(), i), b = read_int64(type, right.data(), i); a != b)
          return differs(i, std::to_string(a), std::to_string(b));
    if (right.bytes() && std::memcmp(got.data(), right.data(), size_t(right.bytes())) != 0)
      return broken(where + " differs in its bits");
    return {};
  }
  double most = 0, share = type == DType::bf16 ? 0x1p-6 : bits(type) < 32 ? 0x1p-8 : 1e-4;
  for (int64_t i = 0; i < right.count(); ++i)
    if (double r = read_double(type, right.data(), i); std::isfinite(r)) most = std::max(most, std::fabs(r));
  for (int64_t i = 0; i < right.count(); ++i) {
    double a = read_double(type, got.data(), i), b = read_double(type, right.data(), i);
    bool equal = std::isfinite(b) ? std::fabs(a - b) <= share * most + share * std::fabs(b)
                                  : (std::isnan(b) ? std::isnan(a) : a == b);
    if (!equal) {
      char is[32], must[32];
      std::snprintf(is, sizeof is, "%.9g", a);
      std::snprintf(must, sizeof must, "%.9g", b);
      return differs(i, is, must);
    }
  }
  return {};
}

}  // namespace ai_vmm::certify
