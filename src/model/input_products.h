// SPDX-License-Identifier: Apache-2.0
// What GPTQ and AWQ need to know of each matrix's inputs (quant/gptq.h, quant/awq.h), from the
// model's own activations on a text. Products of all pairs of columns are large, so as many layers
// as fit a budget are measured at a time; for the next ones the text runs again. One thread.
//
//   InputProducts inputs(checkpoint, text, options);
//   ASSIGN_OR_RETURN(auto products, inputs.products({WeightRole::kFfnDown, 3}));
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "model/calibration.h"
#include "quant/gptq.h"

namespace puna::model {

class InputProducts {
 public:
  // The checkpoint must outlive the object.
  InputProducts(const formats::Checkpoint& checkpoint, CalibrationText text,
                CalibrationOptions options, uint64_t budget_bytes = uint64_t{1} << 30)
      : checkpoint_(checkpoint),
        text_(std::move(text)),
        options_(std::move(options)),
        budget_bytes_(budget_bytes) {}

  // Of a matrix of a layer; ask layer by layer, rising. Errors: as collect_importance().
  // Sums of x[i] * x[j] over the inputs x, [columns, columns], the lower triangle. Valid until a
  // matrix of another layer is asked for.
  Result<std::span<const float>> products(formats::WeightId id);
  // Made of the products, and in their place: of one matrix ask for the one or for the other.
  Result<std::shared_ptr<const quant::GptqFactor>> factor(formats::WeightId id);

 private:
  Result<> measure(int32_t first_layer);

  const formats::Checkpoint& checkpoint_;
  const CalibrationText text_;
  const CalibrationOptions options_;
  const uint64_t budget_bytes_;
  int32_t first_ = 0;
  int32_t end_ = 0;  // of the layers that are measured
  // By where the file holds a matrix's first part: q for q, k and v, gate for gate and up.
  std::map<const std::byte*, std::vector<float>> products_;
  std::pair<const std::byte*, std::shared_ptr<const quant::GptqFactor>> last_;
};

}  // namespace puna::model
