// SPDX-License-Identifier: Apache-2.0
// A thread block for each row. The border of top_k and top_p is found in bins of the distance from
// the largest logit, then by halving among the tokens of one bin; no sorting.
#include <cfloat>
#include <climits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/sampling.h"

namespace puna::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 2048;
constexpr float kBinsPerUnit = 64.0F;  // of the scaled distance: a bin is a factor of e^(1/64)
constexpr int kListTokens = 4096;      // of one bin; with more, all logits are read again
constexpr float kMassScale = 1073741824.0F;  // 2^30
constexpr int kLowBits = 15;                 // a mass's lower half, so that 2^17 fit in a word
constexpr float kLog2OfE = 1.4426950408889634F;

__device__ inline float clean(float logit) {
  return logit != logit ? -INFINITY : fminf(logit, FLT_MAX);
}
// Rises with the number.
__device__ inline uint32_t key_of(float logit) {
  const uint32_t bits = __float_as_uint(logit);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}

struct Token {
  float distance;  // scaled, from the largest logit
  uint32_t key;
  uint32_t mass;
};

struct Row {
  const float* logits;
  int vocab_size;
  float largest;
  float scale;

  __device__ Token token(int id) const {
    const float logit = clean(logits[id]);
    const float distance = __fmul_rn(__fsub_rn(largest, logit), scale);
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(__fmul_rn(distance, -kLog2OfE)));
    return {distance, key_of(logit), __float2uint_rn(__fmul_rn(power, kMassScale))};
  }
};

__device__ inline int bin_of(const Token& token) {
  return min(kBins - 1, static_cast<int>(token.distance * kBinsPerUnit));
}

struct Tally {
  uint32_t count = 0;
  unsigned long long mass = 0;
};

struct Shared {
  uint32_t counts[kBins];
  uint32_t low[kBins];  // masses, their lower and upper halves
  uint32_t high[kBins];
  uint32_t list_keys[kListTokens];
  uint32_t list_masses[kListTokens];
  uint32_t listed;
  float best_logits[kWarps];
  int best_ids[kWarps];
  Tally of_warp[kWarps];
  uint32_t ties[kWarps];
  Tally total;
  // The first bin that reaches a border, and what is before it.
  int bin;
  Tally before;
  int drawn;
};

// The same for all threads.
__device__ Tally block_sum(Tally value, Shared& shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value.count += __shfl_xor_sync(~0U, value.count, step);
    value.mass += __shfl_xor_sync(~0U, value.mass, step);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  Tally sum;
  for (int warp = 0; warp < kWarps; ++warp) {
    sum.count += shared.of_warp[warp].count;
    sum.mass += shared.of_warp[warp].mass;
  }
  return sum;
}

// Tokens in the order of their logits, equal ones by id, as far as one of these is reached.
struct Border {
  uint32_t count;
  unsigned long long mass;
  __device__ bool reached(const Tally& tally) const {
    return tally.count >= count || tally.mass >= mass;
  }
};
// All tokens with greater keys stay, and `ties` of those with this one.
struct Cut {
  uint32_t key = 0;
  uint32_t ties = 0;
  unsigned long long mass = 0;  // of what stays
};

__device__ void fill_bins(const Row& row, Shared& shared) {
  for (int bin = threadIdx.x; bin < kBins; bin += kThreads)
    shared.counts[bin] = shared.low[bin] = shared.high[bin] = 0;
  __syncthreads();
  for (int id = threadIdx.x; id < row.vocab_size; id += kThreads) {
    const Token token = row.token(id);
    if (token.mass == 0) continue;
    const int bin = bin_of(token);
    atomicAdd(&shared.counts[bin], 1U);
    atomicAdd(&shared.low[bin], token.mass & ((1U << kLowBits) - 1));
    atomicAdd(&shared.high[bin], token.mass >> kLowBits);
  }
  __syncthreads();
}

__device__ inline Tally bin_tally(const Shared& shared, int bin) {
  return {shared.counts[bin],
          (static_cast<unsigned long long>(shared.high[bin]) << kLowBits) + shared.low[bin]};
}

// By one warp: each lane sums its stretch of bins, then the lane whose stretch holds the border
// walks it. The last bin with a token if the border is never reached.
__device__ void find_bin(const Border& border, Shared& shared) {
  constexpr int kStretch = kBins / 32;
  const int lane = threadIdx.x % 32;
  Tally mine;
  for (int i = 0; i < kStretch; ++i) {
    const Tally bin = bin_tally(shared, lane * kStretch + i);
    mine.count += bin.count;
    mine.mass += bin.mass;
  }
  Tally before;
  for (int other = 0; other < 31; ++other) {
    const uint32_t count = __shfl_sync(~0U, mine.count, other);
    const unsigned long long mass = __shfl_sync(~0U, mine.mass, other);
    if (other >= lane) continue;
    before.count += count;
    before.mass += mass;
  }
  const Tally after = {before.count + mine.count, before.mass + mine.mass};
  const unsigned reached = __ballot_sync(~0U, border.reached(after));
  const unsigned filled = __ballot_sync(~0U, mine.count > 0);
  const int owner =
      reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : 31 - __clz(static_cast<int>(filled));
  if (lane != owner) return;
  int last = lane * kStretch;
  Tally before_last = before;
  for (int i = 0; i < kStretch; ++i) {
    const Tally bin = bin_tally(shared, lane * kStretch + i);
    if (bin.count > 0) {
      last = lane * kStretch + i;
      before_last = before;
    }
    before.count += bin.count;
    before.mass += bin.mass;
    if (bin.count > 0 && border.reached(before)) break;
  }
  shared.bin = last;
  shared.before = before_last;
}

__device__ void list_bin(const Row& row, Shared& shared) {
  if (threadIdx.x == 0) shared.listed = 0;
  __syncthreads();
  for (int id = threadIdx.x; id < row.vocab_size; id += kThreads) {
    const Token token = row.token(id);
    if (token.mass == 0 || bin_of(token) != shared.bin) continue;
    const uint32_t place = atomicAdd(&shared.listed, 1U);
    if (place >= kListTokens) continue;
    shared.list_keys[place] = token.key;
    shared.list_masses[place] = token.mass;
  }
  __syncthreads();
}

// The bin's tokens for which `wanted` holds.
template <typename Wanted>
__device__ Tally tally_bin(const Row& row, Shared& shared, Wanted wanted) {
  Tally tally;
  if (shared.listed <= kListTokens) {
    for (uint32_t i = threadIdx.x; i < shared.listed; i += kThreads) {
      if (!wanted(shared.list_keys[i])) continue;
      ++tally.count;
      tally.mass += shared.list_masses[i];
    }
  } else {
    for (int id = threadIdx.x; id < row.vocab_size; id += kThreads) {
      const Token token = row.token(id);
      if (token.mass == 0 || bin_of(token) != shared.bin || !wanted(token.key)) continue;
      ++tally.count;
      tally.mass += token.mass;
    }
  }
  return block_sum(tally, shared);
}

// By all threads, after fill_bins().
__device__ Cut find_cut(const Row& row, const Border& border, Shared& shared) {
  __syncthreads();
  if (threadIdx.x < 32) find_bin(border, shared);
  __syncthreads();
  list_bin(row, shared);
  const Tally before = shared.before;
  const auto plus = [&](const Tally& tally) {
    return Tally{before.count + tally.count, before.mass + tally.mass};
  };
  // The greatest key with which the border is reached; the smallest of all if it never is.
  uint32_t key = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t tried = key | 1U << bit;
    const Tally tally = tally_bin(row, shared, [&](uint32_t other) { return other >= tried; });
    if (border.reached(plus(tally))) key = tried;
  }
  const Tally above = plus(tally_bin(row, shared, [&](uint32_t other) { return other > key; }));
  const Tally same = tally_bin(row, shared, [&](uint32_t other) { return other == key; });
  Cut cut = {key, 0, above.mass};
  if (same.count == 0) return cut;                         // all of the bin stay
  const unsigned long long mass = same.mass / same.count;  // of each
  const uint32_t by_count =
      border.count > above.count ? min(border.count - above.count, same.count) : 1;
  const unsigned long long missing = border.mass > above.mass ? border.mass - above.mass : 1;
  const unsigned long long by_mass = missing / mass + (missing % mass != 0 ? 1 : 0);
  cut.ties = by_mass < by_count ? static_cast<uint32_t>(by_mass) : by_count;
  cut.mass = above.mass + cut.ties * mass;
  return cut;
}

__device__ Cut cut_of(const Row& row, const SampleParams& params, Shared& shared) {
  const bool by_rank = params.top_k > 0 && params.top_k < row.vocab_size;
  if (!by_rank && params.top_p >= 1.0F) return {};
  fill_bins(row, shared);
  constexpr uint32_t kAny = UINT32_MAX;
  constexpr unsigned long long kAll = ~0ULL;
  Cut cut;
  if (by_rank) {
    cut = find_cut(row, {static_cast<uint32_t>(params.top_k), kAll}, shared);
  } else {
    Tally all;
    for (int bin = threadIdx.x; bin < kBins; bin += kThreads)
      all.mass += bin_tally(shared, bin).mass;
    cut.mass = block_sum(all, shared).mass;
  }
  if (params.top_p >= 1.0F) return cut;
  const auto wanted = static_cast<unsigned long long>(
      ceil(static_cast<double>(params.top_p) * static_cast<double>(cut.mass)));
  return find_cut(row, {kAny, wanted > 0 ? wanted : 1}, shared);
}

// Each warp has a stretch of ids; the one that holds the drawn part walks its own.
__device__ int draw(const Row& row, const SampleParams& params, const Cut& cut, Shared& shared) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int stretch = (row.vocab_size + kWarps * 32 - 1) / (kWarps * 32) * 32;
  const int first = warp * stretch;
  const int end = min(first + stretch, row.vocab_size);
  const auto least = static_cast<uint32_t>(ceilf(params.min_p * kMassScale));
  Tally mine;
  uint32_t ties = 0;
  uint32_t tie_mass = 0;
  for (int id = first + lane; id < end; id += 32) {
    const Token token = row.token(id);
    if (token.mass < least) continue;
    if (token.key > cut.key) mine.mass += token.mass;
    if (token.key == cut.key) {
      ++ties;
      tie_mass = token.mass;
    }
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    mine.mass += __shfl_xor_sync(~0U, mine.mass, step);
    ties += __shfl_xor_sync(~0U, ties, step);
    tie_mass = max(tie_mass, __shfl_xor_sync(~0U, tie_mass, step));
  }
  __syncthreads();
  if (lane == 0) {
    shared.of_warp[warp] = mine;
    shared.of_warp[warp].count = tie_mass;
    shared.ties[warp] = ties;
  }
  __syncthreads();
  uint32_t ties_left = cut.ties;
  uint32_t my_ties = 0;
  unsigned long long before = 0;
  unsigned long long total = 0;
  unsigned long long mine_all = 0;
  for (int other = 0; other < kWarps; ++other) {
    const uint32_t kept = min(ties_left, shared.ties[other]);
    ties_left -= kept;
    const unsigned long long mass =
        shared.of_warp[other].mass +
        static_cast<unsigned long long>(kept) * shared.of_warp[other].count;
    if (other == warp) {
      before = total;
      my_ties = kept;
      mine_all = mass;
    }
    total += mass;
  }
  const auto target = static_cast<unsigned long long>(params.uniform * static_cast<double>(total));
  if (target < before || target >= before + mine_all) return -1;
  unsigned long long passed = before;
  for (int start = first; start < end; start += 32) {
    const int id = start + lane;
    const Token token = id < end ? row.token(id) : Token{0.0F, 0, 0};
    const bool counts = id < end && token.mass >= least;
    const bool tie = counts && token.key == cut.key;
    const unsigned tied = __ballot_sync(~0U, tie);
    const auto rank = static_cast<uint32_t>(__popc(tied & ((1U << lane) - 1)));
    const bool kept = counts && (token.key > cut.key || (tie && rank < my_ties));
    my_ties -= min(my_ties, static_cast<uint32_t>(__popc(tied)));
    unsigned long long sum = kept ? token.mass : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const unsigned long long other = __shfl_up_sync(~0U, sum, step);
      if (lane >= step) sum += other;
    }
    const unsigned found = __ballot_sync(~0U, passed + sum > target);
    if (found != 0) return start + __ffs(static_cast<int>(found)) - 1;
    passed += __shfl_sync(~0U, sum, 31);
  }
  return -1;
}

__device__ inline bool better(float logit, int id, float than, int than_id) {
  return logit > than || (logit == than && id < than_id);
}

__global__ void __launch_bounds__(kThreads) sample_kernel(SampleArgs args) {
  extern __shared__ __align__(16) unsigned char memory[];
  wait_for_previous_kernel();
  auto& shared = *reinterpret_cast<Shared*>(memory);
  const SampleParams params = args.params[blockIdx.x];
  Row row = {args.logits + int64_t{blockIdx.x} * args.vocab_size, args.vocab_size, -INFINITY,
             params.scale};
  int best = INT_MAX;
#pragma unroll 4
  for (int id = threadIdx.x; id < args.vocab_size; id += kThreads) {
    const float logit = clean(row.logits[id]);
    if (better(logit, id, row.largest, best)) {
      row.largest = logit;
      best = id;
    }
  }
  for (int step = 16; step > 0; step /= 2) {
    const float logit = __shfl_xor_sync(~0U, row.largest, step);
    const int id = __shfl_xor_sync(~0U, best, step);
    if (better(logit, id, row.largest, best)) {
      row.largest = logit;
      best = id;
    }
  }
  if (threadIdx.x % 32 == 0) {
    shared.best_logits[threadIdx.x / 32] = row.largest;
    shared.best_ids[threadIdx.x / 32] = best;
  }
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    if (better(shared.best_logits[warp], shared.best_ids[warp], row.largest, best)) {
      row.largest = shared.best_logits[warp];
      best = shared.best_ids[warp];
    }
  }
  int token = best == INT_MAX ? 0 : best;
  if (params.scale > 0.0F && row.largest != -INFINITY) {
    if (threadIdx.x == 0) shared.drawn = token;
    const Cut cut = cut_of(row, params, shared);
    const int drawn = draw(row, params, cut, shared);
    if (drawn >= 0 && threadIdx.x % 32 == 0) shared.drawn = drawn;  // one warp at most
    __syncthreads();
    token = shared.drawn;
  }
  if (threadIdx.x != 0) return;
  args.tokens[blockIdx.x] = token;
  const int slot = args.slots[blockIdx.x];
  if (slot >= 0) args.last_tokens[slot] = token;
}

}  // namespace

void sample_tokens(const SampleArgs& args, Stream stream) {
  static const bool raised = [] {
    check_device(cudaFuncSetAttribute(sample_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      sizeof(Shared)),
                 "the sampler's shared memory");
    return true;
  }();
  (void)raised;
  launch(sample_kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, sizeof(Shared), stream,
         args);
}

}  // namespace puna::kernels::cuda
