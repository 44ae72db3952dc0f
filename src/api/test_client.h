// SPDX-License-Identifier: Apache-2.0
// For tests: a blocking HTTP client over a plain socket, which can also misbehave on purpose.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <charconv>
#include <map>
#include <string>
#include <string_view>

#include "base/check.h"

namespace puna::api {

struct TestResponse {
  int status = 0;  // 0: the connection ended or 20 s passed before a whole response came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined

  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  }
};

class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    CHECK(fd_ >= 0);
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (receive_buffer > 0) {
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~TestClient() { close(); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // False when the server closed meanwhile.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  static std::string request(std::string_view method, std::string_view path,
                             std::string_view body = {}, std::string_view headers = {}) {
    std::string text;
    text.append(method)
        .append(" ")
        .append(path)
        .append(" HTTP/1.1\r\nHost: test\r\n")
        .append(headers);
    if (method == "POST") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    return text.append("\r\n").append(body);
  }
  TestResponse get(std::string_view path, std::string_view headers = {}) {
    return ask(request("GET", path, {}, headers));
  }
  TestResponse post(std::string_view path, std::string_view body, std::string_view headers = {}) {
    return ask(request("POST", path, body, headers));
  }
  TestResponse ask(std::string_view bytes, bool head_only = false) {
    send(bytes);
    return read_response(head_only);
  }

  // One response; what follows it stays for the next call.
  TestResponse read_response(bool head_only = false) {
    TestResponse response;
    if (!read_until("\r\n\r\n")) return response;
    read_head(response, input_.substr(0, input_.find("\r\n\r\n")));
    input_.erase(0, input_.find("\r\n\r\n") + 4);
    if (head_only || response.status == 100) return response;
    bool whole = true;
    if (response.header("transfer-encoding") == "chunked") {
      whole = read_chunks(response.body);
    } else if (!response.header("content-length").empty()) {
      whole = read_exactly(std::stoul(response.header("content-length")), response.body);
    } else {
      while (read_more()) {
      }
      response.body.swap(input_);
    }
    if (!whole) response.status = 0;
    return response;
  }
  // Reads until `text` has come, which stays in the input.
  bool read_until(std::string_view text) {
    while (input_.find(text) == std::string::npos) {
      if (!read_more()) return false;
    }
    return true;
  }
  // True when the server closes within the time limit.
  bool closed_by_server() {
    while (read_more()) {
    }
    return last_read_ == 0;
  }

 private:
  bool read_more() {
    char buffer[16384];
    last_read_ = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (last_read_ > 0) input_.append(buffer, static_cast<size_t>(last_read_));
    return last_read_ > 0;
  }
  bool read_exactly(size_t size, std::string& out) {
    while (input_.size() < size) {
      if (!read_more()) return false;
    }
    out.append(input_, 0, size);
    input_.erase(0, size);
    return true;
  }
  bool read_chunks(std::string& out) {
    for (;;) {
      if (!read_until("\r\n")) return false;
      size_t size = 0;
      std::from_chars(input_.data(), input_.data() + input_.size(), size, 16);
      input_.erase(0, input_.find("\r\n") + 2);
      std::string end;
      if (!read_exactly(size, out) || !read_exactly(2, end) || end != "\r\n") return false;
      if (size == 0) return true;
    }
  }
  static void read_head(TestResponse& response, const std::string& head) {
    response.status = std::stoi(head.substr(head.find(' ') + 1));
    for (size_t at = head.find("\r\n"); at != std::string::npos; at = head.find("\r\n", at)) {
      at += 2;
      const size_t colon = head.find(": ", at);
      std::string name = head.substr(at, colon - at);
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      response.headers[name] = head.substr(colon + 2, head.find("\r\n", at) - colon - 2);
    }
  }

  int fd_;
  bool connected_ = false;
  ssize_t last_read_ = -1;
  std::string input_;
};

}  // namespace puna::api
