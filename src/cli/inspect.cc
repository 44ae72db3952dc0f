// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "cli/commands.h"
#include "cli/model_facts.h"
#include "plan/byte_size.h"

namespace puna::cli {
namespace {

namespace json = boost::json;
using plan::format_bytes;

// More special tokens than this (Llama 3 reserves 256) are counted, not listed.
constexpr size_t kShownTokens = 24;

bool scaled_rope(const formats::ModelSpec& spec) {
  return std::any_of(spec.rope_divisors.begin(), spec.rope_divisors.end(),
                     [](float divisor) { return divisor != 1.0F; });
}

std::string special_tokens_line(const ModelFacts& facts) {
  std::string line;
  size_t shown = 0;
  for (const SpecialToken& token : facts.special_tokens) {
    if (token.role.empty() && shown >= kShownTokens) continue;
    ++shown;
    line += fmt::format("\n    {:>6}  {}{}", token.id, token.text,
                        token.role.empty() ? "" : "  (" + token.role + ")");
  }
  if (shown < facts.special_tokens.size()) {
    line += fmt::format("\n            and {} more", facts.special_tokens.size() - shown);
  }
  return line;
}

void print_text(const ModelFacts& facts, bool tensors) {
  const formats::ModelSpec& spec = facts.spec;
  fmt::print("{}\n", facts.path);
  fmt::print("  format          {}, {}\n", facts.format, format_bytes(facts.file_bytes));
  fmt::print("  architecture    {}{}\n", spec.architecture,
             spec.name.empty() ? "" : " (" + spec.name + ")");
  fmt::print("  parameters      {:.1f} M\n", static_cast<double>(facts.parameters) / 1e6);
  for (const TypeFacts& type : facts.types) {
    fmt::print("    {:<13} {}, {} tensors\n", type.type, format_bytes(type.bytes), type.tensors);
  }
  fmt::print("  shape           {} layers, hidden {}, feed-forward {}, vocabulary {}\n",
             spec.num_layers, spec.hidden_size, spec.intermediate_size, spec.vocab_size);
  fmt::print("  attention       {} heads of {}, {} for keys and values\n", spec.num_heads,
             spec.head_dim, spec.num_kv_heads);
  fmt::print("  output head     {}\n", spec.tied_head ? "tied to the embedding" : "separate");
  fmt::print("  context         {} tokens, {} of KV each\n", spec.max_position,
             format_bytes(facts.kv_bytes_per_token));
  fmt::print("  rope            theta {:g}, {}, {}\n", spec.rope_theta,
             spec.rope_layout == formats::RopeLayout::kInterleaved ? "interleaved" : "half-split",
             scaled_rope(spec) ? "scaled frequencies (llama3)" : "no scaling");
  fmt::print("  tokenizer       {}\n", facts.tokenizer);
  fmt::print("  chat template   {}{}\n",
             facts.chat_template_known ? "" : "not recognised: ", facts.chat_template);
  fmt::print("  special tokens  {}{}\n", facts.special_tokens.size(), special_tokens_line(facts));
  if (!tensors) return;
  fmt::print("  tensors\n");
  for (const TensorFacts& tensor : facts.tensors) {
    fmt::print("    {:<32} {:<7} {:>10}  [{}]\n", tensor.name, tensor.type,
               format_bytes(tensor.bytes), fmt::join(tensor.shape, ", "));
  }
}

json::object rope_json(const formats::ModelSpec& spec) {
  return {{"theta", spec.rope_theta},
          {"layout",
           spec.rope_layout == formats::RopeLayout::kInterleaved ? "interleaved" : "half_split"},
          {"scaled", scaled_rope(spec)}};
}

json::array special_tokens_json(const ModelFacts& facts) {
  json::array tokens;
  for (const SpecialToken& token : facts.special_tokens) {
    tokens.push_back(json::object{{"id", token.id}, {"text", token.text}, {"role", token.role}});
  }
  return tokens;
}

json::array tensors_json(const ModelFacts& facts) {
  json::array tensors;
  for (const TensorFacts& tensor : facts.tensors) {
    tensors.push_back(json::object{{"name", tensor.name},
                                   {"type", tensor.type},
                                   {"shape", json::value_from(tensor.shape)},
                                   {"bytes", tensor.bytes}});
  }
  return tensors;
}

void print_json(const ModelFacts& facts, bool tensors) {
  const formats::ModelSpec& spec = facts.spec;
  json::array types;
  for (const TypeFacts& type : facts.types) {
    types.push_back(
        json::object{{"type", type.type}, {"tensors", type.tensors}, {"bytes", type.bytes}});
  }
  json::object out = {
      {"path", facts.path},
      {"format", facts.format},
      {"file_bytes", facts.file_bytes},
      {"architecture", spec.architecture},
      {"name", spec.name},
      {"parameters", facts.parameters},
      {"types", std::move(types)},
      {"num_layers", spec.num_layers},
      {"hidden_size", spec.hidden_size},
      {"intermediate_size", spec.intermediate_size},
      {"num_heads", spec.num_heads},
      {"num_kv_heads", spec.num_kv_heads},
      {"head_dim", spec.head_dim},
      {"vocab_size", spec.vocab_size},
      {"tied_head", spec.tied_head},
      {"max_position", spec.max_position},
      {"kv_bytes_per_token", facts.kv_bytes_per_token},
      {"rope", rope_json(spec)},
      {"tokenizer", facts.tokenizer},
      {"chat_template", facts.chat_template_known ? json::value(json::string(facts.chat_template))
                                                  : json::value(nullptr)},
      {"special_tokens", special_tokens_json(facts)},
  };
  if (!facts.chat_template_known) out["chat_template_problem"] = facts.chat_template;
  if (tensors) out["tensors"] = tensors_json(facts);
  fmt::print("{}\n", json::serialize(out));
}

}  // namespace

Result<int> inspect(const InspectFlags& flags) {
  auto facts = gather_facts(flags.model);
  if (!facts.ok()) return std::move(facts).error();
  if (flags.json) {
    print_json(*facts, flags.tensors);
  } else {
    print_text(*facts, flags.tensors);
  }
  return 0;
}

}  // namespace puna::cli
