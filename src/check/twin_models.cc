// SPDX-License-Identifier: Apache-2.0
#include "check/twin_models.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "model/llama.h"

namespace puna::check {
namespace {

// Tokens in a step, and how many of them with logits: 64 rows of 128,256 floats are 33 MB.
constexpr int32_t kRows = 256;
constexpr int32_t kLogitRows = 64;

Error differs(std::string_view what, double base, double variant) {
  return Error(ErrorCode::kInvalidArgument,
               "the variant is no form of the base: {} {} there, {} here", what, base, variant);
}

}  // namespace

Result<> check_same_shape(const formats::ModelSpec& base, const formats::ModelSpec& variant) {
  if (base.architecture != variant.architecture) {
    return Error(ErrorCode::kInvalidArgument,
                 "the variant is no form of the base: its architecture is {}, not {}",
                 variant.architecture, base.architecture);
  }
  struct Field {
    std::string_view name;
    double base;
    double variant;
  };
  const Field fields[] = {
      {"the vocabulary has", static_cast<double>(base.vocab_size),
       static_cast<double>(variant.vocab_size)},
      {"layers are", static_cast<double>(base.num_layers), static_cast<double>(variant.num_layers)},
      {"the hidden size is", static_cast<double>(base.hidden_size),
       static_cast<double>(variant.hidden_size)},
      {"the feed-forward size is", static_cast<double>(base.intermediate_size),
       static_cast<double>(variant.intermediate_size)},
      {"heads are", static_cast<double>(base.num_heads), static_cast<double>(variant.num_heads)},
      {"KV heads are", static_cast<double>(base.num_kv_heads),
       static_cast<double>(variant.num_kv_heads)},
      {"the head size is", static_cast<double>(base.head_dim),
       static_cast<double>(variant.head_dim)},
      {"rope theta is", base.rope_theta, variant.rope_theta},
  };
  for (const Field& field : fields) {
    if (field.base != field.variant) return differs(field.name, field.base, field.variant);
  }
  return Ok{};
}

struct TwinModels::Parts {
  std::unique_ptr<kernels::ThreadPool> pool;
  std::unique_ptr<kernels::Ops> ops;
  std::vector<model::Llama> models;  // base, variant
  std::vector<int32_t> blocks;       // 0, 1, 2, …: one sequence has them all
  int32_t max_tokens = 0;

  void step(std::span<const int32_t> tokens, size_t begin, size_t end, bool compare,
            std::span<TokenDivergence> out);
};

TwinModels::TwinModels(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
TwinModels::TwinModels(TwinModels&&) noexcept = default;
TwinModels& TwinModels::operator=(TwinModels&&) noexcept = default;
TwinModels::~TwinModels() = default;

Result<TwinModels> TwinModels::create(const formats::Checkpoint& base,
                                      const formats::Checkpoint& variant,
                                      const TwinConfig& config) {
  CHECK_GE(config.max_tokens, 2);
  RETURN_IF_ERROR(check_same_shape(base.spec(), variant.spec()));
  auto parts = std::make_unique<Parts>();
  parts->max_tokens = config.max_tokens;
  const int32_t threads = config.threads > 0 ? config.threads : kernels::usable_cpus();
  ASSIGN_OR_RETURN(parts->pool, kernels::ThreadPool::create(threads));
  ASSIGN_OR_RETURN(parts->ops, kernels::make_cpu_ops(config.isa, {.activations = config.activations,
                                                                  .pool = parts->pool.get()}));
  const int32_t blocks =
      (config.max_tokens + kernels::kKvBlockTokens - 1) / kernels::kKvBlockTokens;
  parts->blocks.resize(static_cast<size_t>(blocks));
  std::iota(parts->blocks.begin(), parts->blocks.end(), 0);
  const std::pair<const formats::Checkpoint*, kernels::KvType> both[] = {
      {&base, config.base_kv}, {&variant, config.variant_kv}};
  for (const auto& [checkpoint, kv_type] : both) {
    const model::LlamaLimits limits{
        .max_rows = kRows, .max_logit_rows = kLogitRows, .num_blocks = blocks, .kv_type = kv_type};
    auto llama = model::Llama::create(*checkpoint, *parts->ops, limits);
    if (!llama.ok()) return std::move(llama).error().with_context(checkpoint->path());
    parts->models.push_back(std::move(llama).value());
  }
  return TwinModels(std::move(parts));
}

// Tokens [begin, end) through both models; with `compare`, one entry of `out` for each.
void TwinModels::Parts::step(std::span<const int32_t> tokens, size_t begin, size_t end,
                             bool compare, std::span<TokenDivergence> out) {
  const kernels::SequenceRows sequence{.first_row = 0,
                                       .num_rows = static_cast<int32_t>(end - begin),
                                       .first_position = static_cast<int32_t>(begin),
                                       .block_table = blocks.data()};
  std::vector<int32_t> logit_rows(compare ? end - begin : 0);
  std::iota(logit_rows.begin(), logit_rows.end(), 0);
  const model::LlamaStep llama_step{tokens.subspan(begin, end - begin), {&sequence, 1}, logit_rows};
  pool->run([&](kernels::Lane& lane) {
    for (const model::Llama& model : models) {
      model.forward(lane, llama_step);
      lane.sync();
    }
    lane.deal(static_cast<int64_t>(logit_rows.size()), [&](int64_t row) {
      const auto vocab = static_cast<size_t>(models[0].spec().vocab_size);
      const auto i = static_cast<size_t>(row);
      out[i] = token_divergence({models[0].logits().row(row), vocab},
                                {models[1].logits().row(row), vocab}, tokens[begin + i + 1]);
    });
  });
}

Result<> TwinModels::measure(std::span<const int32_t> tokens, size_t first,
                             std::vector<TokenDivergence>& out) {
  CHECK(tokens.size() >= 2 && tokens.size() <= static_cast<size_t>(parts_->max_tokens));
  CHECK_LT(first, tokens.size() - 1);
  const size_t last = tokens.size() - 1;  // predicted, not read
  for (size_t begin = 0; begin < first;) {
    const size_t end = std::min(first, begin + static_cast<size_t>(kRows));
    parts_->step(tokens, begin, end, false, {});
    begin = end;
  }
  for (size_t begin = first; begin < last;) {
    const size_t end = std::min(last, begin + static_cast<size_t>(kLogitRows));
    const size_t known = out.size();
    out.resize(known + end - begin);
    parts_->step(tokens, begin, end, true, std::span(out).subspan(known));
    for (size_t i = known; i < out.size(); ++i) {
      if (std::isfinite(out[i].kld)) continue;
      return Error(ErrorCode::kCorrupt,
                   "logits are not finite after {} tokens: the weights of one model are broken",
                   begin + i - known + 1);
    }
    begin = end;
  }
  return Ok{};
}

}  // namespace puna::check
