// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "cli/commands.h"
#include "cli/load_progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "formats/gguf_writer.h"
#include "kernels/cpu/thread_pool.h"
#include "model/calibration.h"
#include "model/gguf_metadata.h"
#include "model/input_products.h"
#include "plan/byte_size.h"
#include "quant/quantize_folder.h"
#include "quant/quantize_model.h"

namespace puna::cli {
namespace {

namespace json = boost::json;
using formats::Checkpoint;
using plan::format_bytes;

constexpr std::string_view kShippedText = "default";

// One run of the command: what was asked for, and whether somebody pressed Ctrl-C.
class Run {
 public:
  explicit Run(const QuantizeFlags& flags) : flags_(flags) {}

  Result<int> run() {
    auto done = quantize();
    if (interrupted_) {
      fmt::print(stderr, "puna: stopped; {} was not written\n", flags_.output);
      return kInterruptedExitCode;
    }
    if (!done.ok()) return std::move(done).error();
    return 0;
  }

 private:
  Result<> quantize();
  Result<quant::QuantizeReport> to_gguf(const Checkpoint& checkpoint,
                                        const quant::QuantizeOptions& options) const;
  Result<std::optional<quant::ImportanceMatrix>> importance(const Checkpoint& checkpoint);
  Result<quant::ImportanceMatrix> calibrate(const Checkpoint& checkpoint);
  Result<model::CalibrationText> calibration_text(const Checkpoint& checkpoint) const;
  model::CalibrationOptions calibration_options();
  Result<quant::QuantizeReport> to_folder(const Checkpoint& checkpoint,
                                          quant::FolderOptions options);
  void print(const quant::QuantizeReport& report) const;
  void print_json(const quant::QuantizeReport& report) const;

  int32_t threads() const { return flags_.threads > 0 ? flags_.threads : kernels::usable_cpus(); }
  bool go_on() {
    if (signals_.wait(0)) interrupted_ = true;
    return !interrupted_;
  }

  const QuantizeFlags& flags_;
  Signals signals_;
  bool interrupted_ = false;
};

Result<model::CalibrationText> Run::calibration_text(const Checkpoint& checkpoint) const {
  ASSIGN_OR_RETURN(const model::Tokenizer tokenizer,
                   model::Tokenizer::load(checkpoint.tokenizer_source()));
  auto chosen = model::ChatTemplate::choose("", tokenizer);
  const model::ChatTemplate* chat = chosen.ok() ? &*chosen : nullptr;
  if (chat == nullptr) {
    fmt::print(stderr, "puna: calibrating without a chat template: {}\n", chosen.error().message());
  }
  model::CalibrationText text;
  if (flags_.calibration == kShippedText) {
    text = model::default_calibration_text(tokenizer, chat);
  } else {
    ASSIGN_OR_RETURN(text, model::read_calibration_text(flags_.calibration, tokenizer, chat));
  }
  fmt::print(stderr, "calibrating with {} tokens of {}\n", text.tokens.size(), text.name);
  return text;
}

model::CalibrationOptions Run::calibration_options() {
  model::CalibrationOptions options;
  options.threads = threads();
  options.progress = [this](int32_t, int32_t) { return go_on(); };
  return options;
}

Result<quant::ImportanceMatrix> Run::calibrate(const Checkpoint& checkpoint) {
  ASSIGN_OR_RETURN(const model::CalibrationText text, calibration_text(checkpoint));
  return model::collect_importance(checkpoint, text, calibration_options());
}

Result<std::optional<quant::ImportanceMatrix>> Run::importance(const Checkpoint& checkpoint) {
  std::optional<quant::ImportanceMatrix> matrix;
  if (!flags_.imatrix.empty()) {
    ASSIGN_OR_RETURN(matrix, quant::read_importance(flags_.imatrix));
  } else if (!flags_.calibration.empty() && !flags_.gptq && !flags_.awq) {
    ASSIGN_OR_RETURN(matrix, calibrate(checkpoint));
  }
  if (matrix && !flags_.imatrix_out.empty()) {
    RETURN_IF_ERROR(quant::write_importance(*matrix, flags_.imatrix_out));
  }
  return matrix;
}

Result<> Run::quantize() {
  const auto scheme = quant::find_folder_scheme(flags_.type);
  if (!scheme) RETURN_IF_ERROR(quant::find_mix(flags_.type));
  if ((flags_.gptq || flags_.awq) && scheme != quant::FolderScheme::kW4A16) {
    return Error(ErrorCode::kInvalidArgument, "{} goes with --type W4A16",
                 flags_.gptq ? "--gptq" : "--awq");
  }
  std::error_code ignored;
  if (std::filesystem::equivalent(flags_.input, flags_.output, ignored)) {
    return Error(ErrorCode::kInvalidArgument, "{}: the output would replace the input",
                 flags_.output);
  }
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(flags_.input));
  ASSIGN_OR_RETURN(const auto matrix, importance(checkpoint));
  LoadProgressPrinter printer(stderr_is_terminal(), print_to_stderr, "quantising");
  const auto progress = [&](uint64_t done, uint64_t total) {
    printer.update(done, total);
    return go_on();
  };
  const quant::ImportanceMatrix* given = matrix ? &*matrix : nullptr;
  auto report = scheme ? to_folder(checkpoint, {.scheme = *scheme,
                                                .importance = given,
                                                .threads = threads(),
                                                .progress = progress})
                       : to_gguf(checkpoint, {.mix = *quant::find_mix(flags_.type),
                                              .importance = given,
                                              .threads = threads(),
                                              .progress = progress});
  if (!report.ok()) return std::move(report).error();
  if (flags_.json) {
    print_json(*report);
  } else {
    print(*report);
  }
  return Ok{};
}

Result<quant::QuantizeReport> Run::to_folder(const Checkpoint& checkpoint,
                                             quant::FolderOptions options) {
  if (!flags_.gptq && !flags_.awq) {
    return quant::quantize_folder(checkpoint, flags_.output, options);
  }
  ASSIGN_OR_RETURN(model::CalibrationText text, calibration_text(checkpoint));
  model::InputProducts inputs(checkpoint, std::move(text), calibration_options());
  if (flags_.gptq) {
    options.factor_of = [&](formats::WeightId id) { return inputs.factor(id); };
  } else {
    options.products_of = [&](formats::WeightId id) { return inputs.products(id); };
  }
  return quant::quantize_folder(checkpoint, flags_.output, options);
}

Result<quant::QuantizeReport> Run::to_gguf(const Checkpoint& checkpoint,
                                           const quant::QuantizeOptions& options) const {
  formats::GgufWriter writer(flags_.output, {});
  RETURN_IF_ERROR(model::set_gguf_metadata(checkpoint, writer));
  if (const quant::ImportanceMatrix* matrix = options.importance) {
    const std::string dataset = matrix->datasets.empty() ? "" : matrix->datasets.front();
    RETURN_IF_ERROR(writer.set("quantize.imatrix.dataset", dataset));
    RETURN_IF_ERROR(writer.set("quantize.imatrix.entries_count",
                               static_cast<uint32_t>(matrix->entries.size())));
    RETURN_IF_ERROR(writer.set("quantize.imatrix.chunks_count", matrix->chunks));
  }
  return quant::quantize_model(checkpoint, options, writer);
}

void Run::print(const quant::QuantizeReport& report) const {
  struct Sum {
    int64_t tensors = 0;
    uint64_t bytes = 0;
    double worst_error = 0.0;
    int64_t fell_back = 0;
  };
  std::map<std::string_view, Sum> types;
  int64_t fell_back = 0;
  for (const quant::QuantizedTensor& tensor : report.tensors) {
    Sum& sum = types[tensor.stored_as];
    ++sum.tensors;
    sum.bytes += tensor.bytes;
    sum.worst_error = std::max(sum.worst_error, tensor.relative_error);
    fell_back += tensor.fell_back ? 1 : 0;
  }
  fmt::print("{}\n", flags_.output);
  for (const auto& [type, sum] : types) {
    fmt::print("  {:<7} {:>4} tensors  {:>10}  largest relative error {:.2e}\n", type, sum.tensors,
               format_bytes(sum.bytes), sum.worst_error);
  }
  if (fell_back > 0) {
    fmt::print("  {} tensors have rows that are not whole blocks of 256 and got a larger type\n",
               fell_back);
  }
  fmt::print("  {}, {:.2f} bits per weight\n", format_bytes(report.bytes),
             static_cast<double>(report.bytes) * 8.0 / static_cast<double>(report.elements));
}

void Run::print_json(const quant::QuantizeReport& report) const {
  json::array tensors;
  for (const quant::QuantizedTensor& tensor : report.tensors) {
    tensors.push_back(json::object{{"name", tensor.name},
                                   {"from", formats::tensor_type_name(tensor.from)},
                                   {"type", tensor.stored_as},
                                   {"rows", tensor.rows},
                                   {"columns", tensor.columns},
                                   {"bytes", tensor.bytes},
                                   {"relative_error", tensor.relative_error},
                                   {"importance", tensor.with_importance},
                                   {"fallback", tensor.fell_back}});
  }
  const json::object out = {{"output", flags_.output},
                            {"type", flags_.type},
                            {"bytes", report.bytes},
                            {"elements", report.elements},
                            {"tensors", std::move(tensors)}};
  fmt::print("{}\n", json::serialize(out));
}

}  // namespace

Result<int> quantize(const QuantizeFlags& flags) { return Run(flags).run(); }

}  // namespace puna::cli
