// SPDX-License-Identifier: Apache-2.0
#include "api/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <optional>

namespace puna::api {
namespace {

ResponseWriter::Config writer_config(const ServedModel& model, const ApiRequest& request,
                                     const std::string& fingerprint) {
  const bool chat = request.endpoint == Endpoint::kChat;
  return {.chat = chat,
          .stream = request.stream,
          .usage_key = request.include_usage,
          .id = (chat ? "chatcmpl-" : "cmpl-") + fresh_id(),
          .created_s = static_cast<int64_t>(std::time(nullptr)),
          .model = request.model.empty() ? model.names.front() : request.model,
          .fingerprint = fingerprint};
}

}  // namespace

struct Generation::Choice {
  Choice(const ServedModel& model, const ApiRequest& request, int32_t index_in_answer,
         bool first_of_its_prompt, std::string echo)
      : index(index_in_answer),
        first_of_prompt(first_of_its_prompt),
        text_stream(*model.tokenizer, request.stop, request.skip_special_tokens,
                    request.include_stop_str_in_output),
        logprobs(request.endpoint == Endpoint::kChat ? LogprobText::Shape::kChat
                                                     : LogprobText::Shape::kCompletion,
                 *model.tokenizer),
        text(std::move(echo)) {}

  const int32_t index;
  const bool first_of_prompt;
  engine::ChannelPtr channel;
  model::TextStream text_stream;
  LogprobText logprobs;
  std::string text;  // not yet sent; the whole text when not streaming
  bool chunk_sent = false;
  engine::FinishReason finish = engine::FinishReason::kNone;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
};

Generation::Generation(const ServedModel& model, ApiRequest request,
                       std::vector<TokenPrompt> prompts, const Options& options)
    : model_(&model),
      request_(std::move(request)),
      writer_(writer_config(model, request_, options.fingerprints.front())),
      engine_requests_(build_engine_requests(model, request_, prompts, options.id,
                                             options.drawn_seed, options.terms)),
      terms_(options.terms),
      fingerprints_(options.fingerprints),
      routed_(options.routed),
      variant_(routed_.order.variants[0]),
      status_(options.status),
      charge_(options.terms.rate) {
  const auto per_prompt = static_cast<size_t>(request_.choices());
  choices_.reserve(engine_requests_.size());
  for (size_t i = 0; i < engine_requests_.size(); ++i) {
    choices_.push_back(std::make_unique<Choice>(model, request_, static_cast<int32_t>(i),
                                                i % per_prompt == 0, prompts[i / per_prompt].echo));
  }
  for (const TokenPrompt& prompt : prompts) {
    prompt_tokens_ += static_cast<int64_t>(prompt.ids.size());
  }
  expected_tokens_ = prompt_tokens_;
  for (const engine::Request& one : engine_requests_) {
    expected_tokens_ += charged_tokens(one, options.default_output_tokens);
  }
}

Generation::~Generation() {
  cancel();
  settle_charge();
}

void Generation::settle_charge() {
  const Usage used = usage();
  charge_.settle(started_ ? used.prompt_tokens + used.completion_tokens : 0);
}

MaybeError Generation::submit(engine::Waker* waker) {
  submitted_ns_ = SteadyClock().now_ns();
  if (auto error = charge_.take(expected_tokens_, submitted_ns_)) {
    count_refusal(ServerStatus::kRateLimited);
    return error;
  }
  auto submission = submit_in_order(waker);
  engine_requests_.clear();
  if (!submission.ok()) {
    ApiError error = from_error(submission.error());
    if (submission.error().code() == ErrorCode::kInvalidArgument) {
      error.code = "context_length_exceeded";
      error.param = request_.messages ? "messages" : "prompt";
    }
    return error;
  }
  if (submission->refusal) {
    count_refusal(static_cast<size_t>(submission->refusal->reason));
    return from_refusal(*submission->refusal);
  }
  if (!model_->variants.empty()) {
    writer_ = ResponseWriter(writer_config(*model_, request_, fingerprints_[variant_]));
    if (status_ != nullptr) status_->routed[variant_][index_of(routed_.found.family)].add();
  }
  CHECK_EQ(submission->channels.size(), choices_.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i]->channel = std::move(submission->channels[i]);
  }
  unfinished_ = choices_.size();
  return {};
}

// Of several refusals, the one that ends first; an error only when no variant could ever take it.
Result<engine::Engine::Submission> Generation::submit_in_order(engine::Waker* waker) {
  const std::span<const uint8_t> order = routed_.order.indexes();
  if (order.size() == 1) return engine().submit(std::move(engine_requests_), waker);
  std::optional<Result<engine::Engine::Submission>> best;
  for (const uint8_t index : order) {
    auto submission = model_->engines()[index]->submit(engine_requests_, waker);
    if (submission.ok() && !submission->refusal) {
      variant_ = index;
      return submission;
    }
    const bool better =
        !best || (submission.ok() && (!best->ok() || submission->refusal->retry_after_s <
                                                         (*best)->refusal->retry_after_s));
    if (better) best.emplace(std::move(submission));
  }
  return std::move(*best);
}

HttpHeaders Generation::headers() const {
  HttpHeaders headers = charge_.headers();
  append_route_headers(*model_, routed_, variant_, headers);
  return headers;
}

bool Generation::poll(std::string& out) {
  if (unfinished_ == 0) return true;
  const size_t full = out.size() + kMaxEventBytes;
  for (auto& choice : choices_) {
    if (choice->finish != engine::FinishReason::kNone) continue;
    while (out.size() < full) {
      const engine::TokenEvent* event = choice->channel->next();
      if (event == nullptr) break;
      read_event(*choice, *event);
      if (failure_) break;
      if (request_.stream) emit_chunk(*choice, out);
      if (choice->finish != engine::FinishReason::kNone) break;
    }
    if (failure_) break;
    if (choice->finish != engine::FinishReason::kNone) --unfinished_;
  }
  if (failure_) {
    cancel();
    unfinished_ = 0;
  }
  if (unfinished_ > 0) return false;
  settle_charge();  // before the client, which may come back at once, sees the end
  if (request_.stream) finish_stream(out);
  return true;
}

void Generation::read_event(Choice& choice, const engine::TokenEvent& event) {
  using engine::FinishReason;
  started_ = true;
  if (event.finish == FinishReason::kError || event.finish == FinishReason::kCancelled) {
    failure_ = ApiError{.status = 503,
                        .message = "the server stopped before the answer was complete",
                        .param = {},
                        .code = "server_stopped"};
    return;
  }
  if (choice.completion_tokens == 0 && choice.first_of_prompt) {
    choice.cached_tokens = choice.channel->facts().cached_prompt_tokens;
  }
  if (event.token >= 0) {
    ++choice.completion_tokens;
    if (!event.is_stop_token || request_.include_stop_str_in_output) {
      const bool shown =
          !request_.skip_special_tokens || !model_->tokenizer->is_special(event.token);
      choice.text += choice.text_stream.push(event.token);
      if (request_.wants_logprobs()) {
        const auto num_top = static_cast<uint8_t>(event.num_top);
        choice.logprobs.append(event, {choice.channel->top_of_last(), num_top}, shown);
      }
    }
  }
  if (choice.text_stream.stopped()) {
    choice.finish = FinishReason::kStop;
    // The engine reads the same tokens, but may skip other special tokens than this request does.
    if (event.finish == FinishReason::kNone) engine().cancel(*choice.channel);
  } else if (event.finish != FinishReason::kNone) {
    choice.text += choice.text_stream.flush();
    choice.finish = event.finish;
  }
}

void Generation::emit_chunk(Choice& choice, std::string& out) {
  const bool finished = choice.finish != engine::FinishReason::kNone;
  if (choice.text.empty() && choice.logprobs.empty() && !finished) return;
  std::string logprobs;
  if (!choice.logprobs.empty()) choice.logprobs.take(logprobs);
  const Usage now = request_.continuous_usage_stats ? usage() : Usage();
  writer_.append_chunk(
      out,
      {.index = choice.index,
       .text = choice.text,
       .logprobs = logprobs,
       .finish = choice.finish,
       .first = !choice.chunk_sent},
      request_.continuous_usage_stats ? &now : nullptr,
      finished && unfinished_ == 1 && !request_.include_usage ? timings() : std::string());
  choice.chunk_sent = true;
  choice.text.clear();
}

void Generation::finish_stream(std::string& out) {
  if (failure_) {
    out += "data: ";
    out += error_json(*failure_);
    out += "\n\n";
  } else if (request_.include_usage) {
    writer_.append_usage_chunk(out, usage(), timings());
  }
  out += "data: [DONE]\n\n";
}

HttpResponse Generation::take_response() {
  if (failure_) return error_response(*failure_);
  HttpResponse result;
  writer_.begin(result.body);
  for (size_t i = 0; i < choices_.size(); ++i) {
    Choice& choice = *choices_[i];
    std::string logprobs;
    if (request_.wants_logprobs()) choice.logprobs.take(logprobs);
    if (i > 0) result.body += ',';
    writer_.append_choice(result.body, {.index = choice.index,
                                        .text = choice.text,
                                        .logprobs = logprobs,
                                        .finish = choice.finish});
  }
  ResponseWriter::end(result.body, usage(), timings());
  result.headers = headers();
  return result;
}

// `,"puna_timings":{…}` when it was asked for: of the choice that ended last, in milliseconds. The
// parts add up to the total, which begins with the request's last byte.
std::string Generation::timings() const {
  if (!terms_.timings) return {};
  const Choice* last = choices_.front().get();
  TimeNs kv_block_ns = 0;
  for (const auto& choice : choices_) {
    const engine::RequestFacts& facts = choice->channel->facts();
    kv_block_ns += facts.kv_block_ns;
    if (facts.finished_ns > last->channel->facts().finished_ns) last = choice.get();
  }
  const engine::RequestFacts& facts = last->channel->facts();
  const auto ms = [](TimeNs time_ns) {
    return static_cast<double>(time_ns) / static_cast<double>(kNsPerMs);
  };
  const TimeNs finished_ns = std::max(facts.finished_ns, facts.submitted_ns);
  return fmt::format(
      R"(,"puna_timings":{{"intake_ms":{:.3f},"queue_ms":{:.3f},"prefill_ms":{:.3f},)"
      R"("decode_ms":{:.3f},"stall_ms":{:.3f},"total_ms":{:.3f},"cached_tokens":{},)"
      R"("kv_block_seconds":{:.6f},"quoted_ttft_p50_ms":{:.3f},"quoted_ttft_p95_ms":{:.3f}}})",
      ms(facts.submitted_ns - terms_.arrived_ns), ms(facts.queue_ns), ms(facts.prefill_ns),
      ms(facts.decode_ns), ms(facts.stall_ns), ms(finished_ns - terms_.arrived_ns),
      usage().cached_tokens, ms(kv_block_ns) / 1000.0, ms(facts.quoted_ttft_p50_ns),
      ms(facts.quoted_ttft_p95_ns));
}

void Generation::count_refusal(size_t reason) const {
  if (status_ == nullptr) return;
  status_->refusals[static_cast<size_t>(terms_.request_class)][reason].add();
}

void Generation::cancel() {
  for (auto& choice : choices_) {
    if (choice->channel && choice->finish == engine::FinishReason::kNone) {
      engine().cancel(*choice->channel);
    }
  }
}

Usage Generation::usage() const {
  Usage usage;
  usage.prompt_tokens = prompt_tokens_;
  for (const auto& choice : choices_) {
    usage.completion_tokens += choice->completion_tokens;
    usage.cached_tokens += choice->cached_tokens;
  }
  return usage;
}

}  // namespace puna::api
