// SPDX-License-Identifier: Apache-2.0
#include "front_end/stream_clients.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "base/check.h"

namespace puna::bench {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr std::string_view kEvent = "\n\n";           // ends each event
constexpr std::string_view kLastChunk = "0\r\n\r\n";  // ends each answer
constexpr std::string_view kDone = "data: [DONE]";

int connect_to(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  CHECK_GE(fd, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

int64_t count(std::string_view text, std::string_view what) {
  int64_t found = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) {
    ++found;
  }
  return found;
}

}  // namespace

struct StreamClients::Stream {
  int fd = -1;
  bool failed = false;
  bool head_seen = false;
  int64_t events = 0;
  int64_t bytes = 0;
  int64_t answers = 0;
  TimeNs last_event_ns = 0;
  TimeNs longest_gap_ns = 0;
};

StreamClients::StreamClients(uint16_t port, int streams, std::string request)
    : request_(std::move(request)),
      streams_(static_cast<size_t>(streams)),
      buffer_(kBufferBytes),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  CHECK_GE(epoll_, 0);
  for (Stream& stream : streams_) {
    stream.fd = connect_to(port);
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.ptr = &stream;
    CHECK_EQ(::epoll_ctl(epoll_, EPOLL_CTL_ADD, stream.fd, &wanted), 0);
  }
}

StreamClients::~StreamClients() {
  for (const Stream& stream : streams_) ::close(stream.fd);
  ::close(epoll_);
}

void StreamClients::ask() {
  for (Stream& stream : streams_) {
    const ssize_t sent = ::send(stream.fd, request_.data(), request_.size(), MSG_NOSIGNAL);
    stream.failed = sent != static_cast<ssize_t>(request_.size());
  }
}

bool StreamClients::all_started() const {
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const Stream& stream) { return stream.events > 0; });
}

void StreamClients::read_for(TimeNs for_ns) {
  const SteadyClock clock;
  const TimeNs end_ns = clock.now_ns() + for_ns;
  std::array<epoll_event, 512> ready{};
  for (TimeNs now_ns = clock.now_ns(); now_ns < end_ns; now_ns = clock.now_ns()) {
    const int found = ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), 10);
    for (int i = 0; i < found; ++i) {
      read_once(*static_cast<Stream*>(ready[static_cast<size_t>(i)].data.ptr), now_ns);
    }
  }
}

void StreamClients::read_once(Stream& stream, TimeNs now_ns) {
  const ssize_t got = ::recv(stream.fd, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (got <= 0) {
    stream.failed = true;
    ::epoll_ctl(epoll_, EPOLL_CTL_DEL, stream.fd, nullptr);
    return;
  }
  std::string_view text(buffer_.data(), static_cast<size_t>(got));
  stream.bytes += got;
  if (!stream.head_seen) {  // an answer's head may come alone, or with the first event
    stream.head_seen = true;
    if (!text.starts_with("HTTP/1.1 200")) stream.failed = true;
  }
  const int64_t events = count(text, kEvent);
  if (events == 0) return;
  if (stream.last_event_ns > 0) {
    stream.longest_gap_ns = std::max(stream.longest_gap_ns, now_ns - stream.last_event_ns);
  }
  stream.last_event_ns = now_ns;
  stream.events += events;
  if (text.ends_with(kLastChunk)) {
    stream.events -= count(text, kDone);
    ++stream.answers;
    stream.head_seen = false;
    ::send(stream.fd, request_.data(), request_.size(), MSG_NOSIGNAL);
  }
}

void StreamClients::reset() {
  for (Stream& stream : streams_) {
    stream.events = 0;
    stream.bytes = 0;
    stream.answers = 0;
    stream.longest_gap_ns = 0;
  }
}

ClientReport StreamClients::report() const {
  ClientReport report;
  std::vector<double> gaps;
  report.fewest_events = INT64_MAX;
  for (const Stream& stream : streams_) {
    report.events += stream.events;
    report.bytes += stream.bytes;
    report.answers += stream.answers;
    report.failed_streams += stream.failed ? 1 : 0;
    report.fewest_events = std::min(report.fewest_events, stream.events);
    report.most_events = std::max(report.most_events, stream.events);
    gaps.push_back(static_cast<double>(stream.longest_gap_ns) / static_cast<double>(kNsPerMs));
  }
  std::sort(gaps.begin(), gaps.end());
  report.median_gap_ms = gaps[gaps.size() / 2];
  report.longest_gap_ms = gaps.back();
  return report;
}

}  // namespace puna::bench
