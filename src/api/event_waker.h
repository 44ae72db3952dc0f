// SPDX-License-Identifier: Apache-2.0
// How the engine thread wakes an I/O thread: an eventfd that the thread's event loop waits for.
//
// The engine may keep a request's channel, and with it the waker, a little longer than the server
// lives (a cancelled request ends at the next step). So wakers are never destroyed: a released one
// goes back to a pool and serves the next I/O thread; a late wake() is then one wake-up too many,
// and harmless.
#pragma once

#include "base/result.h"
#include "engine/request.h"

namespace puna::api {

class EventWaker final : public engine::Waker {
 public:
  // Errors: kIo when the process has no file descriptor left.
  static Result<EventWaker*> acquire();
  static void release(EventWaker* waker);

  void wake() noexcept override;
  void clear() noexcept;          // I/O thread, before it looks for news
  int fd() const { return fd_; }  // readable after wake()

  EventWaker(const EventWaker&) = delete;
  EventWaker& operator=(const EventWaker&) = delete;

 private:
  explicit EventWaker(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace puna::api
