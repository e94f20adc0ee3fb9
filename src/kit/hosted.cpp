#include "kit/hosted.hpp"

#include <algorithm>
#include <cstring>
#include <set>
#include <unordered_map>

#include "base/hash.hpp"
#include "base/text.hpp"
#include "base/threads.hpp"
#include "ops/op.hpp"

namespace ai_vmm::hosted {

using backend::view;

namespace {

// ---------------------------------------------------------------- running

// A session for a thread count that nobody asked for in so many runs is let go: the host tries counts while it measures
// and then stays with one.
constexpr int64_t kRunsUntilForgotten = 100;

class Executable : public backend::Executable, public std::enable_shared_from_this<Executable> {
 public:
  Executable(std::shared_ptr<Engine> engine, OnnxModel model, OutputShapes shapes, int threads)
      : engine_(std::move(engine)), model_(std::move(model)), shapes_(std::move(shapes)), threads_(threads) {}

  Result<std::unique_ptr<backend::Context>> create_context() override;
  void info(AiVmmExecutableInfo& info) const override {
    std::lock_guard lock(mutex_);
    info.compilations = loads_;
  }

  int threads(int asked) const { return asked > 0 && (threads_ <= 0 || asked < threads_) ? asked : threads_; }
  void put(int threads, std::shared_ptr<Session> session) {
    std::lock_guard lock(mutex_);
    sessions_[threads] = {std::move(session), runs_};
    ++loads_;
  }
  Result<std::shared_ptr<Session>> session(int threads) {
    std::lock_guard lock(mutex_);
    ++runs_;
    auto it = sessions_.find(threads);
    if (it == sessions_.end()) {
      auto session = AI_VMM_TAKE(engine_->load(model_, {.threads = threads}));
      it = sessions_.emplace(threads, Entry{std::move(session), runs_}).first;
      ++loads_;
    }
    it->second.last = runs_;
    if (sessions_.size() > 1)
      std::erase_if(sessions_, [&](const auto& e) { return runs_ - e.second.last > kRunsUntilForgotten; });
    return it->second.session;
  }
  const OnnxModel& model() const { return model_; }
  const OutputShapes& shapes() const { return shapes_; }

 private:
  struct Entry {
    std::shared_ptr<Session> session;
    int64_t last;  // the run that used it last
  };
  const std::shared_ptr<Engine> engine_;
  const OnnxModel model_;
  const OutputShapes shapes_;
  const int threads_;
  mutable std::mutex mutex_;
  std::map<int, Entry> sessions_;
  int64_t runs_ = 0, loads_ = 0;
};

class Context : public backend::Context {
 public:
  explicit Context(Executable& executable) : executable_(executable), shapes_(executable.shapes()) {
    outputs_.resize(shapes_.count());
  }

  Status execute(std::span<const backend::TensorRef> inputs, std::span<const backend::TensorRef> outputs,
                 const AiVmmRun& run) override {
    std::shared_ptr<Session> session = AI_VMM_TAKE(executable_.session(executable_.threads(run.threads)));
    if (session != session_) {
      request_ = AI_VMM_TAKE(session->create_request());
      session_ = std::move(session);
    }
    shapes_.update(inputs);
    for (size_t k = 0; k < outputs.size(); ++k) {
      Output& o = outputs_[k];
      o = {nullptr, shapes_.dtype(k), {}};
      const std::vector<int64_t>* shape = shapes_.shape(k);
      if (!shape) continue;
      o.shape = *shape;
      o.data = AI_VMM_TAKE(place(outputs, k, run));
    }
    AI_VMM_TRY(request_->run(inputs, outputs_));
    for (size_t k = 0; k < outputs.size(); ++k) {
      if (shapes_.shape(k)) continue;
      const Output& o = outputs_[k];
      void* to = AI_VMM_TAKE(place(outputs, k, run));
      if (auto bytes = size_t(backend::bytes_of(o.dtype, int32_t(o.shape.size()), o.shape.data())))
        std::memcpy(to, o.data, bytes);
    }
    return {};
  }

 private:
  Result<void*> place(std::span<const backend::TensorRef> outputs, size_t k, const AiVmmRun& run) const {
    const Output& o = outputs_[k];
    return backend::output(run, outputs, uint32_t(k), o.dtype, int32_t(o.shape.size()), o.shape.data());
  }

  Executable& executable_;
  OutputShapes shapes_;
  std::shared_ptr<Session> session_;
  std::unique_ptr<Request> request_;
  std::vector<Output> outputs_;
};

Result<std::unique_ptr<backend::Context>> Executable::create_context() {
  return std::unique_ptr<backend::Context>(new Context(*this));
}

// ---------------------------------------------------------------- verdicts

// One node as a graph of its own, with values named by their place, so that equal kinds of node are equal.
class LoneNode {
 public:
  LoneNode(const AiVmmGraph& whole, uint32_t index) : node_(*whole.nodes[index]), graph_(whole) {
    std::map<int32_t, int32_t> to;
    auto map = [&](int32_t v) {
      if (v < 0) return v;
      auto [it, fresh] = to.emplace(v, int32_t(values_.size()));
      if (fresh) {
        names_.push_back("v" + std::to_string(names_.size()));
        values_.push_back(*whole.values[v]);
      }
      return it->second;
    };
    for (uint32_t k = 0; k < node_.input_count; ++k) inputs_.push_back(map(node_.inputs[k]));
    for (uint32_t k = 0; k < node_.output_count; ++k) outputs_.push_back(map(node_.outputs[k]));
    for (size_t i = 0; i < values_.size(); ++i) {
      values_[i].name = backend::text(names_[i]);
      pointers_.push_back(&values_[i]);
    }
    node_.name = {nullptr, 0};
    node_.inputs = inputs_.data();
    node_.outputs = outputs_.data();
    graph_.values = pointers_.data();
    graph_.value_count = uint32_t(pointers_.size());
    nodes_[0] = &node_;
    graph_.nodes = nodes_;
    graph_.node_count = 1;
    graph_.output_count = 0;
    lone_.emplace(graph_, std::vector<uint32_t>{0});
  }
  LoneNode(const LoneNode&) = delete;
  const AiVmmGraph& get() const { return lone_->get(); }

 private:
  AiVmmNode node_;
  AiVmmGraph graph_;
  std::vector<std::string> names_;
  std::vector<AiVmmValue> values_;
  std::vector<const AiVmmValue*> pointers_;
  std::vector<int32_t> inputs_, outputs_;
  const AiVmmNode* nodes_[1];
  std::optional<SubgraphView> lone_;
};

struct NodeVerdict {
  AiVmmReason reason = AI_VMM_SUPPORTED;
  const char* detail = nullptr;
};

// Details live as long as the process: the interface wants literals, and equal ones are kept once.
const char* keep(const std::string& text) {
  static std::mutex mutex;
  static auto* texts = new std::set<std::string>;
  std::lock_guard lock(mutex);
  return texts->insert(text).first->c_str();
}

// The engine's message in one line of bearable length.
std::string brief(const std::string& message) {
  constexpr size_t kLongest = 240;
  std::string s;
  for (char c : message) {
    bool space = c == '\n' || c == '\t' || c == ' ';
    if (space && (s.empty() || s.back() == ' ')) continue;
    s += space ? ' ' : c;
  }
  return s.size() > kLongest ? s.substr(0, kLongest) + "…" : s;
}

NodeVerdict refusal(const Engine& engine, const Status& failure) {
  return {engine.reason(failure), keep(brief(failure.message()))};
}

NodeVerdict try_node(Engine& engine, const AiVmmGraph& graph, uint32_t index, int opset) {
  static std::mutex mutex;
  static auto* known = new std::unordered_map<std::string, NodeVerdict>;
  LoneNode node(graph, index);
  std::string key = engine.identity() + "\n" + write_onnx(node.get(), opset, OnnxWeights::beside).bytes;
  {
    std::lock_guard lock(mutex);
    if (auto it = known->find(key); it != known->end()) return it->second;
  }
  auto loaded = engine.load(write_onnx(node.get(), opset, engine.weights()), {.threads = 1, .probe = true});
  NodeVerdict verdict = loaded.ok() ? NodeVerdict() : refusal(engine, loaded.status());
  std::lock_guard lock(mutex);
  return known->emplace(std::move(key), verdict).first->second;
}

bool crosses(const AiVmmGraph& g, const int32_t* values, uint32_t count) {
  for (uint32_t k = 0; k < count; ++k)
    if (values[k] >= 0 && (g.values[values[k]]->dtype == int32_t(DType::undefined) ||
                           g.values[values[k]]->dtype == int32_t(DType::string)))
      return false;
  return true;
}

bool host_only(const AiVmmGraph& g, const AiVmmNode& n) {
  const OpDef* def = find_op(view(n.domain), view(n.op));
  return !def || (def->traits & (kHostOnly | kControlFlow)) != 0u || !crosses(g, n.inputs, n.input_count) ||
         !crosses(g, n.outputs, n.output_count);
}

uint64_t key_of(const OnnxModel& model, int threads) {
  uint64_t key = hash_bytes(std::as_bytes(std::span(model.bytes)), uint64_t(threads));
  for (const OnnxWeight& w : model.weights) key = hash_bytes(w.data, key);
  return key;
}

}  // namespace

// ---------------------------------------------------------------- sizes

OutputShapes::OutputShapes(const AiVmmGraph& g) {
  std::vector<std::optional<Dim>> expressions;
  for (uint32_t i = 0; i < g.expression_count; ++i) {
    auto d = Dim::parse(view(g.expressions[i]));
    expressions.push_back(d.ok() ? std::optional<Dim>(*std::move(d)) : std::nullopt);
  }
  for (uint32_t i = 0; i < g.input_count; ++i) {
    const AiVmmValue& v = *g.values[g.inputs[i]];
    for (int32_t axis = 0; axis < v.rank; ++axis)
      if (v.dims[axis] < 0)
        if (const auto& d = expressions[size_t(-1 - v.dims[axis])]; d && d->is_symbol())
          symbols_.push_back({d->to_string(), i, size_t(axis)});
  }
  for (uint32_t k = 0; k < g.output_count; ++k) {
    const AiVmmValue& v = *g.values[g.outputs[k]];
    dtypes_.push_back(v.dtype);
    std::optional<std::vector<Dim>> dims;
    if (v.rank >= 0) dims.emplace();
    for (int32_t axis = 0; axis < v.rank && dims; ++axis) {
      if (v.dims[axis] >= 0)
        dims->push_back(Dim(v.dims[axis]));
      else if (const auto& d = expressions[size_t(-1 - v.dims[axis])])
        dims->push_back(*d);
      else
        dims.reset();
    }
    dims_.push_back(std::move(dims));
  }
  shapes_.resize(dims_.size());
  known_.assign(dims_.size(), 0);
  last_.assign(symbols_.size(), -1);
}

void OutputShapes::update(std::span<const AiVmmTensor* const> inputs) {
  bool changed = fresh_;
  for (size_t s = 0; s < symbols_.size(); ++s) {
    int64_t size = inputs[symbols_[s].input]->shape[symbols_[s].axis];
    changed |= size != last_[s];
    last_[s] = size;
  }
  if (!changed) return;
  fresh_ = false;
  auto lookup = [&](std::string_view name) -> std::optional<int64_t> {
    for (size_t s = 0; s < symbols_.size(); ++s)
      if (symbols_[s].name == name) return last_[s];
    return std::nullopt;
  };
  for (size_t k = 0; k < dims_.size(); ++k) {
    known_[k] = dims_[k].has_value();
    shapes_[k].clear();
    if (!dims_[k]) continue;
    for (const Dim& d : *dims_[k]) {
      auto size = d.evaluate(lookup);
      known_[k] &= size && *size >= 0;
      shapes_[k].push_back(size.value_or(0));
    }
  }
}

// ---------------------------------------------------------------- the device

Status Device::query(const AiVmmGraph& graph, std::span<AiVmmVerdict* const> verdicts) {
  std::vector<uint32_t> open;
  for (uint32_t n = 0; n < graph.node_count; ++n) {
    if (host_only(graph, *graph.nodes[n])) {
      verdicts[n]->reason = AI_VMM_REFUSED_HOST_ONLY;
    } else if (auto deviation = engine_->deviation(graph, *graph.nodes[n])) {
      verdicts[n]->reason = deviation->reason;
      verdicts[n]->detail = deviation->text;
    } else {
      open.push_back(n);
    }
  }
  std::lock_guard lock(mutex_);
  loaded_ = {};
  std::optional<NodeVerdict> whole;
  if (!open.empty() && open.size() == graph.node_count) {
    SubgraphView all(graph, open);
    int threads = available_threads();
    for (int opset : engine_->opsets()) {
      OnnxModel model = write_onnx(all.get(), opset, engine_->weights());
      auto session = engine_->load(model, {.threads = threads});
      if (session.ok()) {
        loaded_ = {key_of(model, threads), *std::move(session)};
        opset_ = opset;
        for (AiVmmVerdict* v : verdicts) v->reason = AI_VMM_SUPPORTED;
        return {};
      }
      if (!whole) whole = refusal(*engine_, session.status());
    }
  }
  // One opset for all nodes, as a region has one: that at which most are taken, the preferred one at a tie.
  std::vector<NodeVerdict> best;
  size_t most = 0;
  for (int opset : engine_->opsets()) {
    std::vector<NodeVerdict> list;
    for (uint32_t n : open) list.push_back(try_node(*engine_, graph, n, opset));
    auto taken = size_t(std::ranges::count(list, AI_VMM_SUPPORTED, &NodeVerdict::reason));
    if (!best.empty() && taken <= most) continue;
    best = std::move(list);
    most = taken;
    opset_ = opset;
    if (most == open.size()) break;
  }
  for (size_t i = 0; i < best.size(); ++i) {
    verdicts[open[i]]->reason = best[i].reason;
    verdicts[open[i]]->detail = best[i].detail;
  }
  // Each node alone, but not all together: then the engine's own reason stands at every node.
  if (whole && most == open.size())
    for (AiVmmVerdict* v : verdicts) {
      v->reason = whole->reason;
      v->detail = whole->detail;
    }
  return {};
}

Result<std::unique_ptr<backend::Executable>> Device::compile(const AiVmmGraph& graph,
                                                             const AiVmmCompileOptions& options) {
  int threads = options.threads > 0 ? options.threads : available_threads();
  Loaded loaded;
  int opset = 0;
  {
    std::lock_guard lock(mutex_);
    loaded = std::move(loaded_);
    loaded_ = {};
    opset = opset_;
  }
  OnnxModel model = write_onnx(graph, opset, engine_->weights());
  if (!loaded.session || loaded.key != key_of(model, threads))
    loaded.session = AI_VMM_TAKE(engine_->load(model, {.threads = threads}));
  auto executable = std::make_unique<Executable>(engine_, std::move(model), OutputShapes(graph), threads);
  executable->put(threads, std::move(loaded.session));
  return std::unique_ptr<backend::Executable>(std::move(executable));
}

}  // namespace ai_vmm::hosted
