// SPDX-License-Identifier: Apache-2.0
#include "quant/quantize_folder.h"

#include <array>
#include <cctype>
#include <cstring>
#include <utility>
#include <vector>

#include "formats/message_text.h"
#include "formats/safetensors_writer.h"
#include "formats/weight_names.h"
#include "quant/folder_files.h"
#include "quant/round_matrix.h"

namespace puna::quant {
namespace {

using Dtype = formats::SafetensorsDtype;
using formats::Checkpoint;
using formats::TensorType;
using formats::TensorView;
using formats::WeightId;
using formats::WeightRole;

constexpr std::array<WeightRole, 7> kLinear = {
    WeightRole::kAttnQ,   WeightRole::kAttnK, WeightRole::kAttnV,  WeightRole::kAttnOutput,
    WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown};

struct Part {
  std::string name;
  Dtype dtype;
  std::vector<uint64_t> dims;
};

// One tensor of the input and what becomes of it.
struct Job {
  WeightId id;
  const TensorView* view = nullptr;
  std::string name;  // of the weight, in the folder
  bool linear = false;
  const std::vector<float>* importance = nullptr;
};

class FolderQuantizer {
 public:
  FolderQuantizer(const Checkpoint& checkpoint, const FolderOptions& options, std::string folder)
      : checkpoint_(checkpoint), options_(options), folder_(std::move(folder)) {}

  Result<QuantizeReport> run();

 private:
  Result<> choose_group();
  void plan();
  std::vector<Part> parts_of(const Job& job) const;
  Result<> write_weights(QuantizeReport& report);
  // Of the layer that is being written; none without AWQ.
  Result<const AwqLayer*> awq_layer(WeightId id);
  Result<RoundRow> rounding_of(const Job& job);
  Result<RoundedMatrix> round(const Job& job);
  void add_to_report(const Job& job, const RoundedMatrix* matrix, QuantizeReport& report) const;

  const Checkpoint& checkpoint_;
  const FolderOptions& options_;
  const std::string folder_;
  int64_t group_ = 0;  // columns that share a scale; W4A16
  std::vector<Job> jobs_;
  std::pair<int32_t, AwqLayer> awq_ = {-1, {}};
};

Result<> FolderQuantizer::choose_group() {
  const formats::ModelSpec& spec = checkpoint_.spec();
  for (const int64_t size : {128, 64, 32}) {
    if (spec.hidden_size % size == 0 && spec.intermediate_size % size == 0 &&
        spec.q_size() % size == 0) {
      group_ = size;
      return Ok{};
    }
  }
  return Error(ErrorCode::kUnsupported, "{}: rows are no multiple of 32 columns",
               checkpoint_.path());
}

void FolderQuantizer::plan() {
  const formats::ModelSpec& spec = checkpoint_.spec();
  const auto add = [&](WeightId id, bool linear) {
    Job job{id, &checkpoint_.tensor(id), formats::hugging_face_weight_name(id), linear, nullptr};
    if (linear && options_.importance != nullptr) {
      job.importance = options_.importance->find(formats::gguf_weight_name(id));
    }
    jobs_.push_back(std::move(job));
  };
  add({WeightRole::kTokenEmbedding}, false);
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    add({WeightRole::kAttnNorm, layer}, false);
    add({WeightRole::kFfnNorm, layer}, false);
    for (const WeightRole role : kLinear) add({role, layer}, true);
  }
  add({WeightRole::kOutputNorm}, false);
  if (!spec.tied_head) add({WeightRole::kOutputHead}, false);
}

std::vector<Part> FolderQuantizer::parts_of(const Job& job) const {
  const auto rows = static_cast<uint64_t>(job.view->rows);
  const auto columns = static_cast<uint64_t>(job.view->columns);
  if (!job.linear) {
    const Dtype dtype = job.view->type == TensorType::kF16    ? Dtype::kF16
                        : job.view->type == TensorType::kBF16 ? Dtype::kBF16
                                                              : Dtype::kF32;
    const bool vector = rows == 1;
    return {{job.name, dtype,
             vector ? std::vector<uint64_t>{columns} : std::vector<uint64_t>{rows, columns}}};
  }
  const std::string base = job.name.substr(0, job.name.size() - std::strlen(".weight"));
  if (options_.scheme == FolderScheme::kW4A16) {
    return {{base + ".weight_packed", Dtype::kI32, {rows, columns / 8}},
            {base + ".weight_scale", Dtype::kBF16, {rows, columns / static_cast<uint64_t>(group_)}},
            {base + ".weight_shape", Dtype::kI64, {2}}};
  }
  const bool fp8 = options_.scheme == FolderScheme::kFp8Dynamic;
  return {{job.name, fp8 ? Dtype::kF8E4M3 : Dtype::kI8, {rows, columns}},
          {base + ".weight_scale", Dtype::kBF16, {rows, 1}}};
}

Result<const AwqLayer*> FolderQuantizer::awq_layer(WeightId id) {
  if (!options_.products_of || id.layer < 0) return nullptr;
  if (awq_.first != id.layer) {
    ASSIGN_OR_RETURN(awq_.second, AwqLayer::search(checkpoint_, id.layer, options_.products_of,
                                                   group_, options_.threads));
    awq_.first = id.layer;
  }
  return &awq_.second;
}

Result<RoundRow> FolderQuantizer::rounding_of(const Job& job) {
  if (options_.scheme == FolderScheme::kW4A16 && options_.factor_of) {
    ASSIGN_OR_RETURN(auto factor, options_.factor_of(job.id));
    return round_by_gptq(std::move(factor), group_);
  }
  ASSIGN_OR_RETURN(const AwqLayer* awq, awq_layer(job.id));
  if (awq != nullptr) {
    ASSIGN_OR_RETURN(const auto products, options_.products_of(job.id));
    return round_by_awq(*awq, job.id.role, products, group_);
  }
  return round_to_nearest(options_.scheme, group_, job.importance);
}

Result<RoundedMatrix> FolderQuantizer::round(const Job& job) {
  const TensorView& view = *job.view;
  if (job.importance != nullptr && static_cast<int64_t>(job.importance->size()) != view.columns) {
    return Error(ErrorCode::kInvalidArgument, "the importance matrix is of another model: {}",
                 formats::in_quotes(view.name));
  }
  ASSIGN_OR_RETURN(const RoundRow round_row, rounding_of(job));
  return round_matrix(checkpoint_, job.id, options_.scheme, group_, round_row, options_.threads);
}

void FolderQuantizer::add_to_report(const Job& job, const RoundedMatrix* matrix,
                                    QuantizeReport& report) const {
  QuantizedTensor tensor;
  tensor.name = job.name;
  tensor.from = job.view->type;
  tensor.to = job.view->type;
  tensor.stored_as = formats::tensor_type_name(job.view->type);
  tensor.rows = job.view->rows;
  tensor.columns = job.view->columns;
  tensor.bytes = job.view->data.size();
  if (matrix != nullptr) {
    tensor.stored_as = options_.scheme == FolderScheme::kW4A16  ? "int4"
                       : options_.scheme == FolderScheme::kW8A8 ? "int8"
                                                                : "fp8";
    tensor.bytes = matrix->codes.size() + matrix->scales.size() * sizeof(BFloat16);
    tensor.relative_error = matrix->squares > 0.0 ? matrix->squared_errors / matrix->squares : 0.0;
    tensor.with_importance = job.importance != nullptr;
  }
  report.bytes += tensor.bytes;
  report.elements += static_cast<uint64_t>(tensor.rows * tensor.columns);
  report.tensors.push_back(std::move(tensor));
}

Result<> FolderQuantizer::write_weights(QuantizeReport& report) {
  formats::SafetensorsWriter writer(folder_ + "/model.safetensors");
  uint64_t total = 0;
  for (const Job& job : jobs_) {
    if (!job.linear && formats::tensor_type_info(job.view->type).block_elements > 1) {
      return Error(ErrorCode::kUnsupported, "{}: tensor {} is quantised already",
                   checkpoint_.path(), formats::in_quotes(job.view->name));
    }
    for (const Part& part : parts_of(job)) {
      RETURN_IF_ERROR(writer.add_tensor(part.name, part.dtype, part.dims));
    }
    total += job.view->data.size();
  }
  RETURN_IF_ERROR(writer.begin());
  uint64_t done = 0;
  for (const Job& job : jobs_) {
    if (job.linear) {
      ASSIGN_OR_RETURN(const RoundedMatrix matrix, round(job));
      RETURN_IF_ERROR(writer.write(matrix.codes));
      RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(matrix.scales))));
      const int64_t shape[2] = {job.view->rows, job.view->columns};
      if (options_.scheme == FolderScheme::kW4A16)
        RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(shape))));
      add_to_report(job, &matrix, report);
    } else {
      ASSIGN_OR_RETURN(const AwqLayer* awq, awq_layer(job.id));
      RETURN_IF_ERROR(writer.write(awq == nullptr ? job.view->data : awq->norm(job.id.role)));
      add_to_report(job, nullptr, report);
    }
    checkpoint_.drop_pages(*job.view);
    done += job.view->data.size();
    if (options_.progress && !options_.progress(done, total))
      return Error(ErrorCode::kUnavailable, "stopped; no folder was written");
  }
  return writer.finish();
}

Result<QuantizeReport> FolderQuantizer::run() {
  RETURN_IF_ERROR(choose_group());
  plan();
  QuantizeReport report;
  RETURN_IF_ERROR(write_folder_config(checkpoint_, options_.scheme, group_, folder_));
  RETURN_IF_ERROR(copy_other_files(checkpoint_.path(), folder_));
  RETURN_IF_ERROR(write_weights(report));
  return report;
}

}  // namespace

std::optional<FolderScheme> find_folder_scheme(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (upper == "FP8_DYNAMIC") return FolderScheme::kFp8Dynamic;
  if (upper == "W8A8") return FolderScheme::kW8A8;
  if (upper == "W4A16") return FolderScheme::kW4A16;
  return std::nullopt;
}

Result<QuantizeReport> quantize_folder(const Checkpoint& checkpoint, const std::string& folder,
                                       const FolderOptions& options) {
  if (checkpoint.tokenizer_source().gguf != nullptr) {
    return Error(ErrorCode::kUnsupported,
                 "{}: a compressed-tensors folder can be made of a Hugging Face folder only, which "
                 "has the tokenizer's files",
                 checkpoint.path());
  }
  PartialFolder partial(folder);
  RETURN_IF_ERROR(partial.make());
  ASSIGN_OR_RETURN(QuantizeReport report,
                   FolderQuantizer(checkpoint, options, partial.path()).run());
  RETURN_IF_ERROR(partial.put_in_place());
  return report;
}

}  // namespace puna::quant
