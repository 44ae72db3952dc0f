// SPDX-License-Identifier: Apache-2.0
// The op table: everything that a Llama forward pass asks of a device. A model is a list of these
// ops (model/llama.cc); an implementation decides how weights, activations and KV are stored. One
// Ops serves any number of models and holds no state of theirs.
//
// Ops run SPMD: every lane calls the same op with the same arguments and does its own share, then
// the caller calls lane.sync() before anyone reads what the op wrote. On a CPU a lane is a worker
// of the thread pool; on a GPU there is one lane, a stream.
//
// Same bits: a row's result depends on that row and the weights only, never on the number of rows
// or lanes. Sums run in an order given by the weight's columns, attention in KV chunks at absolute
// positions.
//
//   ops.rms_norm(lane, {residual, all_rows}, norm, eps, x);
//   lane.sync();
//   ops.matmul_add(lane, x, num_rows, weights, residual);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/result.h"
#include "formats/tensor_type.h"

namespace puna::kernels {

// Positions in a KV block; equals kv::kBlockTokens (checked where both are visible).
inline constexpr int32_t kKvBlockTokens = 16;
// f32 rows start at a multiple of this many floats (64 bytes) and are zero between their last
// column and the next row, so vector code needs no tails.
inline constexpr int64_t kRowAlign = 16;
constexpr int64_t padded_columns(int64_t columns) {
  return (columns + kRowAlign - 1) / kRowAlign * kRowAlign;
}

class Lane {
 public:
  Lane() = default;
  Lane(int32_t index, int32_t count) : index_(index), count_(count) {}
  virtual ~Lane() = default;
  int32_t index() const { return index_; }
  int32_t count() const { return count_; }
  // Returns when every lane has called it; writes before it are visible after it.
  virtual void sync() {}
  // The same, and the last lane to arrive runs `last()` before any lane goes on.
  template <typename Last>
  void sync_then(Last&& last) {
    using Plain = std::remove_reference_t<Last>;
    do_sync_then([](void* context) { (*static_cast<Plain*>(context))(); },
                 const_cast<std::remove_const_t<Plain>*>(&last));
  }

  // This lane's share of `items`: a contiguous range, sizes differ by one at most.
  struct Range {
    int64_t begin = 0;
    int64_t end = 0;
  };
  Range share(int64_t items) const {
    return {items * index_ / count_, items * (index_ + 1) / count_};
  }
  // Calls use(item) for each of `items` items, every one on exactly one lane: this lane's share
  // first, then what slower lanes have not begun. At most one deal between two syncs.
  template <typename Use>
  void deal(int64_t items, Use use) {
    for (int64_t item = next_dealt(items); item >= 0; item = next_dealt(items)) use(item);
  }

 protected:
  using Completion = void (*)(void* context);
  virtual void do_sync_then(Completion last, void* context) {
    sync();
    last(context);
  }
  // The next item for this lane, or -1 when none is left (and the deal ends for this lane).
  virtual int64_t next_dealt(int64_t items) {
    const Range mine = share(items);
    if (mine.begin + dealt_ < mine.end) return mine.begin + dealt_++;
    dealt_ = 0;
    return -1;
  }

 private:
  int64_t dealt_ = 0;
  int32_t index_ = 0;
  int32_t count_ = 1;
};

// Memory of the device, zero when allocated, freed with the object.
class Buffer {
 public:
  using FreeFunction = void (*)(std::byte* data, uint64_t bytes);
  Buffer() = default;
  Buffer(std::byte* data, uint64_t bytes, FreeFunction free)
      : data_(data), bytes_(bytes), free_(free) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
    return *this;
  }
  ~Buffer() {
    if (free_ != nullptr) free_(data_, bytes_);
  }
  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  FreeFunction free_ = nullptr;
};

// f32 rows in device memory: the residual stream, queries, logits.
struct FloatRows {
  float* data = nullptr;
  int64_t columns = 0;
  float* row(int64_t index) const { return data + index * stride(); }
  int64_t stride() const { return padded_columns(columns); }
};

// How the rows that a matmul reads are stored; each matrix says what it wants.
enum class ActivationType : uint8_t {
  kF32,
  kBF16,
  kInt8,  // symmetric, one f32 scale per `group` columns
};
struct ActivationFormat {
  ActivationType type = ActivationType::kF32;
  int32_t group = 32;  // columns per scale, 32 or 128; kInt8 only
  bool operator==(const ActivationFormat&) const = default;
};

// Rows that a matmul reads. The memory is enough for any format, whoever writes it chooses.
struct Activations {
  std::byte* data = nullptr;
  int64_t columns = 0;
  ActivationFormat format = {};
};

// Row orders that pack() can give a matrix while it stores it. kInterleaveHalves takes a head's
// rows (i, i + head_dim / 2) to (2i, 2i + 1): so a Hugging Face model rotates the same pairs as a
// GGUF one. Scores don't change, for queries and keys are permuted alike.
enum class RowOrder : uint8_t { kAsStored, kInterleaveHalves };

struct MatrixPart {
  formats::TensorType type = formats::TensorType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::span<const std::byte> data;
  RowOrder order = RowOrder::kAsStored;
};

// One or more weight matrices of equal columns, multiplied in one op: q|k|v, gate|up.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  // The format that its matmul reads.
  virtual ActivationFormat input() const = 0;
};

struct PackOptions {
  int32_t head_dim = 1;    // for kInterleaveHalves
  int64_t input_unit = 0;  // the rows that it reads are written so many columns at a time; 0: whole
};

// How keys and values are stored: f32, bf16, or int8 with one f32 scale per position and head.
enum class KvType : uint8_t { kF32, kBF16, kInt8 };

struct KvShape {
  int32_t num_layers = 0;
  int32_t num_blocks = 0;
  int32_t num_heads = 0;     // query heads
  int32_t num_kv_heads = 0;  // divides num_heads
  int32_t head_dim = 0;      // even
  KvType type = KvType::kF32;
};

// The paged keys and values of one model.
struct KvCache {
  KvShape shape;
  std::byte* data = nullptr;  // Ops::kv_bytes(shape)
};

// Consecutive rows of a step that are consecutive positions of one sequence.
struct SequenceRows {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t first_position = 0;
  const int32_t* block_table = nullptr;  // covers positions 0 … first_position + num_rows - 1
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual std::string_view name() const = 0;  // "reference", "avx2", "avx512"

  // kUnsupported when attention of this shape is beyond the implementation.
  virtual Result<> check_shape(const KvShape& shape) const = 0;

  // Memory and weights, at load time. `what` names the owner in the error message.
  virtual Result<Buffer> allocate(uint64_t bytes, std::string_view what) const = 0;
  virtual void upload(std::span<const float> values, const Buffer& to) const = 0;
  // The parts' data must outlive the matrix: an implementation may use it in place. Those that
  // don't say so: packed_bytes() is then not 0.
  virtual Result<std::unique_ptr<PackedMatrix>> pack(std::span<const MatrixPart> parts,
                                                     const PackOptions& options) const = 0;
  virtual uint64_t packed_bytes(
      std::span<const MatrixPart> parts) const = 0;  // besides the data in place
  // A matrix for embed(), used in place.
  virtual std::unique_ptr<PackedMatrix> table(const MatrixPart& part) const = 0;
  virtual uint64_t activation_bytes(int64_t rows, int64_t columns) const = 0;
  virtual uint64_t kv_bytes(const KvShape& shape) const = 0;

  // out[i] = table row tokens[i]. A packed matrix of one part in file order (a tied head) is a
  // table too.
  virtual void embed(Lane& lane, const PackedMatrix& table, std::span<const int32_t> tokens,
                     FloatRows out) const = 0;
  // rotations[row] = (cos, sin) of position * inverse_frequency[i], for i < head_dim / 2: [rows,
  // head_dim].
  virtual void rotations(Lane& lane, std::span<const SequenceRows> sequences,
                         std::span<const float> inverse_frequency, FloatRows out) const = 0;
  // out[i] = x[rows[i]] / rms(x[rows[i]]) * weight; an empty `rows` means rows 0 … num_rows - 1.
  virtual void rms_norm(Lane& lane, FloatRows x, std::span<const int32_t> rows, int32_t num_rows,
                        const float* weight, float eps, Activations out) const = 0;
  // x * [q|k|v]: q and k rotated, q to `q`, k and v into the cache.
  virtual void matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv, FloatRows rotations,
                          std::span<const SequenceRows> sequences, const KvCache& kv, int32_t layer,
                          FloatRows q) const = 0;
  // Causal attention of each row over the positions up to its own.
  virtual void attention(Lane& lane, FloatRows q, std::span<const SequenceRows> sequences,
                         const KvCache& kv, int32_t layer, Activations out) const = 0;
  // out = x * w, out += x * w, out = silu(x * gate) * (x * up).
  virtual void matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                      FloatRows out) const = 0;
  virtual void matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                          FloatRows out) const = 0;
  virtual void matmul_swiglu(Lane& lane, Activations x, int32_t num_rows,
                             const PackedMatrix& gate_up, Activations out) const = 0;
};

}  // namespace puna::kernels
