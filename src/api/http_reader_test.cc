// SPDX-License-Identifier: Apache-2.0
// Bytes to requests: split anywhere, limits, and everything that is no request.
#include "api/http_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/json_text.h"

namespace puna::api {
namespace {

using testing::HasSubstr;
using State = HttpReader::State;

constexpr HttpReader::Limits kReaderLimits{.max_header_bytes = 1024, .max_body_bytes = 100};

// Feeds `bytes` in pieces of `piece`, as the connection does. Returns what the reader left.
std::string feed(HttpReader& reader, std::string_view bytes, size_t piece) {
  std::string input;
  for (size_t at = 0; at < bytes.size() && reader.state() != State::kError; at += piece) {
    input += bytes.substr(at, piece);
    for (;;) {
      const State before = reader.state();
      const size_t used = reader.feed(input);
      input.erase(0, used);
      if (used == 0 && reader.state() == before) break;
    }
  }
  return input;
}

int error_status(std::string_view bytes) {
  HttpReader reader(kReaderLimits);
  feed(reader, bytes, bytes.size());
  return reader.state() == State::kError ? reader.error_status() : 0;
}

TEST(HttpReaderTest, ReadsAMessageSplitAnywhere) {
  const std::string message =
      "POST http://h/a%20b%2Fc?x=1 HTTP/1.1\r\nHost: h\r\nX-Thing: one\r\nContent-Length: "
      "5\r\n\r\nhello";
  for (size_t piece = 1; piece <= message.size(); ++piece) {
    HttpReader reader(kReaderLimits);
    EXPECT_EQ(feed(reader, message + "GET /next", piece), "GET /next");
    ASSERT_EQ(reader.state(), State::kDone) << piece << " " << reader.error_message();
    EXPECT_EQ(reader.request().method, "POST");
    EXPECT_EQ(reader.request().path, "/a b/c");
    EXPECT_EQ(reader.request().header("x-thing"), "one");
    EXPECT_EQ(reader.request().body, "hello");
    EXPECT_TRUE(reader.request().keep_alive);
  }
}

TEST(HttpReaderTest, ReadsChunkedBodies) {
  const std::string message =
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n";
  for (size_t piece = 1; piece <= message.size(); ++piece) {
    HttpReader reader(kReaderLimits);
    EXPECT_EQ(feed(reader, message, piece), "");
    ASSERT_EQ(reader.state(), State::kDone) << piece << " " << reader.error_message();
    EXPECT_EQ(reader.request().body, "abcde");
    EXPECT_EQ(reader.request().header("trailer"), "");
  }
}

TEST(HttpReaderTest, SecondMessageStartsClean) {
  HttpReader reader(kReaderLimits);
  std::string rest = feed(reader,
                          "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
                          "GET /b HTTP/1.0\r\n\r\n",
                          1000);
  ASSERT_EQ(reader.state(), State::kDone);
  reader.next();
  EXPECT_FALSE(reader.started());
  feed(reader, rest, 7);
  ASSERT_EQ(reader.state(), State::kDone);
  EXPECT_EQ(reader.request().path, "/b");
  EXPECT_EQ(reader.request().body, "");
  EXPECT_FALSE(reader.request().http_1_1);
  EXPECT_FALSE(reader.request().keep_alive);
}

TEST(HttpReaderTest, HeadLimitCountsWhateverTheSplit) {
  std::string head = "GET / HTTP/1.1\r\nHost: h\r\n";
  while (head.size() < 2000) head += "a: 0123456789\r\n";
  head += "\r\n";
  for (const size_t piece : {size_t{1}, size_t{16}, size_t{500}, head.size()}) {
    HttpReader reader(kReaderLimits);
    feed(reader, head, piece);
    ASSERT_EQ(reader.state(), State::kError) << piece;
    EXPECT_EQ(reader.error_status(), 431) << piece;
  }
  EXPECT_EQ(error_status("GET /" + std::string(3000, 'a')), 431);
  EXPECT_EQ(error_status("GET / HTTP/1.1\r\nHost: " + std::string(3000, 'a')), 431);
}

TEST(HttpReaderTest, BodyLimitIsSeenBeforeTheBody) {
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n"), 413);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"), 0);
  EXPECT_EQ(
      error_status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFF\r\n" +
                   std::string(200, 'x')),
      413);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
                         std::string(5000, 'x')),
            400);
}

TEST(HttpReaderTest, RefusesWhatIsNoRequest) {
  EXPECT_EQ(error_status("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400);
  EXPECT_EQ(error_status("GET / HTTP/2.0\r\n\r\n"), 505);
  EXPECT_EQ(error_status("GET / HTTP/1.1\r\n\r\n"), 400);  // no Host
  EXPECT_EQ(error_status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
  EXPECT_EQ(error_status("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(error_status("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(error_status("GET /\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"), 400);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"), 400);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n"), 417);
}

TEST(HttpReaderTest, RefusesBodiesWithTwoEnds) {  // request smuggling
  EXPECT_EQ(
      error_status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
      400);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"), 400);
  EXPECT_EQ(error_status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            400);
}

TEST(JsonTextTest, EscapesAndRepairs) {
  EXPECT_EQ(json_string("a\"\\\n\t\x01\x7F"), R"("a\"\\\n\t\u0001\u007f")");
  EXPECT_EQ(json_string("é€😀"), "\"é€😀\"");
  EXPECT_EQ(json_string("\xff\xc3\xed\xa0\x80"), "\"\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\"");
  EXPECT_EQ(json_string("\xf0\x9f\x98"), "\"\uFFFD\uFFFD\uFFFD\"");
}

TEST(JsonTextTest, NumbersAreShortestRoundTrips) {
  const auto text = [](auto value) {
    std::string out;
    append_json_number(out, value);
    return out;
  };
  EXPECT_EQ(text(0.1F), "0.1");
  EXPECT_EQ(text(0.1), "0.1");
  EXPECT_EQ(text(-1.17549435e-38F), "-1.1754944e-38");
  EXPECT_EQ(text(std::numeric_limits<float>::infinity()), "null");
  for (uint32_t bits = 1; bits < 0x7F800000U; bits += 0x00012345U) {
    const float value = std::bit_cast<float>(bits);
    ASSERT_EQ(std::strtof(text(value).c_str(), nullptr), value);
  }
}

}  // namespace
}  // namespace puna::api
