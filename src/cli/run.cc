// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "api/prompt_builder.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/loaded_model.h"
#include "cli/signals.h"
#include "cli/terminal.h"

namespace puna::cli {
namespace {

constexpr size_t kMaxPromptBytes = 16 << 20;

uint64_t fresh_seed() {
  std::random_device source;
  return (static_cast<uint64_t>(source()) << 32) | source();
}

// One prompt or one conversation with a loaded model.
class Session {
 public:
  Session(const RunFlags& flags, LoadedModel& model, Signals& signals)
      : flags_(flags), model_(model), signals_(signals), answerer_(model, signals) {
    reset();
  }

  Result<int> one_shot(const std::string& prompt) {
    ASSIGN_OR_RETURN(const Answer answer, answer_to(prompt));
    std::fputc('\n', stdout);
    return answer.interrupted ? kInterruptedExitCode : 0;
  }

  // Until /exit, Ctrl-D, or Ctrl-C twice at the prompt.
  Result<int> conversation();

 private:
  void reset() {
    messages_.clear();
    if (!flags_.system.empty()) messages_.push_back({"system", flags_.system});
  }

  // True when `line` was a command; sets `leave`.
  bool command(const std::string& line, bool& leave);
  Result<std::vector<model::TokenId>> prompt_tokens(const std::string& text) const;
  Result<Answer> answer_to(const std::string& text);

  const RunFlags& flags_;
  LoadedModel& model_;
  Signals& signals_;
  Answerer answerer_;
  std::vector<model::ChatMessage> messages_;
};

Result<std::vector<model::TokenId>> Session::prompt_tokens(const std::string& text) const {
  const model::Tokenizer& tokenizer = model_.tokenizer();
  if (flags_.raw) return tokenizer.encode(text, {.add_bos = true, .parse_special = true});
  std::vector<model::ChatMessage> messages = messages_;
  messages.push_back({"user", text});
  return model_.chat_template()->encode(tokenizer, messages, /*add_generation_prompt=*/true,
                                        api::today());
}

Result<Answer> Session::answer_to(const std::string& text) {
  engine::Request request;
  request.id = "run";
  ASSIGN_OR_RETURN(request.prompt, prompt_tokens(text));
  const int32_t context = model_.plan().max_model_len;
  const auto prompt_length = static_cast<int64_t>(request.prompt.size());
  if (prompt_length == 0) return Error(ErrorCode::kInvalidArgument, "the prompt is empty");
  if (prompt_length >= context) {
    return Error(ErrorCode::kInvalidArgument,
                 "the prompt has {} tokens; with an answer at most {} fit (--max-model-len)",
                 prompt_length, context);
  }
  const int32_t left = context - static_cast<int32_t>(prompt_length);
  request.stop.max_tokens = flags_.max_tokens > 0 ? std::min(flags_.max_tokens, left) : left;
  request.sampling.temperature = flags_.temperature;
  request.sampling.top_p = flags_.top_p;
  request.sampling.seed = flags_.seed_given ? flags_.seed : fresh_seed();
  ASSIGN_OR_RETURN(Answer answer, answerer_.stream(std::move(request)));
  messages_.push_back({"user", text});
  messages_.push_back({"assistant", answer.text});
  return answer;
}

bool Session::command(const std::string& line, bool& leave) {
  if (!line.starts_with('/')) return false;
  if (line == "/exit" || line == "/quit") {
    leave = true;
  } else if (line == "/reset") {
    reset();
    fmt::print("(a new conversation)\n");
  } else {
    fmt::print("{}/reset begins a new conversation, /exit leaves, Ctrl-C stops an answer\n",
               line == "/help" ? "" : fmt::format("there is no {}: ", line));
  }
  return true;
}

Result<int> Session::conversation() {
  const ModelFlags& model = flags_.model;
  const std::string& name = model.random_weights.empty() ? model.model : model.random_weights;
  fmt::print("{} ({} tokens of context). /help lists the commands.\n", name,
             model_.plan().max_model_len);
  LineReader reader(signals_);
  std::string line;
  bool interrupted = false;  // the last thing at the prompt was Ctrl-C
  bool leave = false;
  while (!leave) {
    fmt::print("> ");
    std::fflush(stdout);
    const InputKind kind = reader.read_line(line);
    if (kind == InputKind::kEnd) break;
    if (kind == InputKind::kInterrupt) {
      if (interrupted) break;
      interrupted = true;
      fmt::print("\n(Ctrl-C again or /exit leaves)\n");
      continue;
    }
    interrupted = false;
    if (line.empty() || command(line, leave)) continue;
    const auto answer = answer_to(line);
    if (!answer.ok()) {
      fmt::print("({}; /reset begins anew)\n", answer.error().message());
      continue;
    }
    fmt::print("{}\n", answer->interrupted ? " (stopped)" : "");
    interrupted = answer->interrupted;
  }
  fmt::print("\n");
  return 0;
}

LoadSize load_size(const RunFlags& flags) {
  LoadSize size;
  size.needs_chat_template = !flags.raw;
  return size;
}

}  // namespace

Result<int> run(const RunFlags& flags) {
  const bool chat = !flags.prompt_given && stdin_is_terminal();
  std::string prompt = flags.prompt;
  if (!chat && !flags.prompt_given) {
    ASSIGN_OR_RETURN(prompt, read_stdin(kMaxPromptBytes));
    if (!flags.raw) prompt.erase(prompt.find_last_not_of(" \t\r\n") + 1);
  }
  if (!chat && prompt.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "the prompt is empty: give PROMPT or pipe it to stdin");
  }
  Signals signals;
  ASSIGN_OR_RETURN(LoadedModel model, LoadedModel::load(flags.model, load_size(flags)));
  model.engine().start();
  Session session(flags, model, signals);
  return chat ? session.conversation() : session.one_shot(prompt);
}

}  // namespace puna::cli
