// SPDX-License-Identifier: Apache-2.0
#include "formats/hugging_face_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "formats/json_text.h"
#include "formats/message_text.h"
#include "formats/rope_scaling.h"
#include "formats/spec_check.h"

namespace puna::formats {
namespace {

constexpr size_t kMaxEosTokens = 256;

// Reads one config.json into a ModelSpec.
class ConfigReader {
 public:
  ConfigReader(const boost::json::object& config, const std::string& where)
      : config_(config), where_(where) {}

  Result<ModelSpec> read() {
    RETURN_IF_ERROR(refuse_unsupported());
    RETURN_IF_ERROR(read_sizes());
    RETURN_IF_ERROR(read_rope());
    spec_.architecture = "llama";
    spec_.rope_layout = RopeLayout::kHalfSplit;
    return std::move(spec_);
  }

 private:
  Result<> refuse_unsupported() const;
  Result<> read_sizes();
  Result<> read_rope();
  Result<> read_llama3(const boost::json::object& rope);

  // An absent or null field gives `fallback` or, without one, an error.
  Result<int32_t> integer(std::string_view key,
                          std::optional<int32_t> fallback = std::nullopt) const;
  Result<double> number(const boost::json::object& object, std::string_view key,
                        std::optional<double> fallback = std::nullopt) const;
  Result<bool> flag(std::string_view key) const;
  Result<std::string> text(const boost::json::object& object, std::string_view key,
                           std::string_view fallback) const;
  Error bad_field(std::string_view key, std::string_view problem) const {
    return Error(ErrorCode::kCorrupt, "{}: \"{}\" {}", where_, key, problem);
  }
  Error unsupported(std::string_view what) const {
    return Error(ErrorCode::kUnsupported, "{}: {}", where_, what);
  }

  const boost::json::object& config_;
  const std::string& where_;
  ModelSpec spec_;
};

// Null when the field is absent or null.
const boost::json::value* field(const boost::json::object& object, std::string_view key) {
  const boost::json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Result<int32_t> ConfigReader::integer(std::string_view key, std::optional<int32_t> fallback) const {
  const boost::json::value* value = field(config_, key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return bad_field(key, "is missing");
  }
  const auto number = json_u64(*value);
  if (!number || *number > INT32_MAX) return bad_field(key, "is no whole number that fits");
  return static_cast<int32_t>(*number);
}

Result<double> ConfigReader::number(const boost::json::object& object, std::string_view key,
                                    std::optional<double> fallback) const {
  const boost::json::value* value = field(object, key);
  if (value == nullptr) {
    if (fallback) return *fallback;
    return bad_field(key, "is missing");
  }
  const auto found = json_number(*value);
  if (!found || !std::isfinite(*found)) return bad_field(key, "is no number");
  return *found;
}

Result<bool> ConfigReader::flag(std::string_view key) const {
  const boost::json::value* value = field(config_, key);
  if (value == nullptr) return false;
  if (!value->is_bool()) return bad_field(key, "is neither true nor false");
  return value->get_bool();
}

Result<std::string> ConfigReader::text(const boost::json::object& object, std::string_view key,
                                       std::string_view fallback) const {
  const boost::json::value* value = field(object, key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) return bad_field(key, "is no string");
  return std::string(value->get_string().data(), value->get_string().size());
}

Result<> ConfigReader::refuse_unsupported() const {
  ASSIGN_OR_RETURN(const std::string type, text(config_, "model_type", ""));
  if (type.empty()) return bad_field("model_type", "is missing");
  if (type != "llama")
    return unsupported(fmt::format("model_type {}; Puna serves \"llama\"", in_quotes(type)));
  for (const std::string_view key : {"attention_bias", "mlp_bias"}) {
    ASSIGN_OR_RETURN(const bool has_bias, flag(key));
    if (has_bias)
      return unsupported(fmt::format("\"{}\" is true; Puna serves models without biases", key));
  }
  ASSIGN_OR_RETURN(const std::string activation, text(config_, "hidden_act", "silu"));
  if (activation != "silu")
    return unsupported(fmt::format("hidden_act {}; Puna computes silu", in_quotes(activation)));
  return Ok{};
}

Result<> ConfigReader::read_sizes() {
  ASSIGN_OR_RETURN(spec_.num_layers, integer("num_hidden_layers"));
  ASSIGN_OR_RETURN(spec_.hidden_size, integer("hidden_size"));
  ASSIGN_OR_RETURN(spec_.intermediate_size, integer("intermediate_size"));
  ASSIGN_OR_RETURN(spec_.num_heads, integer("num_attention_heads"));
  if (spec_.num_heads == 0) return bad_field("num_attention_heads", "is 0");
  ASSIGN_OR_RETURN(spec_.num_kv_heads, integer("num_key_value_heads", spec_.num_heads));
  if (field(config_, "head_dim") == nullptr && spec_.hidden_size % spec_.num_heads != 0) {
    return bad_field("hidden_size", fmt::format("is {}, no multiple of num_attention_heads {}",
                                                spec_.hidden_size, spec_.num_heads));
  }
  ASSIGN_OR_RETURN(spec_.head_dim, integer("head_dim", spec_.hidden_size / spec_.num_heads));
  if (spec_.head_dim > kMaxHeadDim)
    return bad_field("head_dim", fmt::format("is above {}", kMaxHeadDim));
  ASSIGN_OR_RETURN(spec_.vocab_size, integer("vocab_size"));
  ASSIGN_OR_RETURN(spec_.max_position, integer("max_position_embeddings", 2048));
  ASSIGN_OR_RETURN(const double eps, number(config_, "rms_norm_eps", 1e-6));
  spec_.rms_norm_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(spec_.tied_head, flag("tie_word_embeddings"));
  return Ok{};
}

// transformers before version 5 writes rope_theta beside rope_scaling, later ones rope_parameters.
Result<> ConfigReader::read_rope() {
  spec_.rope_divisors.assign(static_cast<size_t>(spec_.head_dim / 2), 1.0F);
  ASSIGN_OR_RETURN(spec_.rope_theta, number(config_, "rope_theta", 10000.0));
  const std::string_view key =
      field(config_, "rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  const boost::json::value* value = field(config_, key);
  if (value == nullptr) return Ok{};
  if (!value->is_object()) return bad_field(key, "is no object");
  const boost::json::object& rope = value->get_object();
  ASSIGN_OR_RETURN(spec_.rope_theta, number(rope, "rope_theta", spec_.rope_theta));
  ASSIGN_OR_RETURN(const double rotated, number(rope, "partial_rotary_factor", 1.0));
  if (rotated != 1.0)
    return unsupported(fmt::format("partial_rotary_factor {}; Puna turns whole heads", rotated));
  ASSIGN_OR_RETURN(const std::string old_type, text(rope, "type", "default"));
  ASSIGN_OR_RETURN(const std::string type, text(rope, "rope_type", old_type));
  if (type == "default") return Ok{};
  if (type == "llama3") return read_llama3(rope);
  return unsupported(fmt::format("{} with rope_type {}; Puna knows \"default\" and \"llama3\"", key,
                                 in_quotes(type)));
}

Result<> ConfigReader::read_llama3(const boost::json::object& rope) {
  ASSIGN_OR_RETURN(const double factor, number(rope, "factor"));
  ASSIGN_OR_RETURN(const double low, number(rope, "low_freq_factor"));
  ASSIGN_OR_RETURN(const double high, number(rope, "high_freq_factor"));
  ASSIGN_OR_RETURN(const double original,
                   number(rope, "original_max_position_embeddings", spec_.max_position));
  if (!(factor >= 1.0 && factor <= kMaxRopeDivisor))
    return bad_field("factor", fmt::format("is {}", factor));
  if (!(low > 0.0 && low < high && high <= kMaxRopeDivisor)) {
    return bad_field(
        "low_freq_factor",
        fmt::format("is {}, it must be above 0 and below high_freq_factor {}", low, high));
  }
  if (!(original >= 1.0 && original <= kMaxPosition)) {
    return bad_field("original_max_position_embeddings", fmt::format("is {}", original));
  }
  if (!(spec_.rope_theta >= 1.0 && spec_.rope_theta <= kMaxRopeTheta)) {
    return bad_field("rope_theta", fmt::format("is {}", spec_.rope_theta));
  }
  const RopeScaling scaling{static_cast<float>(factor), static_cast<float>(low),
                            static_cast<float>(high), static_cast<int32_t>(original)};
  spec_.rope_divisors = llama3_rope_divisors(scaling, spec_.rope_theta, spec_.head_dim);
  return Ok{};
}

}  // namespace

Result<ModelSpec> read_hugging_face_config(const boost::json::object& config,
                                           const std::string& where) {
  return ConfigReader(config, where).read();
}

Result<std::vector<int32_t>> read_eos_tokens(const boost::json::object& object,
                                             const std::string& where) {
  std::vector<int32_t> ids;
  const boost::json::value* value = field(object, "eos_token_id");
  if (value == nullptr) return ids;
  const boost::json::array single{*value};
  const boost::json::array& list = value->is_array() ? value->get_array() : single;
  if (list.size() > kMaxEosTokens) {
    return Error(ErrorCode::kCorrupt, "{}: \"eos_token_id\" lists {} tokens", where, list.size());
  }
  for (const boost::json::value& item : list) {
    const auto id = json_u64(item);
    if (!id || *id > INT32_MAX) {
      return Error(ErrorCode::kCorrupt, "{}: \"eos_token_id\" is no token or list of tokens",
                   where);
    }
    if (std::find(ids.begin(), ids.end(), static_cast<int32_t>(*id)) == ids.end()) {
      ids.push_back(static_cast<int32_t>(*id));
    }
  }
  return ids;
}

}  // namespace puna::formats
