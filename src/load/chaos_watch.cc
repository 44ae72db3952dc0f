// SPDX-License-Identifier: Apache-2.0
#include "load/chaos_watch.h"

#include <csignal>

#include "load/http_client.h"
#include "load/server_process.h"

namespace puna::load {
namespace {

constexpr TimeNs kLookEveryNs = 500 * kNsPerMs;
constexpr TimeNs kAnswerLimitNs = 5 * kNsPerSecond;
constexpr size_t kPauses = 3;
constexpr auto kPause = std::chrono::milliseconds(1500);

}  // namespace

ChaosWatch::ChaosWatch(const Target& target, pid_t pid, double duration_s)
    : target_(target), pid_(pid), duration_s_(duration_s) {}

ChaosWatch::~ChaosWatch() {
  if (thread_.joinable()) stop();
}

void ChaosWatch::start() {
  thread_ = std::thread([this] { watch(); });
}

WatchResult ChaosWatch::stop() {
  stopping_ = true;
  thread_.join();
  return result_;
}

void ChaosWatch::watch() {
  const SteadyClock clock;
  const auto every_ns = static_cast<TimeNs>(duration_s_ / (kPauses + 1) * kNsPerSecond);
  TimeNs next_pause_ns = clock.now_ns() + every_ns;
  while (!stopping_) {
    look();
    if (pid_ > 0 && clock.now_ns() >= next_pause_ns && result_.pauses < kPauses) {
      pause();
      next_pause_ns += every_ns;
    }
    std::this_thread::sleep_for(std::chrono::nanoseconds(kLookEveryNs));
  }
}

void ChaosWatch::look() {
  for (const char* path : {"/ready", "/metrics"}) {
    const auto reply =
        call_once(target_.url, http_request("GET", path, target_.url, target_.key_headers(), ""),
                  kAnswerLimitNs);
    if (reply.ok() && reply->head.status == 200) {
      ++result_.answered;
      continue;
    }
    ++result_.unanswered;
    if (!result_.first_failure.empty()) continue;
    result_.first_failure = fmt::format(
        "{}: {}", path,
        reply.ok() ? fmt::format("status {}", reply->head.status) : reply.error().message());
  }
  if (pid_ > 0) result_.resident.push_back(resident_bytes(pid_));
}

void ChaosWatch::pause() {
  ++result_.pauses;
  ::kill(pid_, SIGSTOP);
  std::this_thread::sleep_for(kPause);
  ::kill(pid_, SIGCONT);
}

}  // namespace puna::load
