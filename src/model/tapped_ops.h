// SPDX-License-Identifier: Apache-2.0
// An Ops that passes everything on to another and adds up the squares of what its matrices read,
// and for some the products of all pairs of columns. Internal to calibration. The other one must
// compute in f32 (ActivationMode::kFloat).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace puna::model {

class TappedOps final : public kernels::Ops {
 public:
  struct Matrix {
    std::vector<const std::byte*> parts;  // where the file holds them
    std::vector<double> sums;             // of squares, by column
    std::vector<float> products;          // [columns, columns], lower triangle; or none
    uint64_t rows = 0;
  };

  // `with_products`: parts (by where the file holds them) whose matrices want the products too.
  explicit TappedOps(const kernels::Ops& inner, std::set<const std::byte*> with_products = {})
      : inner_(inner), with_products_(std::move(with_products)) {}

  const std::vector<std::unique_ptr<Matrix>>& matrices() const { return matrices_; }

  std::string_view name() const override { return inner_.name(); }
  Result<> check_shape(const kernels::KvShape& shape) const override {
    return inner_.check_shape(shape);
  }
  Result<kernels::Buffer> allocate(uint64_t bytes, std::string_view what) const override {
    return inner_.allocate(bytes, what);
  }
  void upload(std::span<const float> values, const kernels::Buffer& to) const override {
    inner_.upload(values, to);
  }
  Result<std::unique_ptr<kernels::PackedMatrix>> pack(
      std::span<const kernels::MatrixPart> parts,
      const kernels::PackOptions& options) const override;
  uint64_t packed_bytes(std::span<const kernels::MatrixPart> parts) const override {
    return inner_.packed_bytes(parts);
  }
  std::unique_ptr<kernels::PackedMatrix> table(const kernels::MatrixPart& part) const override {
    return inner_.table(part);
  }
  uint64_t activation_bytes(int64_t rows, int64_t columns) const override {
    return inner_.activation_bytes(rows, columns);
  }
  uint64_t kv_bytes(const kernels::KvShape& shape) const override { return inner_.kv_bytes(shape); }

  void embed(kernels::Lane& lane, const kernels::PackedMatrix& table,
             std::span<const int32_t> tokens, kernels::FloatRows out) const override {
    inner_.embed(lane, table, tokens, out);
  }
  void rotations(kernels::Lane& lane, std::span<const kernels::SequenceRows> sequences,
                 std::span<const float> inverse_frequency, kernels::FloatRows out) const override {
    inner_.rotations(lane, sequences, inverse_frequency, out);
  }
  void rms_norm(kernels::Lane& lane, kernels::FloatRows x, std::span<const int32_t> rows,
                int32_t num_rows, const float* weight, float eps,
                kernels::Activations out) const override {
    inner_.rms_norm(lane, x, rows, num_rows, weight, eps, out);
  }
  void attention(kernels::Lane& lane, kernels::FloatRows q,
                 std::span<const kernels::SequenceRows> sequences, const kernels::KvCache& kv,
                 int32_t layer, kernels::Activations out) const override {
    inner_.attention(lane, q, sequences, kv, layer, out);
  }
  void matmul_qkv(kernels::Lane& lane, kernels::Activations x, const kernels::PackedMatrix& qkv,
                  kernels::FloatRows rotations, std::span<const kernels::SequenceRows> sequences,
                  const kernels::KvCache& kv, int32_t layer, kernels::FloatRows q) const override;
  void matmul(kernels::Lane& lane, kernels::Activations x, int32_t num_rows,
              const kernels::PackedMatrix& w, kernels::FloatRows out) const override;
  void matmul_add(kernels::Lane& lane, kernels::Activations x, int32_t num_rows,
                  const kernels::PackedMatrix& w, kernels::FloatRows out) const override;
  void matmul_swiglu(kernels::Lane& lane, kernels::Activations x, int32_t num_rows,
                     const kernels::PackedMatrix& gate_up, kernels::Activations out) const override;

 private:
  // Each lane adds up columns of its own.
  void tap(const kernels::Lane& lane, const kernels::Activations& x, int64_t num_rows,
           const kernels::PackedMatrix& matrix) const;

  const kernels::Ops& inner_;
  const std::set<const std::byte*> with_products_;
  // Ops are const while they are used; these are this one's own book-keeping.
  mutable std::vector<std::unique_ptr<Matrix>> matrices_;
  mutable std::map<const kernels::PackedMatrix*, Matrix*> by_matrix_;
};

}  // namespace puna::model
