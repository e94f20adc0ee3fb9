// What a sensor said: a number, or the reason why there is none. Unknown is not zero.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ai_vmm/types.hpp"

namespace ai_vmm::telemetry {

class [[nodiscard]] Reading {
 public:
  Reading() = default;
  Reading(double value) : value_(value), known_(true) {}  // NOLINT: a number is a reading
  static Reading unknown(std::string why) {
    Reading r;
    r.why_ = std::move(why);
    return r;
  }
  bool known() const { return known_; }
  double value() const;  // CHECKs that it is known
  double value_or(double fallback) const { return known_ ? value_ : fallback; }
  const std::string& why() const { return why_; }  // "" when known

 private:
  double value_ = 0;
  bool known_ = false;
  std::string why_ = "not read";
};

// The value where it is known, otherwise that of `other`.
inline Reading first_known(Reading one, Reading other) { return one.known() ? std::move(one) : std::move(other); }

// Turns a counter into a rate per second. Unknown at the first look, after a reset (the counter went back) and when no
// time has passed.
class Rate {
 public:
  Reading at(const Reading& counter, int64_t now_ns);

 private:
  bool started_ = false;
  double last_ = 0;
  int64_t last_ns_ = 0;
};

// Where the kernel's files are. Tests put trees of their own there.
struct Roots {
  std::string sys = "/sys", proc = "/proc";
};

// The text of a file of the kernel, at most 64 KiB of it, without the last line end.
Result<std::string> read_text(const std::string& path);
// Its first word as a number: decimal, or hexadecimal after 0x.
Reading read_number(const std::string& path);
Reading number_of(std::string_view text);
// The names in a folder, sorted; empty when it cannot be read.
std::vector<std::string> names_in(const std::string& folder);
std::string link_target_name(const std::string& path);  // the last part of where a link leads; "" for none

}  // namespace ai_vmm::telemetry
