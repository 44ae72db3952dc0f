// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/machine_roof.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/clock.h"

namespace puna::kernels {
namespace {

constexpr TimeNs kMeasureNs = 150 * kNsPerMs;
constexpr TimeNs kSliceNs = 10 * kNsPerMs;
// So much that what a last-level cache keeps of it from pass to pass does not count: 256 MiB read
// half as fast again on a host whose guests see 32 MiB of a larger cache.
constexpr uint64_t kReadBytes = uint64_t{1} << 30;
constexpr int64_t kReadGranule = 512;

// Results end here, so that no loop is dead code.
std::atomic<uint64_t> g_sink{0};
void keep(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  g_sink.fetch_xor(bits, std::memory_order_relaxed);
}

TimeNs now_ns() { return SteadyClock().now_ns(); }

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Median of work / seconds over calls of `slice`, for as long as a measurement takes.
template <typename Slice>
double rate(double work, const Slice& slice) {
  std::vector<double> rates;
  const TimeNs end = now_ns() + kMeasureNs;
  TimeNs before = now_ns();
  do {
    slice();
    const TimeNs after = now_ns();
    rates.push_back(work / (static_cast<double>(after - before) * 1e-9));
    before = after;
  } while (before < end);
  return median(rates);
}

// Portable code, as the compiler makes it.
double scalar_int8(int64_t rounds) {
  std::array<int32_t, 16> sums{};
  volatile uint8_t factor = 3;
  const auto value = static_cast<int32_t>(factor);
  for (int64_t round = 0; round < rounds; ++round) {
    for (int32_t& sum : sums) sum = (sum & 127) * value + value;
  }
  int32_t total = 0;
  for (const int32_t sum : sums) total ^= sum;
  return static_cast<double>(total);
}

double scalar_f32(int64_t rounds) {
  std::array<float, 16> sums{};
  volatile float factor = 0.5F;
  const float value = factor;
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = sum * value + value;
  }
  float total = 0;
  for (const float sum : sums) total += sum;
  return static_cast<double>(total);
}

uint64_t scalar_read(const std::byte* data, int64_t bytes) {
  std::array<uint64_t, 8> seen{};
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(sizeof seen)) {
    std::array<uint64_t, 8> line;
    std::memcpy(line.data(), data + at, sizeof line);
    for (size_t i = 0; i < line.size(); ++i) seen[i] ^= line[i];
  }
  uint64_t total = 0;
  for (const uint64_t value : seen) total ^= value;
  return total;
}

constexpr RoofKernels kScalar = {
    .int8 = {scalar_int8, 32}, .bf16 = {}, .f32 = {scalar_f32, 32}, .read = scalar_read};

Result<Buffer> memory_to_read() {
  void* memory =
      ::mmap(nullptr, kReadBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Error(ErrorCode::kResourceExhausted,
                 "no memory to measure the read bandwidth with: {} MiB", kReadBytes >> 20);
  }
  ::madvise(memory, kReadBytes, MADV_HUGEPAGE);
  std::memset(memory, 1, kReadBytes);  // else every page is the kernel's one page of zeros
  return Buffer(static_cast<std::byte*>(memory), kReadBytes,
                [](std::byte* data, uint64_t bytes) { ::munmap(data, bytes); });
}

}  // namespace

const RoofKernels& roof_kernels(std::string_view isa) {
#if defined(__x86_64__)
  if (isa == "avx512_bf16") return avx512_bf16_roof_kernels();
  if (isa == "avx512") return avx512_roof_kernels();
  if (isa == "avx2") return avx2_roof_kernels();
#endif
  return kScalar;
}

MachineRoof higher(const MachineRoof& a, const MachineRoof& b) {
  return {
      .read_gb_per_s = std::max(a.read_gb_per_s, b.read_gb_per_s),
      .read_gb_per_s_one_thread = std::max(a.read_gb_per_s_one_thread, b.read_gb_per_s_one_thread),
      .int8_gop_per_s = std::max(a.int8_gop_per_s, b.int8_gop_per_s),
      .bf16_gflop_per_s = std::max(a.bf16_gflop_per_s, b.bf16_gflop_per_s),
      .f32_gflop_per_s = std::max(a.f32_gflop_per_s, b.f32_gflop_per_s)};
}

Result<std::unique_ptr<RoofMeter>> RoofMeter::create(std::string_view isa, int32_t threads) {
  ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::create(threads));
  ASSIGN_OR_RETURN(Buffer memory, memory_to_read());
  return std::unique_ptr<RoofMeter>(
      new RoofMeter(roof_kernels(isa), std::move(pool), std::move(memory)));
}

MachineRoof RoofMeter::measure() {
  return {.read_gb_per_s = read_gb_per_s(),
          .read_gb_per_s_one_thread = read_gb_per_s_one_thread(),
          .int8_gop_per_s = operations_per_s(kernels_.int8) * 1e-9,
          .bf16_gflop_per_s = operations_per_s(kernels_.bf16) * 1e-9,
          .f32_gflop_per_s = operations_per_s(kernels_.f32) * 1e-9};
}

double RoofMeter::read_gb_per_s() {
  const auto granules = static_cast<int64_t>(memory_.bytes()) / kReadGranule;
  return rate(static_cast<double>(memory_.bytes()) * 1e-9, [&] {
    pool_->run([&](Lane& lane) {
      const Lane::Range mine = lane.share(granules);
      keep(static_cast<double>(kernels_.read(memory_.data() + mine.begin * kReadGranule,
                                             (mine.end - mine.begin) * kReadGranule)));
    });
  });
}

double RoofMeter::read_gb_per_s_one_thread() {
  return rate(static_cast<double>(memory_.bytes()) * 1e-9, [&] {
    keep(static_cast<double>(kernels_.read(memory_.data(), static_cast<int64_t>(memory_.bytes()))));
  });
}

double RoofMeter::operations_per_s(const RoofKernels::Arithmetic& arithmetic) {
  if (arithmetic.run == nullptr) return 0;
  int64_t rounds = 1024;
  const auto slice = [&] { pool_->run([&](Lane&) { keep(arithmetic.run(rounds)); }); };
  for (;;) {
    const TimeNs before = now_ns();
    slice();
    if (now_ns() - before >= kSliceNs) break;
    rounds *= 2;
  }
  return rate(static_cast<double>(rounds) * arithmetic.operations * pool_->size(), slice);
}

}  // namespace puna::kernels
