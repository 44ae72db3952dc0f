// SPDX-License-Identifier: Apache-2.0
#include "api/event_waker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

namespace puna::api {
namespace {

struct WakerPool {
  std::mutex mutex;
  std::vector<EventWaker*> free;
};

WakerPool& pool() {
  static auto* const kPool = new WakerPool();  // outlives every thread
  return *kPool;
}

}  // namespace

Result<EventWaker*> EventWaker::acquire() {
  const std::lock_guard lock(pool().mutex);
  if (!pool().free.empty()) {
    EventWaker* waker = pool().free.back();
    pool().free.pop_back();
    return waker;
  }
  const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return Error(ErrorCode::kIo, "eventfd: {}", std::strerror(errno));
  return new EventWaker(fd);
}

void EventWaker::release(EventWaker* waker) {
  const std::lock_guard lock(pool().mutex);
  pool().free.push_back(waker);
}

void EventWaker::wake() noexcept {
  const uint64_t one = 1;
  // Fails only when 2^64 - 2 wake-ups are pending.
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof(one));
}

void EventWaker::clear() noexcept {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof(count));
}

}  // namespace puna::api
