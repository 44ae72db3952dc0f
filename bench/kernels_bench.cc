// SPDX-License-Identifier: Apache-2.0
// Kernels beside the machine's roof: GB/s of weights read and GFLOP/s, per op, weight type, rows
// and instruction set. See README.md.
#include <benchmark/benchmark.h>

#include <cmath>
#include <numeric>
#include <string>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/test_blocks.h"

namespace puna::kernels {
namespace {

// Llama-3-8B's attention output: [4096, 4096].
constexpr int64_t kSize = 4096;

void report(benchmark::State& state, double bytes, double flops) {
  const auto runs = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * runs * 1e-9, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(flops * runs * 1e-9, Counter::kIsRate);
}

void matmul(benchmark::State& state, std::string_view isa, formats::TensorType type, int32_t rows,
            int32_t threads) {
  const auto ops = make_cpu_ops(isa).value();
  const auto pool = ThreadPool::create(threads).value();
  const RandomWeights weights(type, kSize, kSize, 1);
  const MatrixPart part = weights.part();
  const auto matrix = ops->pack({&part, 1}, 128).value();
  RowBuffer x = RowBuffer::random(rows, kSize, 2);
  RowBuffer out(rows, kSize);
  for (auto _ : state) {
    pool->run([&](Lane& lane) { ops->matmul(lane, x.activations(), rows, *matrix, out.floats()); });
  }
  report(state, static_cast<double>(part.data.size()), 2.0 * rows * kSize * kSize);
}

// One query row after `context` positions, or a chunk of 256 rows that ends there; Llama-3-8B's
// heads.
void attention(benchmark::State& state, std::string_view isa, KvType type, int32_t rows,
               int32_t context, int32_t threads) {
  const auto ops = make_cpu_ops(isa).value();
  const auto pool = ThreadPool::create(threads).value();
  const KvShape shape{.num_layers = 1,
                      .num_blocks = context / kKvBlockTokens,
                      .num_heads = 32,
                      .num_kv_heads = 8,
                      .head_dim = 128,
                      .type = type};
  const Buffer memory = ops->allocate(ops->kv_bytes(shape), "bench").value();
  std::vector<int32_t> table(static_cast<size_t>(shape.num_blocks));
  std::iota(table.begin(), table.end(), 0);
  RowBuffer q = RowBuffer::random(rows, 32 * 128, 3);
  RowBuffer out(rows, 32 * 128);
  const SequenceRows sequence{0, rows, context - rows, table.data()};
  for (auto _ : state) {
    pool->run([&](Lane& lane) {
      ops->attention(lane, q.floats(), {&sequence, 1}, {shape, memory.data()}, 0,
                     out.activations());
    });
  }
  const double seen = context - 0.5 * (rows - 1);  // positions per row, on average
  report(state, static_cast<double>(memory.bytes()), 4.0 * rows * seen * 32 * 128);
}

void norm(benchmark::State& state, std::string_view isa, int32_t rows) {
  const auto ops = make_cpu_ops(isa).value();
  RowBuffer x = RowBuffer::random(rows, kSize, 4);
  RowBuffer weight = RowBuffer::random(1, kSize, 5);
  RowBuffer out(rows, kSize);
  Lane lane;
  for (auto _ : state) {
    ops->rms_norm(lane, x.floats(), {}, rows, weight.floats().data, 1e-5F, out.activations());
  }
  report(state, 8.0 * rows * kSize, 4.0 * rows * kSize);
}

// Bytes a second that `threads` threads read from memory far larger than the caches.
void read_roof(benchmark::State& state, int32_t threads) {
  const auto pool = ThreadPool::create(threads).value();
  std::vector<uint64_t> memory(size_t{256} << 17, 1);  // 256 MiB
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  for (auto _ : state) {
    pool->run([&](Lane& lane) {
      const Lane::Range share = lane.share(static_cast<int64_t>(memory.size()));
      uint64_t sum[8] = {};
      for (int64_t i = share.begin; i + 8 <= share.end; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sum[j] ^= memory[static_cast<size_t>(i + j)];
      }
      sums[static_cast<size_t>(lane.index()) * 8] = std::accumulate(sum, sum + 8, uint64_t{0});
    });
    benchmark::DoNotOptimize(sums.data());
  }
  report(state, static_cast<double>(memory.size() * sizeof(uint64_t)), 0.0);
}

// Multiply-adds a second of the ISA's largest register tile on rows that stay in the first-level
// cache.
void fma_roof(benchmark::State& state, const MicroKernels& kernels, int32_t threads) {
  const auto pool = ThreadPool::create(threads).value();
  constexpr int kRepeat = 1000;
  constexpr int64_t kDepth = 256;
  for (auto _ : state) {
    pool->run([&](Lane&) {
      alignas(64) float rows[10 * (kDepth + 16)] = {};
      alignas(64) float out[4 * 16];
      for (int i = 0; i < kRepeat; ++i) {
        kernels.dot_tile({.a = rows,
                          .a_stride = kDepth + 16,
                          .m = 4,
                          .w = rows + 4 * (kDepth + 16),
                          .w_stride = kDepth + 16,
                          .n = 6,
                          .depth = kDepth,
                          .c = out,
                          .c_stride = 16});
      }
      benchmark::DoNotOptimize(out);
    });
  }
  report(state, 0.0, 2.0 * kRepeat * 4 * 6 * kDepth * threads);
}

void add_isa(std::string_view isa, int32_t threads) {
  const std::string name(isa);
  const std::string suffix = "/threads:" + std::to_string(threads);
  const auto add = [&](const std::string& label, auto function) {
    benchmark::RegisterBenchmark((label + suffix).c_str(), function)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  };
  const MicroKernels& kernels = isa == "avx512" ? avx512_kernels() : avx2_kernels();
  add("roof/fma/" + name,
      [&kernels, threads](benchmark::State& s) { fma_roof(s, kernels, threads); });
  for (const formats::TensorType type : kAllTypes) {
    for (const int32_t rows : {1, 2, 4, 8, 16, 64, 256}) {
      add("matmul/" + name + "/" + std::string(formats::tensor_type_name(type)) +
              "/M:" + std::to_string(rows),
          [=](benchmark::State& s) { matmul(s, isa, type, rows, threads); });
    }
  }
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    const std::string kv = type == KvType::kF32 ? "/kv_f32" : "/kv_f16";
    for (const int32_t rows : {1, 256}) {
      for (const int32_t context : {512, 4096}) {
        add("attention/" + name + kv + "/M:" + std::to_string(rows) +
                "/context:" + std::to_string(context),
            [=](benchmark::State& s) { attention(s, isa, type, rows, context, threads); });
      }
    }
  }
  add("rms_norm/" + name + "/M:64", [=](benchmark::State& s) { norm(s, isa, 64); });
}

void add_all() {
  const int32_t cpus = usable_cpus();
  benchmark::RegisterBenchmark(("roof/read/threads:" + std::to_string(cpus)).c_str(),
                               [=](benchmark::State& s) { read_roof(s, cpus); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
  for (const std::string_view isa : available_isas()) {
    if (isa != "reference") add_isa(isa, cpus);
  }
}

}  // namespace
}  // namespace puna::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  puna::kernels::add_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
