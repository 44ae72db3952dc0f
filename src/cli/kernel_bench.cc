// SPDX-License-Identifier: Apache-2.0
#include "cli/kernel_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

#include "base/checked_math.h"
#include "kernels/random_weights.h"

namespace puna::cli {
namespace {

using kernels::ActivationFormat;
using kernels::Activations;
using kernels::ActivationType;
using kernels::Buffer;
using kernels::FloatRows;
using kernels::KvType;
using kernels::Lane;
using kernels::PackedMatrix;
using kernels::SequenceRows;

// Llama-3-8B's.
constexpr int64_t kHidden = 4096;
constexpr int32_t kHeads = 32;
constexpr int32_t kKvHeads = 8;
constexpr int32_t kHeadDim = 128;

constexpr int32_t kRows[] = {1, 2, 4, 8, 16, 32, 64, 256, 512};
// What calls walk through before they come back to the same bytes: far beyond the caches.
constexpr int64_t kWalkBytes = int64_t{192} << 20;
constexpr TimeNs kMeasureNs = 100 * kNsPerMs;
constexpr int64_t kLeastCalls = 3;
constexpr int64_t kMostCalls = 1000;
// Small ordinary numbers as f32 and as bf16, 60 as int8: nothing overflows.
constexpr int kAnyKey = 0x3C;

std::string case_name(const std::string& op, std::string_view type, int32_t rows) {
  return fmt::format("{}/{}/{}", op, type, rows);
}

// f32 rows that hold the same few values again and again.
Result<Buffer> float_rows(const kernels::Ops& ops, int64_t rows, int64_t columns) {
  const auto count = static_cast<uint64_t>(rows * kernels::padded_columns(columns));
  ASSIGN_OR_RETURN(Buffer memory, ops.allocate(count * sizeof(float), "rows"));
  auto* values = reinterpret_cast<float*>(memory.data());
  for (uint64_t i = 0; i < count; ++i) values[i] = 0.25F * (static_cast<float>(i % 17) - 8);
  return memory;
}

FloatRows as_floats(const Buffer& memory, int64_t columns) {
  return {reinterpret_cast<float*>(memory.data()), columns};
}

std::string_view kv_name(KvType type) {
  if (type == KvType::kF32) return "f32";
  return type == KvType::kBF16 ? "bf16" : "int8";
}

std::string_view format_name(ActivationType type) {
  if (type == ActivationType::kF32) return "f32";
  return type == ActivationType::kBF16 ? "bf16" : "int8";
}

}  // namespace

// The same matrix several times over, each at another place in memory.
struct KernelBench::Matrices {
  std::vector<std::byte> data;  // of all: an implementation may use it in place
  std::vector<std::unique_ptr<PackedMatrix>> packed;
  double bytes = 0;  // of one
  double weights = 0;

  const PackedMatrix& at(int64_t call) const {
    return *packed[static_cast<size_t>(call) % packed.size()];
  }
};

std::vector<int32_t> KernelBench::wanted_rows(const std::string& op, std::string_view type) const {
  std::vector<int32_t> rows;
  std::copy_if(std::begin(kRows), std::end(kRows), std::back_inserter(rows),
               [&](int32_t count) { return filter_(case_name(op, type, count)); });
  return rows;
}

TimeNs KernelBench::time(const Call& call) const {
  const SteadyClock clock;
  std::vector<TimeNs> times;
  int64_t next = 0;
  // As in a step: one fork, and a barrier after each call.
  const auto run = [&](int64_t calls) {
    times.assign(static_cast<size_t>(calls), 0);
    pool_.run([&](Lane& lane) {
      TimeNs before = clock.now_ns();
      for (int64_t i = 0; i < calls; ++i) {
        call(lane, next + i);
        lane.sync();
        if (lane.index() != 0) continue;
        const TimeNs after = clock.now_ns();
        times[static_cast<size_t>(i)] = after - before;
        before = after;
      }
    });
    next += calls;
  };
  run(2);
  const TimeNs once = std::max<TimeNs>(times[1], 1);
  run(std::clamp(kMeasureNs / once, kLeastCalls, kMostCalls));
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

Result<KernelBench::Matrices> KernelBench::pack(formats::TensorType type,
                                                const std::vector<int64_t>& part_rows) const {
  const int64_t rows = std::accumulate(part_rows.begin(), part_rows.end(), int64_t{0});
  const kernels::RandomWeights weights(type, rows, kHidden, 1);
  const std::span<const std::byte> once = weights.part().data;
  const auto copies = static_cast<size_t>(ceil_div(kWalkBytes, std::ssize(once)));
  Matrices matrices;
  matrices.bytes = static_cast<double>(once.size());
  matrices.weights = static_cast<double>(rows * kHidden);
  matrices.data.resize(once.size() * copies);
  for (size_t copy = 0; copy < copies; ++copy) {
    std::byte* data = &matrices.data[copy * once.size()];
    std::memcpy(data, once.data(), once.size());
    std::vector<kernels::MatrixPart> parts;
    for (const int64_t part : part_rows) {
      const size_t bytes = once.size() / static_cast<size_t>(rows) * static_cast<size_t>(part);
      parts.push_back({.type = type, .rows = part, .columns = kHidden, .data = {data, bytes}});
      data += bytes;
    }
    ASSIGN_OR_RETURN(auto packed, ops_.pack(parts, {.head_dim = kHeadDim}));
    matrices.packed.push_back(std::move(packed));
  }
  return matrices;
}

// Rows that are written by a norm, as in a model.
Result<Activations> KernelBench::input(const Buffer& memory, int32_t rows, int64_t columns,
                                       ActivationFormat format) const {
  ASSIGN_OR_RETURN(const Buffer floats, float_rows(ops_, rows, columns));
  ASSIGN_OR_RETURN(const Buffer weight, float_rows(ops_, 1, columns));
  const Activations out = {memory.data(), columns, format};
  Lane lane;
  ops_.rms_norm(lane, as_floats(floats, columns), {}, rows, as_floats(weight, columns).data, 1e-5F,
                out);
  return out;
}

Result<> KernelBench::matmul(formats::TensorType type, bool add,
                             std::vector<KernelTime>& out) const {
  const std::string op = add ? "matmul_add" : "matmul";
  const std::string name(formats::tensor_type_name(type));
  const std::vector<int32_t> wanted = wanted_rows(op, name);
  if (wanted.empty()) return Ok{};
  ASSIGN_OR_RETURN(const Matrices matrices, pack(type, {kHidden}));
  const ActivationFormat format = matrices.at(0).input();
  for (const int32_t rows : wanted) {
    ASSIGN_OR_RETURN(const Buffer memory,
                     ops_.allocate(ops_.activation_bytes(rows, kHidden), "rows"));
    ASSIGN_OR_RETURN(const Buffer result, float_rows(ops_, rows, kHidden));
    ASSIGN_OR_RETURN(const Activations x, input(memory, rows, kHidden, format));
    const TimeNs time_ns = time([&](Lane& lane, int64_t call) {
      if (add) {
        ops_.matmul_add(lane, x, rows, matrices.at(call), as_floats(result, kHidden));
      } else {
        ops_.matmul(lane, x, rows, matrices.at(call), as_floats(result, kHidden));
      }
    });
    out.push_back(
        {op, name, rows, time_ns, matrices.bytes, 2 * rows * matrices.weights, format.type});
  }
  return Ok{};
}

Result<> KernelBench::matmul_swiglu(formats::TensorType type, std::vector<KernelTime>& out) const {
  const std::string name(formats::tensor_type_name(type));
  const std::vector<int32_t> wanted = wanted_rows("matmul_swiglu", name);
  if (wanted.empty()) return Ok{};
  ASSIGN_OR_RETURN(const Matrices matrices, pack(type, {kHidden, kHidden}));
  const ActivationFormat format = matrices.at(0).input();
  for (const int32_t rows : wanted) {
    const uint64_t bytes = ops_.activation_bytes(rows, kHidden);
    ASSIGN_OR_RETURN(const Buffer memory, ops_.allocate(bytes, "rows"));
    ASSIGN_OR_RETURN(const Buffer result, ops_.allocate(bytes, "rows"));
    ASSIGN_OR_RETURN(const Activations x, input(memory, rows, kHidden, format));
    // The matrix that comes next in a model is of the same type.
    const Activations product = {result.data(), kHidden, format};
    const TimeNs time_ns = time([&](Lane& lane, int64_t call) {
      ops_.matmul_swiglu(lane, x, rows, matrices.at(call), product);
    });
    out.push_back({"matmul_swiglu", name, rows, time_ns, matrices.bytes,
                   2 * rows * matrices.weights, format.type});
  }
  return Ok{};
}

// Rows are one sequence's prompt.
Result<> KernelBench::matmul_qkv(formats::TensorType type, std::vector<KernelTime>& out) const {
  const std::string name(formats::tensor_type_name(type));
  const std::vector<int32_t> wanted = wanted_rows("matmul_qkv", name);
  if (wanted.empty()) return Ok{};
  constexpr int64_t kKeys = kKvHeads * kHeadDim;
  ASSIGN_OR_RETURN(const Matrices matrices, pack(type, {kHeads * kHeadDim, kKeys, kKeys}));
  const ActivationFormat format = matrices.at(0).input();
  const auto blocks = static_cast<int32_t>(
      ceil_div(*std::max_element(wanted.begin(), wanted.end()), kernels::kKvBlockTokens));
  const kernels::KvShape shape = {1, blocks, kHeads, kKvHeads, kHeadDim, KvType::kBF16};
  ASSIGN_OR_RETURN(const Buffer kv, ops_.allocate(ops_.kv_bytes(shape), "keys and values"));
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  for (const int32_t rows : wanted) {
    ASSIGN_OR_RETURN(const Buffer memory,
                     ops_.allocate(ops_.activation_bytes(rows, kHidden), "rows"));
    ASSIGN_OR_RETURN(const Buffer queries, float_rows(ops_, rows, kHeads * kHeadDim));
    ASSIGN_OR_RETURN(const Buffer rotations, float_rows(ops_, rows, kHeadDim));
    ASSIGN_OR_RETURN(const Activations x, input(memory, rows, kHidden, format));
    const SequenceRows sequence = {0, rows, 0, table.data()};
    const TimeNs time_ns = time([&](Lane& lane, int64_t call) {
      ops_.matmul_qkv(lane, x, matrices.at(call), as_floats(rotations, kHeadDim), {&sequence, 1},
                      {shape, kv.data()}, 0, as_floats(queries, kHeads * kHeadDim));
    });
    out.push_back({"matmul_qkv", name, rows, time_ns, matrices.bytes, 2 * rows * matrices.weights,
                   format.type});
  }
  return Ok{};
}

Result<std::vector<KernelTime>> KernelBench::matrices(formats::TensorType type) const {
  std::vector<KernelTime> times;
  RETURN_IF_ERROR(matmul(type, false, times));
  RETURN_IF_ERROR(matmul(type, true, times));
  RETURN_IF_ERROR(matmul_swiglu(type, times));
  RETURN_IF_ERROR(matmul_qkv(type, times));
  return times;
}

// `rows` rows in all, shared equally by `sequences`, which end at `context` positions.
Result<> KernelBench::attention_rows(const kernels::KvShape& shape, const std::string& op,
                                     const std::string& type, int32_t rows, int32_t sequences,
                                     int32_t context, std::vector<KernelTime>& out) const {
  ASSIGN_OR_RETURN(const Buffer kv, ops_.allocate(ops_.kv_bytes(shape), "keys and values"));
  std::memset(kv.data(), kAnyKey, kv.bytes());
  const int32_t columns = shape.num_heads * shape.head_dim;
  const int32_t each = rows / sequences;
  std::vector<int32_t> table(static_cast<size_t>(shape.num_blocks));
  std::iota(table.begin(), table.end(), 0);
  std::vector<SequenceRows> spans;
  spans.reserve(static_cast<size_t>(sequences));
  for (int32_t i = 0; i < sequences; ++i) {
    spans.push_back(
        {i * each, each, context - each, table.data() + i * (shape.num_blocks / sequences)});
  }
  ASSIGN_OR_RETURN(const Buffer queries, float_rows(ops_, rows, columns));
  ASSIGN_OR_RETURN(const Buffer result,
                   ops_.allocate(ops_.activation_bytes(rows, columns), "rows"));
  const Activations attended = {result.data(), columns, {}};
  const TimeNs time_ns = time([&](Lane& lane, int64_t call) {
    const auto layer = static_cast<int32_t>(call % shape.num_layers);
    ops_.attention(lane, as_floats(queries, columns), spans, {shape, kv.data()}, layer, attended);
  });
  const double seen = context - 0.5 * (each - 1);  // positions, on average of rows
  const auto arithmetic = shape.type == KvType::kF32 ? ActivationType::kF32 : ActivationType::kBF16;
  out.push_back({op, type, rows, time_ns, static_cast<double>(kv.bytes()) / shape.num_layers,
                 4.0 * rows * seen * columns, arithmetic});
  return Ok{};
}

Result<std::vector<KernelTime>> KernelBench::attention(KvType type, int32_t head_dim) const {
  const std::string label = fmt::format("{}x{}", kv_name(type), head_dim);
  std::vector<KernelTime> times;
  const auto add = [&](const std::string& op, int32_t rows, int32_t sequences,
                       int32_t context) -> Result<> {
    if (!filter_(case_name(op, label, rows))) return Ok{};
    kernels::KvShape shape = {
        1, sequences * context / kernels::kKvBlockTokens, kHeads, kKvHeads, head_dim, type};
    if (!ops_.check_shape(shape).ok()) return Ok{};
    shape.num_layers =
        static_cast<int32_t>(ceil_div(kWalkBytes, static_cast<int64_t>(ops_.kv_bytes(shape))));
    return attention_rows(shape, op, label, rows, sequences, context, times);
  };
  for (const int32_t context : {512, 8192}) {
    for (const int32_t sequences : {1, 8, 32}) {
      if (sequences * context > 8 * 8192) continue;  // gigabytes
      RETURN_IF_ERROR(add(fmt::format("decode@{}", context), sequences, sequences, context));
    }
  }
  for (const int32_t rows : {64, 256, 512}) RETURN_IF_ERROR(add("prefill@2048", rows, 1, 2048));
  return times;
}

Result<std::vector<KernelTime>> KernelBench::norms(ActivationType arithmetic) const {
  const std::string name(format_name(arithmetic));
  std::vector<KernelTime> times;
  for (const int32_t rows : wanted_rows("rms_norm", name)) {
    ASSIGN_OR_RETURN(const Buffer x, float_rows(ops_, rows, kHidden));
    ASSIGN_OR_RETURN(const Buffer weight, float_rows(ops_, 1, kHidden));
    ASSIGN_OR_RETURN(const Buffer result,
                     ops_.allocate(ops_.activation_bytes(rows, kHidden), "rows"));
    const Activations out = {result.data(), kHidden, {.type = arithmetic}};
    const TimeNs time_ns = time([&](Lane& lane, int64_t) {
      ops_.rms_norm(lane, as_floats(x, kHidden), {}, rows, as_floats(weight, kHidden).data, 1e-5F,
                    out);
    });
    const double values = static_cast<double>(rows) * kHidden;
    times.push_back({"rms_norm", name, rows, time_ns, values * sizeof(float), 4 * values,
                     ActivationType::kF32});
  }
  return times;
}

}  // namespace puna::cli
