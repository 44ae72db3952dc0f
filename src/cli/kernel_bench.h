// SPDX-License-Identifier: Apache-2.0
// Times every op of an Ops for every weight type and number of rows, on Llama-3-8B's hidden size
// and heads; weights and keys are walked through so that none stay in the caches. `puna bench
// kernels` sets the times beside the machine's limit (bench_kernels.cc). Main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace puna::cli {

struct KernelTime {
  std::string op;    // "matmul", "decode@8192": attention over so many positions
  std::string type;  // "Q4_K"; "bf16x128": of keys and values, and the size of a head

  int32_t rows = 0;
  TimeNs time_ns = 0;     // median of a call
  double bytes = 0;       // that a call must read: weights as in the file, keys and values
  double operations = 0;  // a multiply-add is two
  // Which unit does most of the operations.
  kernels::ActivationType arithmetic = kernels::ActivationType::kF32;
};

class KernelBench {
 public:
  // True for names ("matmul/Q4_K/8") that are wanted.
  using Filter = std::function<bool(const std::string& name)>;
  KernelBench(const kernels::Ops& ops, kernels::ThreadPool& pool, Filter filter)
      : ops_(ops), pool_(pool), filter_(std::move(filter)) {}

  // matmul, matmul_add, matmul_swiglu and matmul_qkv with weights of `type`. What the ops do not
  // support is left out. Errors: kResourceExhausted.
  Result<std::vector<KernelTime>> matrices(formats::TensorType type) const;
  // decode: one row of each of 1 … 32 sequences; prefill: a chunk of a prompt.
  Result<std::vector<KernelTime>> attention(kernels::KvType type, int32_t head_dim) const;
  // Writing rows in the format `arithmetic`.
  Result<std::vector<KernelTime>> norms(kernels::ActivationType arithmetic) const;

 private:
  struct Matrices;
  using Call = std::function<void(kernels::Lane& lane, int64_t call)>;

  std::vector<int32_t> wanted_rows(const std::string& op, std::string_view type) const;
  TimeNs time(const Call& call) const;
  Result<kernels::Activations> input(const kernels::Buffer& memory, int32_t rows, int64_t columns,
                                     kernels::ActivationFormat format) const;
  Result<Matrices> pack(formats::TensorType type, const std::vector<int64_t>& part_rows) const;
  Result<> matmul(formats::TensorType type, bool add, std::vector<KernelTime>& out) const;
  Result<> matmul_swiglu(formats::TensorType type, std::vector<KernelTime>& out) const;
  Result<> matmul_qkv(formats::TensorType type, std::vector<KernelTime>& out) const;
  Result<> attention_rows(const kernels::KvShape& shape, const std::string& op,
                          const std::string& type, int32_t rows, int32_t sequences, int32_t context,
                          std::vector<KernelTime>& out) const;

  const kernels::Ops& ops_;
  kernels::ThreadPool& pool_;
  const Filter filter_;
};

}  // namespace puna::cli
