// SPDX-License-Identifier: Apache-2.0
#include "api/generation.h"

#include <ctime>

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
      writer_(writer_config(model, request_, options.fingerprint)),
      engine_requests_(build_engine_requests(model, request_, prompts, options.id,
                                             options.drawn_seed, options.cache_salt)) {
  const auto per_prompt = static_cast<size_t>(request_.choices());
  choices_.reserve(engine_requests_.size());
  for (size_t i = 0; i < engine_requests_.size(); ++i) {
    choices_.push_back(std::make_unique<Choice>(model, request_, static_cast<int32_t>(i),
                                                i % per_prompt == 0, prompts[i / per_prompt].echo));
  }
  for (const TokenPrompt& prompt : prompts) {
    prompt_tokens_ += static_cast<int64_t>(prompt.ids.size());
  }
}

Generation::~Generation() { cancel(); }

MaybeError Generation::submit(engine::Waker* waker) {
  auto submission = model_->engine->submit(std::move(engine_requests_), waker);
  engine_requests_.clear();
  if (!submission.ok()) {
    ApiError error = from_error(submission.error());
    if (submission.error().code() == ErrorCode::kInvalidArgument) {
      error.code = "context_length_exceeded";
      error.param = request_.messages ? "messages" : "prompt";
    }
    return error;
  }
  if (submission->refusal) return from_refusal(*submission->refusal);
  CHECK_EQ(submission->channels.size(), choices_.size());
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i]->channel = std::move(submission->channels[i]);
  }
  unfinished_ = choices_.size();
  return {};
}

bool Generation::poll(std::string& out) {
  if (unfinished_ == 0) return true;
  for (auto& choice : choices_) {
    if (choice->finish != engine::FinishReason::kNone) continue;
    while (const engine::TokenEvent* event = choice->channel->next()) {
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
    if (event.finish == FinishReason::kNone) model_->engine->cancel(*choice.channel);
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
  writer_.append_chunk(out,
                       {.index = choice.index,
                        .text = choice.text,
                        .logprobs = logprobs,
                        .finish = choice.finish,
                        .first = !choice.chunk_sent},
                       request_.continuous_usage_stats ? &now : nullptr);
  choice.chunk_sent = true;
  choice.text.clear();
}

void Generation::finish_stream(std::string& out) {
  if (failure_) {
    out += "data: ";
    out += error_json(*failure_);
    out += "\n\n";
  } else if (request_.include_usage) {
    writer_.append_usage_chunk(out, usage());
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
  ResponseWriter::end(result.body, usage());
  return result;
}

void Generation::cancel() {
  for (auto& choice : choices_) {
    if (choice->channel && choice->finish == engine::FinishReason::kNone) {
      model_->engine->cancel(*choice->channel);
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
