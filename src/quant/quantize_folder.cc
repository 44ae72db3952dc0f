// SPDX-License-Identifier: Apache-2.0
#include "quant/quantize_folder.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/json.hpp>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "base/numeric.h"
#include "formats/message_text.h"
#include "formats/safetensors_writer.h"
#include "formats/weight_names.h"
#include "quant/awq.h"
#include "quant/dequant.h"
#include "quant/encode_kernels.h"
#include "quant/fp8.h"
#include "quant/run_on_threads.h"

namespace puna::quant {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using Dtype = formats::SafetensorsDtype;
using formats::Checkpoint;
using formats::TensorType;
using formats::TensorView;
using formats::WeightId;
using formats::WeightRole;

constexpr uintmax_t kLargestCopied = uintmax_t{256} << 20;  // tokenizers, settings, licences
constexpr float kLargestFp8 = 448.0F;
constexpr const char* kMarker = "/.puna-unfinished";  // in a folder that may be thrown away

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

// A linear layer's bytes, in the order of the file.
struct Layer {
  std::shared_ptr<const GptqFactor> factor;
  const AwqLayer* awq = nullptr;
  std::unique_ptr<const AwqRounding> awq_rounding;
  std::vector<std::byte> codes;
  std::vector<BFloat16> scales;
  double squares = 0.0;
  double squared_errors = 0.0;
};

std::span<const std::byte> bytes_of(const std::vector<BFloat16>& values) {
  return std::as_bytes(std::span(values));
}

class FolderQuantizer {
 public:
  FolderQuantizer(const Checkpoint& checkpoint, const FolderOptions& options, std::string folder)
      : checkpoint_(checkpoint), options_(options), folder_(std::move(folder)) {}

  Result<QuantizeReport> run();

 private:
  Result<> choose_group();
  void plan();
  std::vector<Part> parts_of(const Job& job) const;
  json::object quantization_config() const;
  Result<> write_config() const;
  Result<> copy_other_files() const;
  Result<> write_weights(QuantizeReport& report);
  // Of the layer that is being written; none without AWQ.
  Result<const AwqLayer*> awq_layer(WeightId id);
  Result<Layer> quantize(const Job& job);
  bool quantize_row(const Job& job, int64_t row, std::vector<float>& values, Layer& layer,
                    double& squares, double& errors) const;
  void gptq_row(const GptqFactor& factor, int64_t row, std::vector<float>& values, Layer& layer,
                double& errors) const;
  void awq_row(WeightRole role, int64_t row, std::vector<float>& values, Layer& layer,
               double& errors) const;
  void store_int4(size_t row, std::span<const int8_t> codes, Layer& layer) const;
  void add_to_report(const Job& job, const Layer* layer, QuantizeReport& report) const;

  const Checkpoint& checkpoint_;
  const FolderOptions& options_;
  const std::string folder_;
  const FitGroup fit_ = fit_group();
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

json::object FolderQuantizer::quantization_config() const {
  const bool fp8 = options_.scheme == FolderScheme::kFp8Dynamic;
  const bool int4 = options_.scheme == FolderScheme::kW4A16;
  json::object weights = {{"num_bits", int4 ? 4 : 8},
                          {"type", fp8 ? "float" : "int"},
                          {"symmetric", true},
                          {"dynamic", false},
                          {"strategy", int4 ? "group" : "channel"},
                          {"observer", int4 ? "mse" : "minmax"}};
  weights["group_size"] = int4 ? json::value(group_) : json::value(nullptr);
  json::value activations = nullptr;
  if (!int4) {
    activations = json::object{{"num_bits", 8},
                               {"type", fp8 ? "float" : "int"},
                               {"symmetric", true},
                               {"dynamic", true},
                               {"strategy", "token"}};
  }
  const char* format = int4 ? "pack-quantized" : fp8 ? "float-quantized" : "int-quantized";
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"ignore", json::array{"lm_head"}},
          {"config_groups",
           json::object{{"group_0", json::object{{"targets", json::array{"Linear"}},
                                                 {"weights", std::move(weights)},
                                                 {"input_activations", std::move(activations)},
                                                 {"output_activations", nullptr}}}}}};
}

Result<> FolderQuantizer::write_config() const {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(checkpoint_.path() + "/config.json"));
  boost::system::error_code error;
  json::value config = json::parse(
      std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.size()), error);
  if (error || !config.is_object())
    return Error(ErrorCode::kCorrupt, "{}/config.json is no JSON object", checkpoint_.path());
  config.get_object()["quantization_config"] = quantization_config();
  std::ofstream out(folder_ + "/config.json", std::ios::binary);
  out << json::serialize(config) << "\n";
  out.close();
  if (!out.good()) return Error(ErrorCode::kIo, "{}/config.json: writing failed", folder_);
  return Ok{};
}

// Tokenizer, chat template, licence: every small file that is neither weights nor config.json.
Result<> FolderQuantizer::copy_other_files() const {
  std::error_code error;
  for (fs::directory_iterator entry(checkpoint_.path(), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const std::string extension = entry->path().extension().string();
    if (!entry->is_regular_file(error) || entry->file_size(error) > kLargestCopied ||
        name == "config.json" || name == "hf_quant_config.json" || extension == ".safetensors" ||
        extension == ".bin" || extension == ".gguf" || extension == ".pth" ||
        name.ends_with(".index.json")) {
      continue;
    }
    fs::copy_file(entry->path(), fs::path(folder_) / name, error);
    if (error) break;
  }
  if (!error) return Ok{};
  return Error(ErrorCode::kIo, "{}: copying the tokenizer's files failed: {}", folder_,
               error.message());
}

// False when the row holds something that is not finite.
bool FolderQuantizer::quantize_row(const Job& job, int64_t row, std::vector<float>& values,
                                   Layer& layer, double& squares, double& errors) const {
  const TensorView& view = *job.view;
  const auto columns = static_cast<size_t>(view.columns);
  const size_t row_bytes = view.data.size() / static_cast<size_t>(view.rows);
  const auto index = static_cast<size_t>(row);
  dequantize(view.type, view.data.subspan(index * row_bytes, row_bytes), values);
  float largest = 0.0F;
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
    largest = std::max(largest, std::fabs(value));
  }
  for (const float value : values)
    squares += static_cast<double>(value) * static_cast<double>(value);
  if (layer.factor != nullptr) {
    gptq_row(*layer.factor, row, values, layer, errors);
    return true;
  }
  if (layer.awq != nullptr) {
    awq_row(job.id.role, row, values, layer, errors);
    return true;
  }
  const bool int4 = options_.scheme == FolderScheme::kW4A16;
  const bool fp8 = options_.scheme == FolderScheme::kFp8Dynamic;
  const size_t group = int4 ? static_cast<size_t>(group_) : columns;
  for (size_t begin = 0; begin < columns; begin += group) {
    const float* importance = job.importance == nullptr ? nullptr : job.importance->data() + begin;
    float scale = largest / (fp8 ? kLargestFp8 : 127.0F);
    if (int4) scale = fit_(values.data() + begin, importance, group);
    const BFloat16 stored = to_bfloat16(scale);
    scale = to_float(stored);
    layer.scales[(index * columns + begin) / group] = stored;
    const float inverse = scale > 0.0F ? 1.0F / scale : 0.0F;
    for (size_t i = begin; i < begin + group; ++i) {
      const float wanted = values[i] * inverse;
      float decoded = 0.0F;
      if (fp8) {
        const uint8_t code = to_fp8(wanted);
        layer.codes[index * columns + i] = static_cast<std::byte>(code);
        decoded = fp8_value(code) * scale;
      } else {
        const float code =
            std::nearbyint(std::clamp(wanted, int4 ? -8.0F : -127.0F, int4 ? 7.0F : 127.0F));
        decoded = code * scale;
        if (int4) {  // eight codes in a little-endian word are two in each byte
          const auto nibble = static_cast<unsigned>(static_cast<int>(code) + 8);
          std::byte& byte = layer.codes[(index * columns + i) / 2];
          byte |= static_cast<std::byte>(nibble << (i % 2 * 4));
        } else {
          layer.codes[index * columns + i] = static_cast<std::byte>(static_cast<int8_t>(code));
        }
      }
      const auto error = static_cast<double>(values[i] - decoded);
      errors += error * error;
    }
  }
  return true;
}

void FolderQuantizer::gptq_row(const GptqFactor& factor, int64_t row, std::vector<float>& values,
                               Layer& layer, double& errors) const {
  const size_t columns = values.size();
  const auto group = static_cast<size_t>(group_);
  const auto index = static_cast<size_t>(row);
  const std::vector<float> wanted = values;
  std::vector<int8_t> codes(columns);
  const auto scales = std::span(layer.scales).subspan(index * columns / group, columns / group);
  factor.round_row(values, group_, scales, codes);
  store_int4(index, codes, layer);
  for (size_t i = 0; i < columns; ++i) {
    const float decoded = to_float(scales[i / group]) * static_cast<float>(codes[i]);
    const auto error = static_cast<double>(wanted[i] - decoded);
    errors += error * error;
  }
}

void FolderQuantizer::awq_row(WeightRole role, int64_t row, std::vector<float>& values,
                              Layer& layer, double& errors) const {
  const size_t columns = values.size();
  const auto group = static_cast<size_t>(group_);
  const auto index = static_cast<size_t>(row);
  const std::span<const float> multiplied = layer.awq->column_scales(role);
  const std::span<const float> divisors = layer.awq->row_divisors(role);
  const float divided = divisors.empty() ? 1.0F : divisors[index];
  for (size_t i = 0; i < columns; ++i) values[i] *= multiplied[i] / divided;
  std::vector<int8_t> codes(columns);
  const auto scales = std::span(layer.scales).subspan(index * columns / group, columns / group);
  layer.awq_rounding->round_row(values, scales, codes);
  store_int4(index, codes, layer);
  for (size_t i = 0; i < columns; ++i) {
    const float decoded = to_float(scales[i / group]) * static_cast<float>(codes[i]);
    const auto error = static_cast<double>((values[i] - decoded) / multiplied[i] * divided);
    errors += error * error;
  }
}

// Eight codes in a little-endian word are two in each byte.
void FolderQuantizer::store_int4(size_t row, std::span<const int8_t> codes, Layer& layer) const {
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto nibble = static_cast<unsigned>(codes[i] + 8);
    layer.codes[(row * codes.size() + i) / 2] |= static_cast<std::byte>(nibble << (i % 2 * 4));
  }
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

Result<Layer> FolderQuantizer::quantize(const Job& job) {
  const TensorView& view = *job.view;
  const bool int4 = options_.scheme == FolderScheme::kW4A16;
  if (job.importance != nullptr && static_cast<int64_t>(job.importance->size()) != view.columns) {
    return Error(ErrorCode::kInvalidArgument, "the importance matrix is of another model: {}",
                 formats::in_quotes(view.name));
  }
  const auto elements = static_cast<size_t>(view.rows * view.columns);
  Layer layer;
  if (int4 && options_.factor_of) {
    ASSIGN_OR_RETURN(layer.factor, options_.factor_of(job.id));
  }
  ASSIGN_OR_RETURN(layer.awq, awq_layer(job.id));
  if (layer.awq != nullptr) {
    ASSIGN_OR_RETURN(const auto products, options_.products_of(job.id));
    layer.awq_rounding = std::make_unique<const AwqRounding>(
        products, layer.awq->column_scales(job.id.role), group_);
  }
  layer.codes.resize(int4 ? elements / 2 : elements);
  layer.scales.resize(int4 ? elements / static_cast<size_t>(group_)
                           : static_cast<size_t>(view.rows));
  std::vector<double> squares(static_cast<size_t>(view.rows));
  std::vector<double> errors(squares.size());
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> bad_row{-1};
  const auto work = [&] {
    std::vector<float> values(static_cast<size_t>(view.columns));
    for (int64_t row = next++; row < view.rows; row = next++) {
      const auto index = static_cast<size_t>(row);
      if (!quantize_row(job, row, values, layer, squares[index], errors[index])) bad_row = row;
    }
  };
  run_on_threads(options_.threads, work);
  if (bad_row >= 0) {
    return Error(ErrorCode::kCorrupt, "{}: row {} of tensor {} holds a weight that is not finite",
                 checkpoint_.path(), bad_row.load(), formats::in_quotes(view.name));
  }
  for (size_t i = 0; i < squares.size(); ++i) {
    layer.squares += squares[i];
    layer.squared_errors += errors[i];
  }
  return layer;
}

void FolderQuantizer::add_to_report(const Job& job, const Layer* layer,
                                    QuantizeReport& report) const {
  QuantizedTensor tensor;
  tensor.name = job.name;
  tensor.from = job.view->type;
  tensor.to = job.view->type;
  tensor.stored_as = formats::tensor_type_name(job.view->type);
  tensor.rows = job.view->rows;
  tensor.columns = job.view->columns;
  tensor.bytes = job.view->data.size();
  if (layer != nullptr) {
    tensor.stored_as = options_.scheme == FolderScheme::kW4A16  ? "int4"
                       : options_.scheme == FolderScheme::kW8A8 ? "int8"
                                                                : "fp8";
    tensor.bytes = layer->codes.size() + layer->scales.size() * sizeof(BFloat16);
    tensor.relative_error = layer->squares > 0.0 ? layer->squared_errors / layer->squares : 0.0;
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
      ASSIGN_OR_RETURN(const Layer layer, quantize(job));
      RETURN_IF_ERROR(writer.write(layer.codes));
      RETURN_IF_ERROR(writer.write(bytes_of(layer.scales)));
      const int64_t shape[2] = {job.view->rows, job.view->columns};
      if (options_.scheme == FolderScheme::kW4A16)
        RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(shape))));
      add_to_report(job, &layer, report);
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
  RETURN_IF_ERROR(write_config());
  RETURN_IF_ERROR(copy_other_files());
  RETURN_IF_ERROR(write_weights(report));
  return report;
}

// A new folder with the marker in it. One that a killed run left is thrown away; anything else of
// that name is somebody's.
Result<> make_partial(const std::string& partial) {
  std::error_code error;
  const bool left_over = fs::exists(partial + kMarker, error);
  if (left_over) fs::remove_all(partial, error);
  if (!left_over && fs::exists(partial, error)) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: it exists and is not puna's; the output is made there: move it away",
                 partial);
  }
  if (!fs::create_directory(partial, error)) {
    return Error(ErrorCode::kIo, "{}: creating it failed: {}", partial, error.message());
  }
  std::ofstream marker(partial + kMarker);
  marker.close();
  if (marker.good()) return Ok{};
  fs::remove_all(partial, error);
  return Error(ErrorCode::kIo, "{}: writing in it failed", partial);
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
  std::error_code error;
  if (fs::exists(folder, error)) {
    return Error(ErrorCode::kInvalidArgument, "{}: it exists already; name a new folder", folder);
  }
  const std::string partial = folder + ".partial";
  RETURN_IF_ERROR(make_partial(partial));
  auto report = FolderQuantizer(checkpoint, options, partial).run();
  if (report.ok()) fs::remove(partial + kMarker, error);
  if (report.ok() && !error) fs::rename(partial, folder, error);
  if (report.ok() && !error) return report;
  std::error_code ignored;
  fs::remove_all(partial, ignored);
  if (!report.ok()) return report;
  return Error(ErrorCode::kIo, "{}: renaming failed: {}", folder, error.message());
}

}  // namespace puna::quant
