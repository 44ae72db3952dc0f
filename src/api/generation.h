// SPDX-License-Identifier: Apache-2.0
// One call that generates text: its choices' channels, read into OpenAI's answer. Streaming and not
// read the same events through the same code, so the pieces of a stream joined are the whole
// answer. Made on any thread; submit(), poll() and cancel() belong to the connection's I/O thread.
//
//   Generation generation(model, request, prompts, options);
//   if (auto error = generation.submit(waker)) return error_response(*error);
//   while (!generation.poll(out)) { write(out); wait for the waker; }
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "api/api_request.h"
#include "api/logprob_text.h"
#include "api/prompt_builder.h"
#include "api/response_writer.h"
#include "api/routing.h"
#include "api/server.h"
#include "api/server_status.h"
#include "api/token_charge.h"
#include "engine/engine.h"
#include "model/text_stream.h"

namespace puna::api {

class Generation {
 public:
  struct Options {
    std::string id;                             // of the engine's requests, for logs
    std::span<const std::string> fingerprints;  // system_fingerprint of each variant
    uint64_t drawn_seed = 0;                    // when the client gave none
    Routed routed = {};
    RequestTerms terms = {};
    int32_t default_output_tokens = 0;  // counted by the rate limit when the client gave none
    ServerStatus* status = nullptr;     // null: refusals are not counted
  };
  Generation(const ServedModel& model, ApiRequest request, std::vector<TokenPrompt> prompts,
             const Options& options);
  // Cancels what still runs.
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Hands the choices to the first engine of the order that takes them. An error is the whole
  // answer.
  MaybeError submit(engine::Waker* waker);
  size_t variant() const { return variant_; }  // that took them

  bool started() const { return started_; }  // the engine has answered something
  bool streaming() const { return request_.stream; }
  // Reads what the engine made since the last call. A stream's events are appended to `out`, its
  // end (usage, [DONE]) included; past kMaxEventBytes the rest is left for the next call. True when
  // every choice has ended.
  static constexpr size_t kMaxEventBytes = 4096;
  bool poll(std::string& out);
  // After poll() gave true, when not streaming: the whole answer, or the error that ended it.
  HttpResponse take_response();
  // For the answer's head: what is left of the key's token rate, and who answers.
  HttpHeaders headers() const;
  void cancel();

 private:
  struct Choice;
  void read_event(Choice& choice, const engine::TokenEvent& event);
  void emit_chunk(Choice& choice, std::string& out);
  void finish_stream(std::string& out);
  Result<engine::Engine::Submission> submit_in_order(engine::Waker* waker);
  engine::Engine& engine() const { return *model_->engines()[variant_]; }
  void settle_charge();
  Usage usage() const;
  std::string timings() const;
  void count_refusal(size_t reason) const;

  const ServedModel* model_;
  ApiRequest request_;
  ResponseWriter writer_;
  std::vector<engine::Request> engine_requests_;  // until submit()
  std::vector<std::unique_ptr<Choice>> choices_;
  const RequestTerms terms_;
  const std::span<const std::string> fingerprints_;
  const Routed routed_;
  size_t variant_ = 0;
  ServerStatus* const status_;
  TokenCharge charge_;
  TimeNs submitted_ns_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t expected_tokens_ = 0;  // prompt and output, for the rate limit
  size_t unfinished_ = 0;
  bool started_ = false;
  MaybeError failure_;
};

}  // namespace puna::api
