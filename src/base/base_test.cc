// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include "base/bounded_queue.h"
#include "base/checked_math.h"
#include "base/hash.h"
#include "base/json_escape.h"
#include "base/mapped_file.h"
#include "base/metrics.h"
#include "base/numeric.h"
#include "base/quick_thread.h"
#include "base/result.h"

namespace puna {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error(ErrorCode::kInvalidArgument, "{} is odd", value);
  return value / 2;
}

Result<int> quarter(int value) {
  ASSIGN_OR_RETURN(const int once, half(value));
  return half(once);
}

TEST(Result, PropagatesValueAndError) {
  EXPECT_EQ(*quarter(12), 3);
  ASSERT_FALSE(quarter(6).ok());
  EXPECT_EQ(quarter(6).error().message(), "3 is odd");
  EXPECT_EQ(quarter(6).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(quarter(6).error().message(), "3 is odd");
  EXPECT_EQ(Error(ErrorCode::kIo, "gone").with_context("a.gguf").message(), "a.gguf: gone");
}

TEST(Hash, IsFnv1aOfItsAuthorsTestVectors) {
  EXPECT_EQ(fnv1a(""), 0xCBF29CE484222325U);
  EXPECT_EQ(fnv1a("a"), 0xAF63DC4C8601EC8CU);
  EXPECT_EQ(fnv1a("foobar"), 0x85944171F73967E8U);
}

TEST(JsonEscape, IsTheShortOneWhereThereIsOne) {
  std::string out;
  for (int c = 0; c < 0x80; ++c) {
    if (needs_json_escape(static_cast<char>(c))) append_json_escape(out, static_cast<char>(c));
  }
  EXPECT_EQ(
      out,
      "\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f"
      "\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016\\u0017\\u0018\\u0019\\u001a\\u001b\\u001c"
      "\\u001d\\u001e\\u001f\\\"\\\\");
}

TEST(CheckedMath, RefusesOverflow) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(checked_add(kMax, 1));
  EXPECT_FALSE(checked_mul(kMax / 2, 3));
  EXPECT_FALSE(checked_align_up(kMax, 32));
  EXPECT_EQ(*checked_align_up(33, 32), 64U);
  EXPECT_EQ(ceil_div(33, 16), 3);
}

TEST(Numeric, EveryFloat16RoundTrips) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half_value{static_cast<uint16_t>(bits)};
    const float value = to_float(half_value);
    if (std::isnan(value)) continue;
    EXPECT_EQ(to_float16(value).bits, half_value.bits) << bits;
#ifdef __FLT16_MANT_DIG__
    EXPECT_EQ(value, static_cast<float>(std::bit_cast<_Float16>(half_value.bits))) << bits;
#endif
  }
}

TEST(Numeric, RoundsToNearestEven) {
  EXPECT_EQ(to_float16(65519.0F).bits, 0x7BFF);
  EXPECT_EQ(to_float16(65520.0F).bits, 0x7C00);
  EXPECT_EQ(to_float16(1.0F + 0x1p-11F).bits, 0x3C00);      // tie goes to even
  EXPECT_EQ(to_float16(1.0F + 3 * 0x1p-11F).bits, 0x3C02);  // tie goes to even, upwards
  EXPECT_EQ(to_float16(0x1p-25F).bits, 0);                  // tie between 0 and the least subnormal
  EXPECT_EQ(to_bfloat16(1.0F + 0x1p-8F).bits, 0x3F80);
  EXPECT_EQ(to_bfloat16(1.0F + 3 * 0x1p-8F).bits, 0x3F82);
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isnan(to_float(to_float16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(BoundedQueue, RefusesWhenFullAndKeepsOrder) {
  BoundedQueue<int> queue(4);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(queue.try_push(int{i}));
  EXPECT_FALSE(queue.try_push(4));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(queue.try_pop(), i);
  EXPECT_EQ(queue.try_pop(), std::nullopt);
}

TEST(BoundedQueue, LosesNothingBetweenThreads) {
  constexpr int kProducers = 3;
  constexpr int kEach = 10'000;
  BoundedQueue<int> queue(64);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&queue] {
      for (int i = 1; i <= kEach; ++i) {
        while (!queue.try_push(int{i})) std::this_thread::yield();
      }
    });
  }
  int64_t sum = 0;
  for (int received = 0; received < kProducers * kEach;) {
    if (auto value = queue.try_pop()) {
      sum += *value;
      ++received;
    } else {
      std::this_thread::yield();
    }
  }
  for (auto& producer : producers) producer.join();
  EXPECT_EQ(sum, int64_t{kProducers} * kEach * (kEach + 1) / 2);
}

TEST(Histogram, BucketsByUpperBound) {
  static constexpr double kBounds[] = {1, 2, 4};
  Histogram histogram(kBounds);
  for (const double value : {0.5, 1.0, 1.5, 4.0, 9.0}) histogram.observe(value);
  EXPECT_EQ(histogram.count(0), 2U);
  EXPECT_EQ(histogram.count(1), 1U);
  EXPECT_EQ(histogram.count(2), 1U);
  EXPECT_EQ(histogram.count(3), 1U);
  EXPECT_DOUBLE_EQ(histogram.sum(), 16.0);
}

TEST(QuickThread, HasWhatTheKernelGives) {
  const auto self = [] { return static_cast<id_t>(gettid()); };
  bool may_be_nice = false;
  std::thread([&] { may_be_nice = setpriority(PRIO_PROCESS, self(), kQuickNice) == 0; }).join();
  std::thread([&] {
    const uint64_t usual_slice_ns = asked_slice_ns();
    const int usual_nice = getpriority(PRIO_PROCESS, self());
    ASSERT_TRUE(make_thread_quick());
    EXPECT_EQ(asked_slice_ns(), usual_slice_ns == 0 ? 0 : kQuickSliceNs);
    const int nice = getpriority(PRIO_PROCESS, self());
    EXPECT_EQ(nice, may_be_nice ? std::min(usual_nice, kQuickNice) : usual_nice);
  }).join();
}

TEST(MappedFile, ReadsBytesAndNamesWhatIsMissing) {
  const std::string path = ::testing::TempDir() + "/mapped_file_test.bin";
  std::ofstream(path, std::ios::binary) << "puna";
  auto file = MappedFile::open(path);
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(file->size(), 4U);
  EXPECT_EQ(static_cast<char>(file->bytes()[3]), 'a');
  std::remove(path.c_str());

  auto missing = MappedFile::open(path);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message().find(path), std::string::npos);
  EXPECT_EQ(MappedFile::open("/").error().code(), ErrorCode::kIo);
}

}  // namespace
}  // namespace puna
