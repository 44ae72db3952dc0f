// SPDX-License-Identifier: Apache-2.0
#include "quant/quantize_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "formats/message_text.h"
#include "formats/weight_names.h"
#include "quant/dequant.h"
#include "quant/encode.h"
#include "quant/run_on_threads.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::ModelSpec;
using formats::TensorType;
using formats::TensorView;
using formats::WeightId;
using formats::WeightRole;

constexpr uint32_t kQuantizationVersion = 2;  // of the block layouts; source: ggml docs/gguf.md
constexpr int64_t kSlabElements = int64_t{8} << 20;  // 32 MiB as floats
constexpr int64_t kTaskElements = int64_t{1} << 16;  // rows of one thread at a time
// The error is estimated on every eighth row: decoding takes as long as the smaller searches.
constexpr int64_t kSampledRows = 8;
constexpr int64_t kSampledFrom = 256;
// Scales are float16; beyond this a block's largest code times its scale would be infinite.
constexpr float kLargestMagnitude = 65504.0F;

constexpr std::string_view kRopeFreqs = "rope_freqs.weight";

// Where row `row` of GGUF's q or k is in a half-split file: pairs (2i, 2i + 1) of a head are its
// rows i and i + head_dim / 2.
int64_t half_split_row(int64_t row, int64_t head_dim) {
  const int64_t within = row % head_dim;
  return row - within + within / 2 + within % 2 * (head_dim / 2);
}

struct TensorJob {
  WeightId id;
  QuantizedTensor tensor;
  const TensorView* view = nullptr;
  const std::vector<float>* importance = nullptr;
  bool permuted = false;
};

// Without a branch per value, so that it becomes vectors. NaN is not within anything.
bool all_within(std::span<const float> values, float largest) {
  int beyond = 0;
  for (const float value : values) beyond |= static_cast<int>(!(std::fabs(value) <= largest));
  return beyond == 0;
}

// What the threads found in a slab.
struct SlabResult {
  double squares = 0.0;
  double squared_errors = 0.0;
  int64_t bad_row = -1;
};

class Quantizer {
 public:
  Quantizer(const Checkpoint& checkpoint, const QuantizeOptions& options,
            formats::GgufWriter& writer)
      : checkpoint_(checkpoint), options_(options), writer_(writer) {}

  Result<QuantizeReport> run();

 private:
  Result<> plan();
  Result<> plan_weight(WeightId id);
  Result<> write_rope_divisors();
  Result<> write_tensor(TensorJob& job);
  SlabResult encode_slab(const TensorJob& job, int64_t first_row, int64_t num_rows,
                         std::vector<std::byte>& out) const;
  SlabResult encode_rows(const TensorJob& job, int64_t first_row, int64_t begin, int64_t end,
                         std::vector<std::byte>& out) const;
  bool scaled_rope() const;

  const Checkpoint& checkpoint_;
  const QuantizeOptions& options_;
  formats::GgufWriter& writer_;
  std::vector<TensorJob> jobs_;
  uint64_t total_bytes_ = 0;
  uint64_t done_bytes_ = 0;
  size_t used_importance_ = 0;
};

bool Quantizer::scaled_rope() const {
  const std::vector<float>& divisors = checkpoint_.spec().rope_divisors;
  return std::any_of(divisors.begin(), divisors.end(), [](float d) { return d != 1.0F; });
}

Result<> Quantizer::plan_weight(WeightId id) {
  const ModelSpec& spec = checkpoint_.spec();
  TensorJob job;
  job.id = id;
  job.view = &checkpoint_.tensor(id);
  QuantizedTensor& tensor = job.tensor;
  tensor.name = formats::gguf_weight_name(id);
  tensor.from = job.view->type;
  tensor.rows = job.view->rows;
  tensor.columns = job.view->columns;
  const bool matters = options_.importance != nullptr;
  tensor.to = mix_type(options_.mix, id, spec, tensor.columns, matters);
  tensor.stored_as = formats::tensor_type_name(tensor.to);
  constexpr int64_t kWholeBlocks = int64_t{1} << 20;
  tensor.fell_back = tensor.to != mix_type(options_.mix, id, spec, kWholeBlocks, matters);
  job.permuted = spec.rope_layout == formats::RopeLayout::kHalfSplit &&
                 (id.role == WeightRole::kAttnQ || id.role == WeightRole::kAttnK);
  if (matters && tensor.rows > 1) job.importance = options_.importance->find(tensor.name);
  if (job.importance != nullptr) {
    if (static_cast<int64_t>(job.importance->size()) != tensor.columns) {
      return Error(ErrorCode::kInvalidArgument,
                   "the importance matrix has {} columns for {}, the model {}: it is of another "
                   "model",
                   job.importance->size(), formats::in_quotes(tensor.name), tensor.columns);
    }
    tensor.with_importance = true;
    ++used_importance_;
  }
  const auto columns = static_cast<uint64_t>(tensor.columns);
  const auto rows = static_cast<uint64_t>(tensor.rows);
  tensor.bytes =
      *formats::tensor_bytes(tensor.to, columns * rows);  // as large as the input at most
  std::vector<uint64_t> dims = {columns};
  if (id.role != WeightRole::kOutputNorm && id.role != WeightRole::kAttnNorm &&
      id.role != WeightRole::kFfnNorm) {
    dims.push_back(rows);
  }
  RETURN_IF_ERROR(writer_.add_tensor(tensor.name, tensor.to, std::move(dims)));
  total_bytes_ += job.view->data.size();
  jobs_.push_back(std::move(job));
  return Ok{};
}

Result<> Quantizer::plan() {
  const ModelSpec& spec = checkpoint_.spec();
  RETURN_IF_ERROR(writer_.set("general.file_type", mix_file_type(options_.mix)));
  RETURN_IF_ERROR(writer_.set("general.quantization_version", kQuantizationVersion));
  if (scaled_rope()) {
    RETURN_IF_ERROR(writer_.add_tensor(kRopeFreqs, TensorType::kF32, {spec.rope_divisors.size()}));
  }
  RETURN_IF_ERROR(plan_weight({WeightRole::kTokenEmbedding}));
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    for (const WeightRole role : {WeightRole::kAttnNorm, WeightRole::kAttnQ, WeightRole::kAttnK,
                                  WeightRole::kAttnV, WeightRole::kAttnOutput, WeightRole::kFfnNorm,
                                  WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown}) {
      RETURN_IF_ERROR(plan_weight({role, layer}));
    }
  }
  RETURN_IF_ERROR(plan_weight({WeightRole::kOutputNorm}));
  if (!spec.tied_head) RETURN_IF_ERROR(plan_weight({WeightRole::kOutputHead}));
  if (options_.importance != nullptr && used_importance_ == 0) {
    return Error(ErrorCode::kInvalidArgument,
                 "the importance matrix names no weight of this model: it is of another model");
  }
  return Ok{};
}

Result<> Quantizer::write_rope_divisors() {
  return writer_.write(std::as_bytes(std::span(checkpoint_.spec().rope_divisors)));
}

// Rows [begin, end) of the slab that starts at first_row.
SlabResult Quantizer::encode_rows(const TensorJob& job, int64_t first_row, int64_t begin,
                                  int64_t end, std::vector<std::byte>& out) const {
  const TensorView& view = *job.view;
  const auto columns = static_cast<size_t>(view.columns);
  const size_t row_in = view.data.size() / static_cast<size_t>(view.rows);
  const size_t row_out = *formats::tensor_bytes(job.tensor.to, columns);
  const bool whole = formats::tensor_type_info(job.tensor.to).block_elements > 1;
  std::vector<float> values(columns);
  std::vector<float> decoded(columns);
  SlabResult result;
  for (int64_t row = begin; row < end; ++row) {
    int64_t source = first_row + row;
    if (job.permuted) source = half_split_row(source, checkpoint_.spec().head_dim);
    dequantize(view.type, view.data.subspan(static_cast<size_t>(source) * row_in, row_in), values);
    if (!all_within(values, whole ? kLargestMagnitude : std::numeric_limits<float>::max())) {
      result.bad_row = source;
      return result;
    }
    const auto target = std::span(out).subspan(static_cast<size_t>(row) * row_out, row_out);
    if (view.type == job.tensor.to) {  // nothing to lose by coding it again
      std::memcpy(target.data(), view.data.data() + static_cast<size_t>(source) * row_in, row_out);
      continue;
    }
    encode(job.tensor.to, values, target,
           job.importance == nullptr ? std::span<const float>() : std::span(*job.importance));
    if (source % kSampledRows != 0 && view.rows >= kSampledFrom) continue;
    dequantize(job.tensor.to, target, decoded);
    float squares = 0.0F;
    float errors = 0.0F;
    for (size_t i = 0; i < columns; ++i) {
      squares += values[i] * values[i];
      errors += (values[i] - decoded[i]) * (values[i] - decoded[i]);
    }
    result.squares += static_cast<double>(squares);
    result.squared_errors += static_cast<double>(errors);
  }
  return result;
}

SlabResult Quantizer::encode_slab(const TensorJob& job, int64_t first_row, int64_t num_rows,
                                  std::vector<std::byte>& out) const {
  const int64_t task_rows = std::max<int64_t>(1, kTaskElements / job.tensor.columns);
  const int64_t tasks = (num_rows + task_rows - 1) / task_rows;
  std::vector<SlabResult> results(static_cast<size_t>(tasks));
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t task = next++; task < tasks; task = next++) {
      const int64_t begin = task * task_rows;
      results[static_cast<size_t>(task)] =
          encode_rows(job, first_row, begin, std::min(begin + task_rows, num_rows), out);
    }
  };
  run_on_threads(std::min<int64_t>(options_.threads, tasks), work);
  SlabResult sum;  // in the order of the rows, so that it does not depend on the threads
  for (const SlabResult& result : results) {
    sum.squares += result.squares;
    sum.squared_errors += result.squared_errors;
    if (sum.bad_row < 0) sum.bad_row = result.bad_row;
  }
  return sum;
}

Result<> Quantizer::write_tensor(TensorJob& job) {
  const TensorView& view = *job.view;
  const int64_t slab_rows = std::max<int64_t>(1, kSlabElements / view.columns);
  const auto row_out = job.tensor.bytes / static_cast<uint64_t>(view.rows);
  double squares = 0.0;
  double squared_errors = 0.0;
  std::vector<std::byte> out;
  for (int64_t first = 0; first < view.rows; first += slab_rows) {
    const int64_t rows = std::min(slab_rows, view.rows - first);
    out.resize(static_cast<size_t>(rows) * row_out);
    const SlabResult result = encode_slab(job, first, rows, out);
    if (result.bad_row >= 0) {
      return Error(ErrorCode::kCorrupt,
                   "{}: row {} of tensor {} holds a weight that is not finite or beyond +-{}",
                   checkpoint_.path(), result.bad_row, formats::in_quotes(view.name),
                   kLargestMagnitude);
    }
    squares += result.squares;
    squared_errors += result.squared_errors;
    RETURN_IF_ERROR(writer_.write(out));
    done_bytes_ += view.data.size() / static_cast<size_t>(view.rows) * static_cast<size_t>(rows);
    if (options_.progress && !options_.progress(done_bytes_, total_bytes_)) {
      return Error(ErrorCode::kUnavailable, "stopped; no file was written");
    }
  }
  job.tensor.relative_error = squares > 0.0 ? squared_errors / squares : 0.0;
  checkpoint_.drop_pages(view);
  return Ok{};
}

Result<QuantizeReport> Quantizer::run() {
  RETURN_IF_ERROR(plan());
  RETURN_IF_ERROR(writer_.begin());
  if (scaled_rope()) RETURN_IF_ERROR(write_rope_divisors());
  QuantizeReport report;
  for (TensorJob& job : jobs_) {
    RETURN_IF_ERROR(write_tensor(job));
    report.bytes += job.tensor.bytes;
    report.elements += static_cast<uint64_t>(job.tensor.rows * job.tensor.columns);
    report.tensors.push_back(job.tensor);
  }
  RETURN_IF_ERROR(writer_.finish());
  return report;
}

}  // namespace

Result<QuantizeReport> quantize_model(const Checkpoint& checkpoint, const QuantizeOptions& options,
                                      formats::GgufWriter& writer) {
  CHECK(options.threads >= 1);
  return Quantizer(checkpoint, options, writer).run();
}

}  // namespace puna::quant
