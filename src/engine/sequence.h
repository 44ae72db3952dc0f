// SPDX-License-Identifier: Apache-2.0
// One request's state. Made by the submitting thread, with every vector at its final capacity, then
// owned by the engine thread alone: waiting -> running (-> paused -> running) -> gone.
//
// tokens = prompt + output. Positions [0, computed) have their keys and values in block_table. Each
// step computes some of [computed, tokens.size()); when it computes the last one, its logits give
// the next token. Decoding, a prompt's chunk, and redoing a paused sequence are all this one rule.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/request.h"
#include "kv/block_id.h"
#include "model/text_stream.h"

namespace puna::engine {

struct Sequence {
  SamplingParams sampling;
  StopRules stop;
  uint64_t cache_salt = 0;
  RequestClass request_class = RequestClass::kInteractive;
  int32_t tenant = 0;
  TimeNs deadline_ns = 0;      // 0: none
  TimeNs tpot_target_ns = 0;   // the request's or its class's; 0: none
  double expected_ttft_s = 0;  // at submission, by the model; 0: it knew nothing yet
  uint64_t ticket = 0;         // order of submission; unique
  uint64_t group = 0;          // equal for the choices of one call, which share a prompt
  int32_t prompt_tokens = 0;
  std::vector<TokenId> tokens;
  std::vector<TokenId> stop_tokens;       // end of generation and stop_token_ids, sorted
  std::optional<model::TextStream> text;  // only with stop strings
  std::shared_ptr<RequestChannel> channel;

  std::vector<kv::BlockId> block_table;
  // While it is paused, and until what it had is back: the places in host memory of the keys and
  // values of positions [0, saved), as block_table. Empty where they are computed again.
  std::vector<kv::BlockId> host_table;
  int32_t saved = 0;
  uint64_t arrives_with = 0;  // the backend's copy that brings the last of them back; 0: none does
  // For prompt + max_tokens, or + the class's default when the client gave none: then it grows, up
  // to block_table's capacity. block_table never grows beyond it. Of a paused one: at least for all
  // that it has and the next token.
  int32_t reserved_blocks = 0;
  int32_t computed = 0;
  int32_t shared_blocks = 0;  // the first blocks of block_table that the prefix cache can find
  int32_t slot = -1;          // -1 unless running
  bool by_turn = false;       // started over the head of a higher class: the ladder leaves it alone
  TimeNs last_token_ns = 0;
  TimeNs accounted_ns = 0;        // the time ledger is complete up to here
  bool counted_as_queued = true;  // in the engine's bound on waiting requests

  int32_t known() const { return static_cast<int32_t>(tokens.size()); }
  int32_t left() const { return known() - computed; }
  // The next token goes into a block that is not reserved yet.
  bool outgrows() const {
    return left() == 1 && kv::blocks_for_tokens(computed + 1) > reserved_blocks;
  }
  // Holds a slot and blocks, and is in no step before they are what they were.
  bool returning() const { return arrives_with != 0; }
  int32_t output_tokens() const { return known() - prompt_tokens; }
  // Blocks of the prompt that a prefix-cache hit can give: all full ones, but not the one of the
  // last token, as its logits are needed. Positions that this covers: times kBlockTokens.
  int32_t shareable_blocks() const { return (known() - 1) / kv::kBlockTokens; }
  std::span<const TokenId> banned() const {
    return output_tokens() < stop.min_tokens ? std::span(stop_tokens) : std::span<const TokenId>();
  }
};

}  // namespace puna::engine
