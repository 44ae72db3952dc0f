// SPDX-License-Identifier: Apache-2.0
// For tests: a server with real sockets that answers, refuses, stalls and breaks streams as told.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/check.h"

namespace puna::load {

class FakeServer {
 public:
  // Answers one request on `fd`; false closes the connection. Called from a thread per connection.
  using Handler = std::function<bool(int fd, const std::string& head, const std::string& body)>;

  explicit FakeServer(Handler handler)
      : handler_(std::move(handler)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    CHECK_EQ(::listen(listener_, 128), 0);
    socklen_t size = sizeof(address);
    CHECK_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~FakeServer() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (const int fd : fds_) ::shutdown(fd, SHUT_RDWR);
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : fds_) ::close(fd);
    ::close(listener_);
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  uint16_t port() const { return port_; }
  size_t connections() const { return connections_; }

  static bool send(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  static bool reply(int fd, std::string_view status, std::string_view headers,
                    std::string_view body) {
    std::string text = "HTTP/1.1 ";
    text.append(status).append("\r\n").append(headers);
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    return send(fd, text.append(body));
  }
  static bool begin_stream(int fd) {
    return send(fd,
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                "Transfer-Encoding: chunked\r\n\r\n");
  }
  static bool chunk(int fd, std::string_view data) {
    char size[32];
    std::snprintf(size, sizeof(size), "%zx\r\n", data.size());
    return send(fd, std::string(size).append(data).append("\r\n"));
  }
  static std::string text_event(std::string_view text) {
    return std::string(R"(data: {"choices":[{"index":0,"delta":{"content":")")
        .append(text)
        .append("\"}}]}\n\n");
  }
  static std::string usage_event(int prompt, int output) {
    return R"(data: {"choices":[],"usage":{"prompt_tokens":)" + std::to_string(prompt) +
           R"(,"completion_tokens":)" + std::to_string(output) + "}}\n\n";
  }
  // A whole answer of `tokens` pieces.
  static bool answer(int fd, int tokens) {
    bool sent = begin_stream(fd);
    for (int i = 0; i < tokens; ++i) sent = sent && chunk(fd, text_event("x"));
    return sent && chunk(fd, usage_event(7, tokens) + "data: [DONE]\n\n") && send(fd, "0\r\n\r\n");
  }

 private:
  void accept_all() {
    for (;;) {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      ++connections_;
      fds_.push_back(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) const {
    std::string input;
    for (bool keep = true; keep;) {
      size_t head_end;
      while ((head_end = input.find("\r\n\r\n")) == std::string::npos) {
        if (!read_more(fd, input)) return;
      }
      const std::string head = input.substr(0, head_end + 4);
      const size_t length_at = head.find("Content-Length: ");
      const size_t length =
          length_at == std::string::npos ? 0 : std::stoul(head.substr(length_at + 16));
      while (input.size() < head.size() + length) {
        if (!read_more(fd, input)) return;
      }
      const std::string body = input.substr(head.size(), length);
      input.erase(0, head.size() + length);
      keep = handler_(fd, head, body);
    }
    ::shutdown(fd, SHUT_RDWR);
  }
  static bool read_more(int fd, std::string& input) {
    char buffer[4096];
    const ssize_t size = ::recv(fd, buffer, sizeof(buffer), 0);
    if (size > 0) input.append(buffer, static_cast<size_t>(size));
    return size > 0;
  }

  const Handler handler_;
  const int listener_;
  uint16_t port_ = 0;
  std::atomic<size_t> connections_{0};
  std::vector<int> fds_;              // of the acceptor thread until it ended
  std::vector<std::thread> threads_;  // likewise
  std::thread acceptor_;
};

}  // namespace puna::load
