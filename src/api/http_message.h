// SPDX-License-Identifier: Apache-2.0
// One HTTP request and one HTTP response as plain values: what the router (service.h) works on. The
// reader (http_reader.h) fills requests from bytes, the connection writes responses.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace puna::api {

struct HttpRequest {
  std::string method;  // as sent: "GET"
  std::string path;    // percent-decoded, without query and authority
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  bool http_1_1 = true;
  bool keep_alive = true;
  bool expects_continue = false;

  // The first header of that (lower-case) name, or empty.
  std::string_view header(std::string_view name) const;
};

// Names in the case in which they are sent.
using HttpHeaders = std::vector<std::pair<std::string_view, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string_view content_type = "application/json";
  HttpHeaders headers;
  std::string body;
  bool close = false;  // the connection can't go on after it
};

std::string_view status_text(int status);

// The bytes of a whole response. `head_only` (HEAD) leaves the body out but keeps its length.
std::string serialize(const HttpResponse& response, std::string_view request_id, bool keep_alive,
                      bool head_only);
// The head of a server-sent event stream; `chunked` for HTTP/1.1, else the body ends with the
// connection.
std::string stream_head(std::string_view request_id, bool keep_alive, bool chunked,
                        const HttpHeaders& headers = {});

// The client's x-request-id when it is short and printable, else a fresh one.
std::string request_id_for(const HttpRequest& request);
// 24 hexadecimal digits that no other call in this process returns; unlike those of other
// processes.
std::string fresh_id();

// Splits a request target into the decoded path. False: it is no path ("*", bad escapes).
bool decode_target(std::string_view target, std::string& path);

}  // namespace puna::api
