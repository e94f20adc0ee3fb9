// ai.onnx.ml: ensembles of decision trees.
#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "ops/all_ops.hpp"
#include "ops/ml_scores.hpp"
#include "ops/ref.hpp"

namespace ai_vmm {

namespace {

enum class Mode : uint8_t { leq, lt, gte, gt, eq, neq, member, leaf };
enum class Aggregate { average, sum, minimum, maximum };

struct TreeNode {
  Mode mode = Mode::leaf;
  bool missing_is_true = false;  // where a NaN goes
  int32_t on_true = -1, on_false = -1;
  int64_t feature = 0;
  double value = 0;
  size_t first = 0, count = 0;  // a leaf's votes; the set of a `member` node
};
struct Vote {
  int64_t target;
  double weight;
};

// An ensemble as read from the attributes, checked: every walk from a root ends at a leaf.
struct Forest {
  std::vector<TreeNode> nodes;
  std::vector<int32_t> roots;
  std::vector<Vote> votes;
  std::vector<double> members;
  bool round_to_float = true;  // features are compared as float, unless they and the thresholds are double

  const TreeNode& leaf(int32_t root, const double* x) const {
    const TreeNode* n = &nodes[size_t(root)];
    while (n->mode != Mode::leaf) n = &nodes[size_t(goes_true(*n, x[n->feature]) ? n->on_true : n->on_false)];
    return *n;
  }

 private:
  bool goes_true(const TreeNode& n, double x) const {
    if (x != x) return n.missing_is_true || n.mode == Mode::neq;
    switch (n.mode) {
      case Mode::leq: return x <= n.value;
      case Mode::lt: return x < n.value;
      case Mode::gte: return x >= n.value;
      case Mode::gt: return x > n.value;
      case Mode::eq: return x == n.value;
      case Mode::neq: return x != n.value;
      case Mode::member:
        return std::find(members.begin() + int64_t(n.first), members.begin() + int64_t(n.first + n.count), x) !=
               members.begin() + int64_t(n.first + n.count);
      case Mode::leaf: break;
    }
    return false;
  }
};

// Checks indices, features, targets, and that no node is its own descendant.
Status check(const Eval& e, const Forest& f, int64_t features, int64_t targets) {
  int32_t n = int32_t(f.nodes.size());
  for (const TreeNode& node : f.nodes) {
    if (node.mode == Mode::leaf) continue;
    if (node.on_true < 0 || node.on_true >= n || node.on_false < 0 || node.on_false >= n)
      return e.error("a branch of a tree leads nowhere.");
    if (node.feature < 0 || node.feature >= features)
      return e.error("a tree asks for feature " + std::to_string(node.feature) + "; the input has " +
                     std::to_string(features) + ".");
  }
  for (const Vote& v : f.votes)
    if (v.target < 0 || v.target >= targets)
      return e.error("a leaf votes for target " + std::to_string(v.target) + " of " + std::to_string(targets) + ".");
  // Depth-first with colours: 0 not seen, 1 on the path, 2 done.
  std::vector<uint8_t> colour(f.nodes.size(), 0);
  for (int32_t root : f.roots) {
    std::vector<int32_t> path{root};
    while (!path.empty()) {
      int32_t at = path.back();
      const TreeNode& node = f.nodes[size_t(at)];
      if (colour[size_t(at)] == 2) {
        path.pop_back();
        continue;
      }
      bool back = colour[size_t(at)] == 1;  // both children are done
      colour[size_t(at)] = back || node.mode == Mode::leaf ? 2 : 1;
      if (colour[size_t(at)] == 2) {
        path.pop_back();
        continue;
      }
      for (int32_t child : {node.on_true, node.on_false}) {
        if (colour[size_t(child)] == 1) return e.error("a tree has a cycle.");
        if (colour[size_t(child)] == 0) path.push_back(child);
      }
    }
  }
  return {};
}

// A list of numbers that may be an attribute of floats, or of doubles under "<name>_as_tensor".
std::vector<double> numbers(const Node& node, const std::string& name) {
  if (const Tensor* t = node.tensor(name + "_as_tensor"); t && t->dtype() != DType::string)
    return ref::load<double>(*t);
  auto v = node.floats(name);
  return {v.begin(), v.end()};
}

// The older form: nodes named by (tree, node) pairs; votes under the prefix "target" or "class".
Result<Forest> read_pairs(const Eval& e, const std::string& prefix) {
  const Node& node = e.node;
  auto trees = node.ints("nodes_treeids"), ids = node.ints("nodes_nodeids"), features = node.ints("nodes_featureids"),
       on_true = node.ints("nodes_truenodeids"), on_false = node.ints("nodes_falsenodeids"),
       missing = node.ints("nodes_missing_value_tracks_true");
  auto modes = node.strings("nodes_modes");
  auto values = numbers(node, "nodes_values");
  size_t n = ids.size();
  if (n > size_t(std::numeric_limits<int32_t>::max()) || trees.size() != n || modes.size() != n ||
      features.size() != n || on_true.size() != n || on_false.size() != n || (values.size() != n && !values.empty()) ||
      (missing.size() != n && !missing.empty()))
    return e.error("its nodes_* attributes differ in length.");
  struct Hash {
    size_t operator()(const std::pair<int64_t, int64_t>& p) const {
      return size_t(p.first) * 0x9e3779b97f4a7c15ull ^ size_t(p.second);
    }
  };
  std::unordered_map<std::pair<int64_t, int64_t>, int32_t, Hash> index;
  for (size_t i = 0; i < n; ++i)
    if (!index.emplace(std::pair(trees[i], ids[i]), int32_t(i)).second)
      return e.error("node " + std::to_string(ids[i]) + " of tree " + std::to_string(trees[i]) + " is there twice.");
  static constexpr std::pair<const char*, Mode> kModes[] = {
      {"BRANCH_LEQ", Mode::leq}, {"BRANCH_LT", Mode::lt},   {"BRANCH_GTE", Mode::gte}, {"BRANCH_GT", Mode::gt},
      {"BRANCH_EQ", Mode::eq},   {"BRANCH_NEQ", Mode::neq}, {"LEAF", Mode::leaf}};
  Forest f;
  f.nodes.resize(n);
  std::vector<bool> is_child(n, false);
  for (size_t i = 0; i < n; ++i) {
    TreeNode& t = f.nodes[i];
    auto mode = std::find_if(std::begin(kModes), std::end(kModes), [&](const auto& m) { return modes[i] == m.first; });
    if (mode == std::end(kModes)) return e.error("the node mode \"" + modes[i] + "\" is not known.");
    t.mode = mode->second;
    t.feature = features[i];
    t.value = values.empty() ? 0 : values[i];
    t.missing_is_true = !missing.empty() && missing[i] != 0;
    if (t.mode == Mode::leaf) continue;
    for (auto [child, id] : {std::pair(&t.on_true, on_true[i]), std::pair(&t.on_false, on_false[i])}) {
      auto it = index.find({trees[i], id});
      if (it == index.end())
        return e.error("tree " + std::to_string(trees[i]) + " has no node " + std::to_string(id) + ".");
      *child = it->second;
      is_child[size_t(it->second)] = true;
    }
  }
  for (size_t i = 0; i < n; ++i)
    if (!is_child[i]) f.roots.push_back(int32_t(i));

  auto vote_trees = node.ints(prefix + "_treeids"), vote_nodes = node.ints(prefix + "_nodeids"),
       vote_ids = node.ints(prefix + "_ids");
  auto weights = numbers(node, prefix + "_weights");
  if (vote_trees.size() != vote_ids.size() || vote_nodes.size() != vote_ids.size() || weights.size() != vote_ids.size())
    return e.error("its " + prefix + "_* attributes differ in length.");
  std::vector<std::vector<Vote>> by_node(n);
  for (size_t i = 0; i < vote_ids.size(); ++i) {
    auto it = index.find({vote_trees[i], vote_nodes[i]});
    if (it == index.end())
      return e.error("tree " + std::to_string(vote_trees[i]) + " has no node " + std::to_string(vote_nodes[i]) + ".");
    by_node[size_t(it->second)].push_back({vote_ids[i], weights[i]});
  }
  for (size_t i = 0; i < n; ++i) {
    if (f.nodes[i].mode != Mode::leaf) continue;  // votes at inner nodes never count
    f.nodes[i].first = f.votes.size();
    f.nodes[i].count = by_node[i].size();
    f.votes.insert(f.votes.end(), by_node[i].begin(), by_node[i].end());
  }
  f.round_to_float =
      !node.tensor("nodes_values_as_tensor") || node.tensor("nodes_values_as_tensor")->dtype() != DType::f64;
  return f;
}

// The newer form: inner nodes and leaves in two lists, by index.
Result<Forest> read_split(const Eval& e) {
  const Node& node = e.node;
  auto features = node.ints("nodes_featureids"), on_true = node.ints("nodes_truenodeids"),
       on_false = node.ints("nodes_falsenodeids"), true_leaf = node.ints("nodes_trueleafs"),
       false_leaf = node.ints("nodes_falseleafs"), missing = node.ints("nodes_missing_value_tracks_true"),
       targets = node.ints("leaf_targetids"), roots = node.ints("tree_roots");
  const Tensor *mode_tensor = node.tensor("nodes_modes"), *split_tensor = node.tensor("nodes_splits"),
               *weight_tensor = node.tensor("leaf_weights"), *member_tensor = node.tensor("membership_values");
  for (const Tensor* t : {mode_tensor, split_tensor, weight_tensor, member_tensor})
    if (t && (t->dtype() == DType::string || is_complex(t->dtype()))) return e.error("its tensors must be numbers.");
  auto modes = ref::ints(*mode_tensor);
  auto splits = ref::load<double>(*split_tensor), weights = ref::load<double>(*weight_tensor);
  size_t n = modes.size(), leaves = weights.size();
  if (n + leaves > size_t(std::numeric_limits<int32_t>::max()) || splits.size() != n || features.size() != n ||
      on_true.size() != n || on_false.size() != n || true_leaf.size() != n || false_leaf.size() != n ||
      (missing.size() != n && !missing.empty()) || targets.size() != leaves)
    return e.error("its nodes_* or leaf_* attributes differ in length.");
  Forest f;
  f.nodes.resize(n + leaves);  // leaf i stands at n + i
  for (size_t i = 0; i < leaves; ++i) {
    f.votes.push_back({targets[i], weights[i]});
    f.nodes[n + i].first = i;
    f.nodes[n + i].count = 1;
  }
  // The sets of the `member` nodes stand one after the other, each closed by a NaN.
  std::vector<double> sets;
  if (member_tensor) sets = ref::load<double>(*member_tensor);
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    TreeNode& t = f.nodes[i];
    if (modes[i] < 0 || modes[i] > int64_t(Mode::member))
      return e.error("the node mode " + std::to_string(modes[i]) + " is not known.");
    t.mode = Mode(modes[i]);
    t.feature = features[i];
    t.value = splits[i];
    t.missing_is_true = !missing.empty() && missing[i] != 0;
    for (auto [child, id, leaf] :
         {std::tuple(&t.on_true, on_true[i], true_leaf[i]), std::tuple(&t.on_false, on_false[i], false_leaf[i])}) {
      if (id < 0 || id >= int64_t(leaf ? leaves : n))
        return e.error("a branch leads to " + std::string(leaf ? "leaf " : "node ") + std::to_string(id) +
                       ", which is not there.");
      *child = int32_t(leaf ? int64_t(n) + id : id);
    }
    if (t.mode == Mode::member) {
      t.first = f.members.size();
      while (at < sets.size() && sets[at] == sets[at]) f.members.push_back(sets[at++]);
      if (at == sets.size()) return e.error("membership_values ends before the set of node " + std::to_string(i) + ".");
      ++at;
      t.count = f.members.size() - t.first;
    }
  }
  for (int64_t r : roots) {
    if (r < 0 || r >= int64_t(n)) return e.error("the root " + std::to_string(r) + " is not there.");
    f.roots.push_back(int32_t(r));
  }
  f.round_to_float = split_tensor->dtype() != DType::f64;
  return f;
}

// What the trees say about one row: a value a target, 0 where no leaf votes. `voted`: the targets that got a vote.
std::vector<double> judge(const Forest& f, const double* x, int64_t targets, Aggregate aggregate,
                          std::vector<bool>& voted) {
  std::vector<double> score(size_t(targets), 0);
  voted.assign(size_t(targets), false);
  for (int32_t root : f.roots) {
    const TreeNode& leaf = f.leaf(root, x);
    for (size_t k = leaf.first; k < leaf.first + leaf.count; ++k) {
      size_t t = size_t(f.votes[k].target);
      double w = f.votes[k].weight, &s = score[t];
      bool first = !voted[t];
      if (aggregate == Aggregate::minimum)
        s = first ? w : std::min(s, w);
      else if (aggregate == Aggregate::maximum)
        s = first ? w : std::max(s, w);
      else
        s += w;
      voted[t] = true;
    }
  }
  if (aggregate == Aggregate::average && !f.roots.empty())
    for (double& s : score) s /= double(f.roots.size());
  return score;
}

Result<Rows> features_of(const Eval& e, const Forest& f, int64_t targets) {
  Rows x = AI_VMM_TAKE(rows_of(e, e.in(0)));
  AI_VMM_TRY(check(e, f, x.width, targets));
  if (f.round_to_float)
    for (double& v : x.values) v = float(v);
  return x;
}

// ---------------------------------------------------------------- regression

Status regress(Eval& e, const Forest& f, int64_t targets, Aggregate aggregate, PostTransform transform,
               const std::vector<double>& base, DType dtype) {
  if (targets < 1 || targets > (int64_t(1) << 31)) return e.error("n_targets is " + std::to_string(targets) + ".");
  if (!base.empty() && int64_t(base.size()) != targets)
    return e.error("there are " + std::to_string(base.size()) + " base values for " + std::to_string(targets) +
                   " targets.");
  Rows x = AI_VMM_TAKE(features_of(e, f, targets));
  Tensor* y = AI_VMM_TAKE(e.make(0, dtype, {x.count, targets}));
  std::vector<double> all;
  std::vector<bool> voted;
  for (int64_t r = 0; r < x.count; ++r) {
    std::vector<double> score = judge(f, x.row(r), targets, aggregate, voted);
    for (size_t t = 0; t < base.size(); ++t) score[t] += base[t];
    write_scores(transform, SecondClass::none, score);
    all.insert(all.end(), score.begin(), score.end());
  }
  ref::store(*y, all);
  return {};
}

Status infer_regressor(Infer& c) {
  c.set(0, DType::f32, {rows_dim(c), Dim(c.node.i("n_targets", 1))});
  return {};
}
Status eval_regressor(Eval& e) {
  std::string name = e.node.s("aggregate_function", "SUM");
  static constexpr std::pair<const char*, Aggregate> kNames[] = {{"AVERAGE", Aggregate::average},
                                                                 {"SUM", Aggregate::sum},
                                                                 {"MIN", Aggregate::minimum},
                                                                 {"MAX", Aggregate::maximum}};
  auto it = std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& n) { return name == n.first; });
  if (it == std::end(kNames)) return e.error("aggregate_function \"" + name + "\" is none of AVERAGE, SUM, MIN, MAX.");
  PostTransform transform = AI_VMM_TAKE(post_transform(e));
  Forest f = AI_VMM_TAKE(read_pairs(e, "target"));
  return regress(e, f, e.node.i("n_targets", 1), it->second, transform, numbers(e.node, "base_values"), DType::f32);
}

Status infer_ensemble(Infer& c) {
  c.set(0, c.dtype(0), {rows_dim(c), Dim(c.node.i("n_targets", 1))});
  return {};
}
Status eval_ensemble(Eval& e) {
  int64_t aggregate = e.node.i("aggregate_function", 1), transform = e.node.i("post_transform", 0);
  if (aggregate < 0 || aggregate > 3 || transform < 0 || transform > 4)
    return e.error("aggregate_function or post_transform is not known.");
  Forest f = AI_VMM_TAKE(read_split(e));
  return regress(e, f, e.node.i("n_targets", 1), Aggregate(aggregate), PostTransform(transform), {}, e.in(0).dtype());
}

// ---------------------------------------------------------------- classification

DType label_type(const Node& node) { return node.strings("classlabels_strings").empty() ? DType::i64 : DType::string; }

Status infer_classifier(Infer& c) {
  Dim n = rows_dim(c);
  c.set(0, label_type(c.node), {n});
  size_t labels = labels_of(c.node, "classlabels_int64s", "classlabels_strings").size();
  c.set(1, DType::f32, {n, Dim(int64_t(labels))});
  return {};
}

Status eval_classifier(Eval& e) {
  PostTransform transform = AI_VMM_TAKE(post_transform(e));
  Labels labels = labels_of(e.node, "classlabels_int64s", "classlabels_strings");
  int64_t classes = int64_t(labels.size());
  if (classes < 1) return e.error("it has no class labels.");
  Forest f = AI_VMM_TAKE(read_pairs(e, "class"));
  Rows x = AI_VMM_TAKE(features_of(e, f, classes));
  auto base = numbers(e.node, "base_values");
  if (int64_t(base.size()) > classes) return e.error("there are more base values than classes.");
  // Two classes may be scored by one number, when all votes are for the same class: above 0, or above 1/2 where the
  // votes are not negative, it stands for the second class.
  auto ids = e.node.ints("class_ids");
  bool one_score = classes == 2 && base.size() < 2 && !ids.empty() &&
                   std::all_of(ids.begin(), ids.end(), [&](int64_t i) { return i == ids[0]; });
  std::vector<bool> voted;
  bool positive = std::all_of(f.votes.begin(), f.votes.end(), [](const Vote& v) { return v.weight >= 0; });
  Tensor* y = AI_VMM_TAKE(e.make(0, label_type(e.node), {x.count}));
  Tensor* z = AI_VMM_TAKE(e.make(1, DType::f32, {x.count, classes}));
  std::vector<double> all;
  for (int64_t r = 0; r < x.count; ++r) {
    std::vector<double> s = judge(f, x.row(r), classes, Aggregate::sum, voted);
    for (size_t k = 0; k < base.size(); ++k) {
      s[k] += base[k];
      voted[k] = true;
    }
    SecondClass second = SecondClass::none;
    // As in ONNX Runtime, a class that nothing voted for does not win over negative scores, and of two classes the
    // second wins when its score is above 0.
    int64_t label = 0;
    if (classes == 2 && base.empty() && voted[1])
      label = s[1] > 0;
    else
      for (int64_t k = 1; k < classes; ++k)
        if (voted[size_t(k)] && (!voted[size_t(label)] || s[size_t(k)] > s[size_t(label)])) label = k;
    if (one_score) {
      label = s[size_t(ids[0])] > (positive ? 0.5 : 0);
      if (ids[0] == 0) {
        s.resize(1);
        second = positive ? SecondClass::complement : SecondClass::negation;
      }
    }
    set_label(*y, r, labels, label);
    write_scores(transform, second, s);
    s.resize(size_t(classes));
    all.insert(all.end(), s.begin(), s.end());
  }
  ref::store(*z, all);
  return {};
}

Cost cost_trees(const CostQuery& q) {
  // A walk of about log2 of a tree's nodes in every tree.
  double nodes = double(q.node.ints("nodes_featureids").size()),
         width = q.shape_in(0).empty() ? 1 : double(q.shape_in(0).back());
  auto ids = q.node.ints("nodes_treeids");
  std::sort(ids.begin(), ids.end());
  double trees = double(std::max<size_t>(1, std::max<size_t>(size_t(std::unique(ids.begin(), ids.end()) - ids.begin()),
                                                             q.node.ints("tree_roots").size())));
  return {.flops = q.elements_in(0) / std::max(1.0, width) * trees * 2 * std::log2(2 + nodes / trees)};
}

#define NODES                                                                                                \
  "nodes_falsenodeids:ints, nodes_featureids:ints, nodes_hitrates:floats, nodes_hitrates_as_tensor:tensor, " \
  "nodes_missing_value_tracks_true:ints, nodes_modes:strings, "                                              \
  "nodes_nodeids:ints, nodes_treeids:ints, nodes_truenodeids:ints, nodes_values:floats, "                    \
  "nodes_values_as_tensor:tensor, post_transform:string=NONE, base_values:floats, "                          \
  "base_values_as_tensor:tensor, "
const OpDef kOps[] = {
    {"TreeEnsembleRegressor", "ai.onnx.ml", 5, "X:T -> Y:f32 | T: f32 f64 i64 i32",
     NODES "aggregate_function:string=SUM, n_targets:int=1, target_ids:ints, target_nodeids:ints, target_treeids:ints, "
           "target_weights:floats, target_weights_as_tensor:tensor",
     "Walks every tree from its root to a leaf and joins the leaves' weights for each target by sum, average, minimum "
     "or maximum, plus a base value.",
     kNoTrait, infer_regressor, cost_trees, eval_regressor},
    {"TreeEnsembleClassifier", "ai.onnx.ml", 5, "X:T -> Y:L, Z:f32 | T: f32 f64 i64 i32, L: string i64",
     NODES "class_ids:ints, class_nodeids:ints, class_treeids:ints, class_weights:floats, "
           "class_weights_as_tensor:tensor, classlabels_int64s:ints, classlabels_strings:strings",
     "Sums the votes of every tree's leaf for each class: the label with most, and all scores after a transform. Two "
     "classes may share one score.",
     kNoTrait, infer_classifier, cost_trees, eval_classifier},
    {"TreeEnsemble", "ai.onnx.ml", 5, "X:T -> Y:T | T: f32 f64 f16",
     "aggregate_function:int=1, leaf_targetids:ints!, leaf_weights:tensor!, membership_values:tensor, n_targets:int=1, "
     "nodes_falseleafs:ints!, nodes_falsenodeids:ints!, nodes_featureids:ints!, "
     "nodes_hitrates:tensor, nodes_missing_value_tracks_true:ints, nodes_modes:tensor!, nodes_splits:tensor!, "
     "nodes_trueleafs:ints!, nodes_truenodeids:ints!, post_transform:int=0, tree_roots:ints!",
     "Like TreeEnsembleRegressor, with inner nodes and leaves in separate lists and with nodes that test membership in "
     "a set.",
     kNoTrait, infer_ensemble, cost_trees, eval_ensemble},
};

}  // namespace

std::span<const OpDef> ml_trees_ops() { return kOps; }

}  // namespace ai_vmm
