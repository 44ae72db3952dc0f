// SPDX-License-Identifier: Apache-2.0
#include "cli/answer.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/check.h"
#include "model/text_stream.h"

namespace puna::cli {

class Answerer::EventFdWaker final : public engine::Waker {
 public:
  EventFdWaker() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { CHECK_GE(fd_, 0); }
  ~EventFdWaker() override { close(fd_); }
  EventFdWaker(const EventFdWaker&) = delete;
  EventFdWaker& operator=(const EventFdWaker&) = delete;

  void wake() noexcept override {
    const uint64_t one = 1;
    // Can fail only when the counter is full, and then the reader is awake anyway.
    [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof(one));
  }
  int fd() const { return fd_; }
  void reset() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(fd_, &count, sizeof(count));
  }

 private:
  int fd_;
};

namespace {

void print(const std::string& text, Answer& answer) {
  if (text.empty()) return;
  answer.text += text;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Prints what has come. True when it was the last.
bool take_events(engine::RequestChannel& channel, model::TextStream& stream, Answer& answer) {
  while (const engine::TokenEvent* event = channel.next()) {
    // The token that ends an answer is not part of its text.
    const bool ends = event->finish == engine::FinishReason::kStop;
    if (event->token >= 0 && !ends) print(stream.push(event->token), answer);
    if (event->finish == engine::FinishReason::kNone) continue;
    answer.out_of_length = event->finish == engine::FinishReason::kLength;
    print(stream.flush(), answer);
    return true;
  }
  return false;
}

}  // namespace

Answerer::Answerer(LoadedModel& model, Signals& signals)
    : model_(model), signals_(signals), waker_(std::make_unique<EventFdWaker>()) {}
// The engine may still be about to wake its reader, who has seen the last event.
Answerer::~Answerer() { model_.engine().stop(); }

Result<Answer> Answerer::stream(engine::Request request) {
  std::vector<engine::Request> requests;
  requests.push_back(std::move(request));
  ASSIGN_OR_RETURN(const engine::Engine::Submission submission,
                   model_.engine().submit(std::move(requests), waker_.get()));
  if (submission.refusal) {
    return Error(ErrorCode::kUnavailable, "{}", submission.refusal->message);
  }
  engine::RequestChannel& channel = *submission.channels.front();
  model::TextStream stream(model_.tokenizer(), {});
  Answer answer;
  while (!take_events(channel, stream, answer)) {
    std::array<pollfd, 2> waiting = {{{waker_->fd(), POLLIN, 0}, {signals_.fd(), POLLIN, 0}}};
    poll(waiting.data(), waiting.size(), -1);
    if (waiting[0].revents != 0) waker_->reset();
    if (waiting[1].revents != 0 && signals_.wait(0)) {
      answer.interrupted = true;
      model_.engine().cancel(channel);
    }
  }
  return answer;
}

}  // namespace puna::cli
