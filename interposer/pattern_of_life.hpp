// The pattern of life of a program's allocations: which sizes it will need in its next step, and for how long a freed
// block is worth keeping. Memory is bounded and constant, an observation costs O(64), nothing is allocated.
//
// Two predictors learn side by side: exact sizes (the 64 that matter most, by space-saving counts) and a kernel density
// over the logarithm of sizes (400 bins, 8 a doubling). Both predict every step in the shadow, are scored against what
// the step then needed, and the better one is used, once it has gained more than it wasted; otherwise none is.
//
// Not thread-safe: the pool's own lock holds callers apart.
#pragma once

#include <cstddef>
#include <cstdint>

namespace AIRamp::Interposer {

enum class ObsKind : uint8_t {
  allocate,
  release,
  boundary,  // the caller knows that a step of the program ends here; without any, steps are found by themselves
};

struct Obs {
  int64_t time_ns;  // of a steady clock
  uint64_t bytes;   // of the request; 0 at a boundary
  ObsKind kind;
};

// A block serves a request if it is at most an eighth of the request larger: in the pool, and in the engine's
// reckoning.
constexpr bool block_fits(uint64_t block, uint64_t request) {
  return block >= request && block - request <= request / 8;
}

// Blocks that will be needed: `count` of at least `bytes`, in all of the rest of this step.
struct Need {
  uint64_t bytes;
  uint32_t count;
};

enum class Predictor : uint8_t { none, exact, density };

class PatternOfLife {
 public:
  static constexpr int kSizes = 64, kBins = 400, kBinsPerDoubling = 8;

  void observe(const Obs& obs);

  // The bin of a size, and the size of a block that serves all of a bin: at most 2^(1/8) = 1.09 times the request.
  static int bin_of(uint64_t bytes);
  static uint64_t bin_block(int bin);

  // What the rest of this step will need, largest gain first, `budget` bytes at most. 0 while no predictor has proven
  // itself, or while pre-warming is braked. The caller subtracts what its cache holds.
  int predict(uint64_t budget, Need* out, int most) const;

  // What a whole step needs by exact sizes, less what the program holds of them now: called where a step ends, or while
  // the program waits, to have the next one's blocks ready. 0 unless exact sizes are what is used.
  int predict_next(uint64_t budget, Need* out, int most) const;

  // What one of them would say, whatever its score; for comparison.
  int predict_by(Predictor predictor, uint64_t budget, Need* out, int most) const;

  // How long a freed block of this size should be kept, given the pool's own time to live: longer where the program is
  // known to come back to the size later than that, never shorter. At most kMostKeepNs.
  int64_t keep_ns(uint64_t bytes, int64_t time_to_live_ns) const;
  static constexpr int64_t kMostKeepNs = 900'000'000'000;

  // What became of blocks that were pre-warmed. While more than `waste_permille` of their bytes goes unused, `predict`
  // gives nothing; the memory of waste fades with each step.
  void prewarm_used(uint64_t bytes) { real_used_ += double(bytes); }
  void prewarm_unused(uint64_t bytes) { real_unused_ += double(bytes); }
  void set_waste_permille(int64_t permille) { waste_limit_ = double(permille) * 1e-3; }
  bool braked() const;

  Predictor in_use() const { return in_use_; }
  // Of the last steps, in the shadow: share of needs that were predicted, and share of predicted bytes that nothing
  // used.
  double hit_rate(Predictor predictor) const;
  double waste_rate(Predictor predictor) const;
  // The time from step to step; 0 while none was found.
  int64_t period_ns() const;
  uint64_t steps() const { return steps_; }
  // One sentence on what is used and why, into `text`.
  void explain(char* text, size_t capacity) const;

 private:
  // What is known of a size, or of a bin: how often steps need it, and how many then. A step needs a block for each
  // allocation that no block which the step itself has freed can serve.
  struct Habit {
    uint32_t freed = 0, need = 0;  // in this step so far
    uint32_t predicted = 0;        // needs of this step, as foreseen at its start
    uint32_t steps = 0;            // seen so far
    uint32_t last = 0, same = 0;   // what the last step needed, and how many before it needed as many
    float presence = 0.25f;        // share of steps that need it, decayed; starts as a doubt
    float level = 0;               // how many a step needs, decayed

    void allocate() { freed ? --freed : ++need; }
    void release() { ++freed; }
    void end_step();
  };
  struct Size {
    uint64_t bytes = 0;
    float weight = 0;
    Habit habit;
    uint32_t live = 0;
    uint64_t last_event = 0;
    uint32_t seen = 0;
    float gap = 0, gap_deviation = 0;  // events from one allocation to the next
    float interval_ns = 0;
    float company = 0;  // blocks that are live when it is allocated
    int64_t last_ns = 0, last_release_ns = 0;
    uint64_t lender = 0;  // the size whose freed block serves requests of this one, and how many it does
    uint32_t borrowed = 0;
    uint8_t idle[32] = {};  // times from a release to the next allocation, by powers of two of microseconds
  };
  struct Score {
    double hits = 0, needs = 0, predicted_bytes = 0, unused_bytes = 0;  // decayed
    double hit_rate() const { return needs > 0 ? hits / needs : 0; }
    double waste_rate() const { return predicted_bytes > 0 ? unused_bytes / predicted_bytes : 0; }
    double value() const { return hit_rate() - waste_rate(); }
    void add(uint32_t need, uint32_t predicted, double bytes);
    void fade();
  };

  int find(uint64_t bytes) const;
  int insert(uint64_t bytes);
  void allocate(const Obs& obs);
  void serve(int size);
  void end_step();
  void choose_anchor();
  void choose_predictor();
  double density(int bin) const;

  // Sizes apart from the rest, so that a look-up walks over 512 bytes.
  uint64_t keys_[kSizes] = {};
  Size sizes_[kSizes];
  Habit bins_[kBins];
  int used_ = 0;
  uint32_t live_ = 0;
  uint64_t event_ = 0, step_start_event_ = 0, steps_ = 0;
  bool boundaries_given_ = false;
  int anchor_ = -1;  // the size whose recurrence marks the steps
  Score exact_, density_;
  uint32_t lost_needs_ = 0;  // of sizes that lost their place in this step
  double real_used_ = 0, real_unused_ = 0, waste_limit_ = 0.5;
  Predictor in_use_ = Predictor::none;
};

}  // namespace AIRamp::Interposer
