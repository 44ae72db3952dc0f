// SPDX-License-Identifier: Apache-2.0
#include "cli/engine_answerer.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "model/text_stream.h"

namespace puna::cli {

struct EngineAnswerer::Running {
  size_t index = 0;  // of its item
  engine::ChannelPtr channel;
  model::TextStream stream;
  std::string text;

  // True when the last token has come.
  bool take_events() {
    while (const engine::TokenEvent* event = channel->next()) {
      const bool ends = event->finish == engine::FinishReason::kStop;
      if (event->token >= 0 && !ends) text += stream.push(event->token);
      if (event->finish == engine::FinishReason::kNone) continue;
      text += stream.flush();
      return true;
    }
    return false;
  }
};

Result<std::vector<model::TokenId>> item_prompt(const check::Item& item,
                                                const model::ChatTemplate& chat_template,
                                                const model::Tokenizer& tokenizer) {
  std::vector<model::ChatMessage> messages;
  messages.reserve(item.messages.size());
  for (const check::Message& message : item.messages) {
    messages.push_back({message.role, message.content});
  }
  return chat_template.encode(tokenizer, messages, /*add_generation_prompt=*/true, kCheckDate);
}

Result<> EngineAnswerer::start(const check::Item& item, Running& running) {
  engine::Request request;
  request.id = "check";
  ASSIGN_OR_RETURN(request.prompt, item_prompt(item, *model_.chat_template(), model_.tokenizer()));
  request.stop.max_tokens = item.max_tokens;
  request.sampling.temperature = 0;
  std::vector<engine::Request> requests;
  requests.push_back(std::move(request));
  ASSIGN_OR_RETURN(engine::Engine::Submission submission,
                   model_.engine().submit(std::move(requests), &waker_));
  if (submission.refusal) {
    return Error(ErrorCode::kResourceExhausted, "an item was refused: {} (--batch)",
                 submission.refusal->message);
  }
  running.channel = std::move(submission.channels.front());
  return Ok{};
}

Result<std::vector<std::string>> EngineAnswerer::answer(std::span<const check::Item> items,
                                                        int32_t together) {
  std::vector<std::string> answers(items.size());
  std::vector<Running> running;
  size_t next = 0;
  while (next < items.size() || !running.empty()) {
    while (next < items.size() && running.size() < static_cast<size_t>(together)) {
      Running one{.index = next,
                  .channel = nullptr,
                  .stream = model::TextStream(model_.tokenizer(), {}),
                  .text = {}};
      RETURN_IF_ERROR(start(items[next], one));
      running.push_back(std::move(one));
      ++next;
    }
    const uint32_t seen = waker_.steps();
    const size_t before = running.size();
    std::erase_if(running, [&](Running& one) {
      if (!one.take_events()) return false;
      answers[one.index] = std::move(one.text);
      return true;
    });
    if (running.size() == before) waker_.wait(seen);
  }
  return answers;
}

}  // namespace puna::cli
