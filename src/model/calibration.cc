// SPDX-License-Identifier: Apache-2.0
#include "model/calibration.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "base/mapped_file.h"
#include "formats/weight_names.h"
#include "kernels/cpu/isa.h"
#include "model/calibration_run.h"
#include "model/llama.h"

namespace puna::model {
namespace {

namespace json = boost::json;
using formats::Checkpoint;
using formats::WeightId;
using formats::WeightRole;

constexpr std::string_view kDefaultLines =
#include "model/calibration_mixture.inc"
    ;

constexpr size_t kMaxTextBytes = size_t{64} << 20;
// Llama 3.2's template states a date; the text must not change from day to day.
constexpr std::string_view kDate = "26 Jul 2024";

void append(std::vector<TokenId>& tokens, const std::vector<TokenId>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

// The tokens of one line, or nothing when it is no object of the known shapes.
std::optional<std::vector<TokenId>> line_tokens(std::string_view line, const Tokenizer& tokenizer,
                                                const ChatTemplate* chat) {
  boost::system::error_code error;
  const json::value document = json::parse(line, error);
  const json::object* object = error ? nullptr : document.if_object();
  if (object == nullptr) return std::nullopt;
  if (const json::value* text = object->if_contains("text"); text != nullptr && text->is_string()) {
    return tokenizer.encode(std::string_view(text->get_string()), {.add_bos = true});
  }
  const json::value* list = object->if_contains("messages");
  if (list == nullptr || !list->is_array()) return std::nullopt;
  std::vector<ChatMessage> messages;
  std::string plain;
  for (const json::value& item : list->get_array()) {
    const json::object* message = item.if_object();
    if (message == nullptr) return std::nullopt;
    const json::value* role = message->if_contains("role");
    const json::value* content = message->if_contains("content");
    if (role == nullptr || !role->is_string() || content == nullptr || !content->is_string())
      return std::nullopt;
    messages.push_back({std::string(role->get_string()), std::string(content->get_string())});
    plain += messages.back().content + "\n\n";
  }
  if (chat != nullptr) {
    auto tokens = chat->encode(tokenizer, messages, /*add_generation_prompt=*/false, kDate);
    if (tokens.ok()) return std::move(tokens).value();
  }
  return tokenizer.encode(plain, {.add_bos = true});
}

// Nothing when some line is not an object of the known shapes: then the whole is plain text.
std::optional<std::vector<TokenId>> lines_tokens(std::string_view text, const Tokenizer& tokenizer,
                                                 const ChatTemplate* chat) {
  std::vector<TokenId> tokens;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    auto more = line_tokens(line, tokenizer, chat);
    if (!more) return std::nullopt;
    append(tokens, *more);
  }
  return tokens;
}

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

}  // namespace

CalibrationText default_calibration_text(const Tokenizer& tokenizer, const ChatTemplate* chat) {
  return {"puna-mixture-1",
          lines_tokens(kDefaultLines, tokenizer, chat).value_or(std::vector<TokenId>())};
}

Result<CalibrationText> read_calibration_text(const std::string& path, const Tokenizer& tokenizer,
                                              const ChatTemplate* chat) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  if (file.size() > kMaxTextBytes) {
    return Error(ErrorCode::kInvalidArgument, "{}: {} bytes of text, at most {} are read", path,
                 file.size(), kMaxTextBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  CalibrationText result{file_name(path), {}};
  if (auto tokens = lines_tokens(text, tokenizer, chat)) {
    result.tokens = std::move(*tokens);
  } else {
    result.tokens = tokenizer.encode(text, {.add_bos = true});
  }
  return result;
}

namespace {

// The weights of each matrix by where the file holds them.
std::map<const std::byte*, std::string> weights_by_data(const Checkpoint& checkpoint) {
  std::map<const std::byte*, std::string> names;
  for (int32_t layer = 0; layer < checkpoint.spec().num_layers; ++layer) {
    for (const WeightRole role :
         {WeightRole::kAttnQ, WeightRole::kAttnK, WeightRole::kAttnV, WeightRole::kAttnOutput,
          WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown}) {
      const WeightId id{role, layer};
      names[checkpoint.tensor(id).data.data()] = formats::gguf_weight_name(id);
    }
  }
  return names;
}

Result<quant::ImportanceMatrix> importance_of(const TappedOps& ops, const Checkpoint& checkpoint) {
  const auto names = weights_by_data(checkpoint);
  quant::ImportanceMatrix matrix;
  for (const auto& tapped : ops.matrices()) {
    std::vector<float> means;
    for (const double sum : tapped->sums) {
      means.push_back(
          static_cast<float>(sum / static_cast<double>(std::max<uint64_t>(tapped->rows, 1))));
      if (!std::isfinite(means.back())) {
        return Error(ErrorCode::kCorrupt, "{}: an activation is not finite: the model is broken",
                     checkpoint.path());
      }
    }
    for (const std::byte* part : tapped->parts) {
      const auto name = names.find(part);
      if (name == names.end()) continue;  // the output head
      matrix.entries[name->second] = {means, tapped->rows};
    }
  }
  return matrix;
}

}  // namespace

Result<int32_t> run_calibration(const Checkpoint& checkpoint, const CalibrationText& text,
                                const CalibrationOptions& options, TappedOps& ops,
                                kernels::ThreadPool& pool) {
  const auto chunk = static_cast<size_t>(options.chunk_tokens);
  auto chunks = static_cast<int32_t>(text.tokens.size() / chunk);
  if (options.max_chunks > 0) chunks = std::min(chunks, options.max_chunks);
  if (chunks == 0) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: {} tokens of text to calibrate with, at least {} are needed", text.name,
                 text.tokens.size(), chunk);
  }
  std::vector<int32_t> blocks((chunk + kernels::kKvBlockTokens - 1) / kernels::kKvBlockTokens);
  std::iota(blocks.begin(), blocks.end(), 0);
  ASSIGN_OR_RETURN(const Llama llama,
                   Llama::create(checkpoint, ops,
                                 {.max_rows = options.chunk_tokens,
                                  .max_logit_rows = 1,
                                  .num_blocks = static_cast<int32_t>(blocks.size())}));
  for (int32_t i = 0; i < chunks; ++i) {
    const kernels::SequenceRows sequence{0, options.chunk_tokens, 0, blocks.data()};
    const LlamaStep step{
        .tokens = std::span(text.tokens).subspan(static_cast<size_t>(i) * chunk, chunk),
        .sequences = {&sequence, 1},
        .logit_rows = {},
        .every_row = true};
    pool.run([&](kernels::Lane& lane) { llama.forward(lane, step); });
    if (options.progress && !options.progress(i + 1, chunks)) {
      return Error(ErrorCode::kUnavailable, "stopped while calibrating; nothing was written");
    }
  }
  return chunks;
}

Result<quant::ImportanceMatrix> collect_importance(const Checkpoint& checkpoint,
                                                   const CalibrationText& text,
                                                   const CalibrationOptions& options) {
  ASSIGN_OR_RETURN(auto pool, kernels::ThreadPool::create(options.threads));
  ASSIGN_OR_RETURN(const auto inner, exact_ops(*pool));
  TappedOps ops(*inner);
  ASSIGN_OR_RETURN(const int32_t chunks, run_calibration(checkpoint, text, options, ops, *pool));
  ASSIGN_OR_RETURN(quant::ImportanceMatrix matrix, importance_of(ops, checkpoint));
  matrix.datasets = {text.name};
  matrix.chunks = static_cast<uint32_t>(chunks);
  matrix.chunk_tokens = static_cast<uint32_t>(options.chunk_tokens);
  return matrix;
}

Result<std::unique_ptr<kernels::Ops>> exact_ops(kernels::ThreadPool& pool) {
  return kernels::make_cpu_ops("", {.activations = kernels::ActivationMode::kFloat, .pool = &pool});
}

}  // namespace puna::model
