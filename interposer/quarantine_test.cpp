#include "quarantine.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace AIRamp::Interposer {
namespace {

// A driver whose streams end when the test says so.
struct Streams {
  std::uintptr_t here = 1;
  std::map<void*, void*> recorded;  // event: stream
  std::set<void*> busy;             // streams whose work has not ended
  std::map<void*, int> number;      // event: which record it was
  int records = 0, ended = 1000;    // records up to this one may have ended
  std::size_t made = 0, dropped = 0;
  int failing = 0;
} streams;

DeviceDriver driver() {
  streams = {};
  DeviceDriver d = {};
  d.not_ready = 600;
  d.here = [] { return streams.here; };
  d.make_event = [](void** event) {
    *event = reinterpret_cast<void*>(++streams.made);
    return streams.failing;
  };
  d.drop_event = [](void*) {
    streams.dropped++;
    return 0;
  };
  d.record = [](void* event, void* stream) {
    streams.recorded[event] = stream;
    streams.number[event] = ++streams.records;
    return streams.failing;
  };
  d.query = [](void* event) {
    bool ended = streams.number[event] <= streams.ended && !streams.busy.count(streams.recorded[event]);
    return ended ? streams.failing : 600;
  };
  return d;
}

void* stream(std::uintptr_t number) { return reinterpret_cast<void*>(number); }

TEST(Quarantine, PassesAtOnceWhereNothingWorks) {
  DeviceDriver d = driver();
  Quarantine q(d);
  q.add_stream(stream(10));
  std::uint64_t stamp = q.stamp();
  q.seal(1);
  EXPECT_EQ(streams.recorded.size(), 2u) << "the stream and the default one";
  EXPECT_TRUE(q.passed(1, stamp));
}

TEST(Quarantine, WaitsForEachStreamAndForTheDefaultOne) {
  for (void* busy : {stream(10), stream(11), kLegacyStream}) {
    DeviceDriver d = driver();
    Quarantine q(d);
    q.add_stream(stream(10));
    q.add_stream(stream(11));
    streams.busy = {busy};
    std::uint64_t stamp = q.stamp();
    q.seal(1);
    EXPECT_FALSE(q.passed(1, stamp));
    streams.busy.clear();
    EXPECT_TRUE(q.passed(1, stamp));
  }
}

TEST(Quarantine, FreesShareTheNextRoundOfEvents) {
  DeviceDriver d = driver();
  Quarantine q(d);
  streams.ended = 0;
  std::uint64_t first = q.stamp(), last = 0;
  q.seal(1);
  for (int i = 0; i < 100; i++) {
    last = q.stamp();
    q.seal(1);
  }
  EXPECT_EQ(streams.records, 1);
  EXPECT_FALSE(q.passed(1, first));
  streams.ended = 1;
  EXPECT_FALSE(q.passed(1, last)) << "the first round's events stand before it";
  EXPECT_TRUE(q.passed(1, first));
  EXPECT_EQ(streams.records, 2);
  streams.ended = 2;
  EXPECT_TRUE(q.passed(1, last));
  EXPECT_EQ(streams.made, 1u) << "events are used again";
}

TEST(Quarantine, AStreamThatIsDestroyedAtWorkStillCounts) {
  DeviceDriver d = driver();
  Quarantine q(d);
  q.add_stream(stream(10));
  streams.busy = {stream(10)};
  q.remove_stream(stream(10));
  std::uint64_t stamp = q.stamp();
  q.seal(1);
  EXPECT_FALSE(q.passed(1, stamp));
  streams.busy.clear();
  EXPECT_TRUE(q.passed(1, stamp));
  EXPECT_EQ(streams.dropped, 1u);
}

TEST(Quarantine, DevicesAreApart) {
  DeviceDriver d = driver();
  Quarantine q(d);
  streams.here = 2;
  q.add_stream(stream(20));
  streams.busy = {stream(20)};
  std::uint64_t stamp = q.stamp();
  EXPECT_TRUE(q.passed(1, stamp));
  EXPECT_FALSE(q.passed(2, stamp));
  q.synchronised(2, stamp);
  EXPECT_TRUE(q.passed(2, stamp));
}

TEST(Quarantine, WhatEventsCannotTellIsDoubted) {
  DeviceDriver d = driver();
  {
    Quarantine q(d);
    for (std::uintptr_t i = 0; i < 65; i++) q.add_stream(stream(100 + i));
    EXPECT_FALSE(q.certain());
    std::uint64_t stamp = q.stamp();
    EXPECT_FALSE(q.passed(1, stamp));
    q.synchronised(1, stamp);
    EXPECT_TRUE(q.passed(1, stamp)) << "after the device was synchronised";
  }
  {
    Quarantine q(d);
    streams.failing = 719;
    EXPECT_FALSE(q.passed(1, q.stamp()));
    EXPECT_FALSE(q.certain()) << "a driver in trouble proves nothing";
    streams.failing = 0;
    EXPECT_FALSE(q.passed(1, q.now()));
  }
  {
    Quarantine q(d);
    q.add_stream(stream(10));
    q.forget(1);
    EXPECT_TRUE(q.certain());
    q.forget_all();
    EXPECT_FALSE(q.certain()) << "other devices' streams were forgotten too";
  }
}

}  // namespace
}  // namespace AIRamp::Interposer
