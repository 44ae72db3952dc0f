// SPDX-License-Identifier: Apache-2.0
// The client against a server with real sockets that does as it is told. No time is asserted but
// lower bounds, which a slow machine can't break.
#include "load/load_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "load/prepare.h"
#include "load/summary.h"
#include "load/test_fake_server.h"

namespace puna::load {
namespace {

using ::testing::HasSubstr;

bool is_get(const std::string& head) { return head.starts_with("GET "); }

bool metrics(int fd, const std::string& head) {
  if (head.starts_with("GET /metrics")) {
    return FakeServer::reply(fd, "200 OK", "", "vllm:num_requests_running{} 2\n");
  }
  return FakeServer::reply(fd, "404 Not Found", "", "{}");
}

LoadResult load(const FakeServer& server, size_t count, LoadOptions options = {}) {
  Target target;
  target.url = {.host = "127.0.0.1", .port = server.port()};
  target.model = "m";
  std::vector<PlannedRequest> plan(count);
  for (size_t i = 0; i < count; ++i) {
    plan[i].at_ns = static_cast<TimeNs>(i) * kNsPerMs;
    plan[i].pieces = {20};
    plan[i].output_tokens = 3;
  }
  auto result = run_load(target, options, plan, {});
  EXPECT_TRUE(result.ok()) << result.error().message();
  return std::move(result).value();
}

TEST(LoadRun, ReadsWholeAnswersOnKeptConnections) {
  const FakeServer server([](int fd, const std::string& head, const std::string& body) {
    if (is_get(head)) return metrics(fd, head);
    const auto value = boost::json::parse(body);
    EXPECT_TRUE(value.at("stream_options").at("include_usage").as_bool());
    return FakeServer::answer(fd, value.at("max_tokens").to_number<int>());
  });
  const LoadResult result = load(server, 50, {.keep_text = true});
  ASSERT_EQ(result.records.size(), 50U);
  for (const Record& record : result.records) {
    ASSERT_TRUE(record.done()) << record.error;
    EXPECT_EQ(record.output_tokens, 3);
    EXPECT_EQ(record.prompt_tokens, 7);
    EXPECT_EQ(record.text, "xxx");
    EXPECT_EQ(record.gaps_ms.size(), 2U);
    EXPECT_LE(record.due_ns, record.sent_ns);
    EXPECT_LT(record.sent_ns, record.first_ns);
    EXPECT_LE(record.last_ns, record.end_ns);
  }
  ASSERT_FALSE(result.samples.empty());
  EXPECT_EQ(result.samples.front().running, 2);
  EXPECT_LE(server.connections(), 51U);
}

TEST(LoadRun, ArrivalsDontWaitForAnswers) {
  // Nobody is answered until all have asked: a client that waits would hang here.
  std::atomic<int> asked{0};
  const FakeServer server([&](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    ++asked;
    while (asked < 20) std::this_thread::yield();
    return FakeServer::answer(fd, 1);
  });
  const LoadResult result = load(server, 20);
  EXPECT_EQ(summarise(result, Target{}, 1, {}).all.done, 20U);
  EXPECT_EQ(summarise(result, Target{}, 1, {}).most_in_flight, 20U);
}

TEST(LoadRun, AnswersCutAnywhereAreRead) {
  std::string answer;
  for (int i = 0; i < 3; ++i) answer += FakeServer::text_event("x");
  answer += FakeServer::usage_event(7, 3) + "data: [DONE]\n\n";
  std::atomic<size_t> next{0};
  const FakeServer server([&](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    const size_t cut = 1 + next++ % (answer.size() - 1);
    return FakeServer::begin_stream(fd) && FakeServer::chunk(fd, answer.substr(0, cut)) &&
           FakeServer::chunk(fd, answer.substr(cut)) && FakeServer::send(fd, "0\r\n\r\n");
  });
  const LoadResult result = load(server, answer.size());
  for (const Record& record : result.records) {
    ASSERT_TRUE(record.done()) << record.error;
    EXPECT_EQ(record.output_tokens, 3);
  }
}

TEST(LoadRun, RefusedClientsComeBackWhenTold) {
  std::atomic<int> asked{0};
  const FakeServer server([&](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    if (asked++ > 0) return FakeServer::answer(fd, 1);
    return FakeServer::reply(fd, "429 Too Many Requests",
                             "Retry-After: 1\r\nretry-after-ms: 50\r\n", "{}");
  });
  const LoadResult result = load(server, 1, {.honour_retry_after = true});
  ASSERT_EQ(result.records.size(), 1U);
  const Record& record = result.records.front();
  EXPECT_TRUE(record.done()) << record.error;
  ASSERT_EQ(record.refusals.size(), 1U);
  EXPECT_EQ(record.refusals[0].status, 429);
  EXPECT_EQ(record.refusals[0].retry_after_ns, 50 * kNsPerMs);
  EXPECT_GE(record.sent_ns - record.refusals[0].sent_ns, 50 * kNsPerMs);
  const RefusalSummary refusals = summarise(result, Target{}, 1, {}).refusals;
  EXPECT_EQ(refusals.in_at_once, 1U);
  EXPECT_EQ(refusals.retry_after_error.count, 1U);
}

TEST(LoadRun, RefusedClientsGiveUpUnlessTold) {
  std::atomic<int> asked{0};
  const FakeServer server([&](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    ++asked;
    return FakeServer::reply(fd, "503 Service Unavailable", "Retry-After: 0\r\n", "{}");
  });
  EXPECT_EQ(load(server, 3).records[2].outcome, Outcome::kRefused);
  EXPECT_EQ(asked, 3);
  const LoadResult result = load(server, 1, {.honour_retry_after = true, .max_attempts = 4});
  EXPECT_EQ(result.records[0].outcome, Outcome::kRefused);
  EXPECT_EQ(result.records[0].refusals.size(), 4U);
}

TEST(LoadRun, FailuresSayWhatHappened) {
  std::atomic<int> asked{0};
  const FakeServer server([&](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    switch (asked++) {
      case 0:  // breaks off
        FakeServer::begin_stream(fd);
        FakeServer::chunk(fd, FakeServer::text_event("x"));
        return false;
      case 1:  // ends without [DONE]
        return FakeServer::begin_stream(fd) && FakeServer::send(fd, "0\r\n\r\n");
      case 2:
        return FakeServer::reply(fd, "400 Bad", "", R"({"error":{"message":"no such model"}})");
      default:  // closes without a word
        return false;
    }
  });
  const auto failure = [&] {
    const LoadResult result = load(server, 1, {.scrape_every_ns = 0});
    EXPECT_EQ(result.records.at(0).outcome, Outcome::kFailed);
    return result.records.at(0).error;
  };
  EXPECT_THAT(failure(), HasSubstr("reading the body"));
  EXPECT_THAT(failure(), HasSubstr("before [DONE]"));
  EXPECT_EQ(failure(), "no such model");
  EXPECT_THAT(failure(), HasSubstr("reading the head"));
}

TEST(LoadRun, AStalledAnswerEndsAtTheLimit) {
  const FakeServer server([](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    return FakeServer::begin_stream(fd) && FakeServer::chunk(fd, FakeServer::text_event("x"));
  });
  const LoadResult result = load(server, 2, {.timeout_ns = 200 * kNsPerMs});
  EXPECT_THAT(result.records.at(1).error, HasSubstr("no whole answer within"));
  EXPECT_GE(result.records.at(1).end_ns, 200 * kNsPerMs);
}

TEST(LoadRun, AKeptConnectionThatWasClosedIsReplaced) {
  const FakeServer server([](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    FakeServer::answer(fd, 1);
    return false;
  });
  Target target;
  target.url = {.host = "127.0.0.1", .port = server.port()};
  std::vector<PlannedRequest> plan(3);
  for (size_t i = 0; i < 3; ++i) {
    plan[i].at_ns = static_cast<TimeNs>(i) * 100 * kNsPerMs;
    plan[i].pieces = {1};
  }
  const auto result = run_load(target, {.scrape_every_ns = 0}, plan, {});
  for (const Record& record : result->records) EXPECT_TRUE(record.done()) << record.error;
}

TEST(LoadRun, StopsWhenTold) {
  const FakeServer server([](int fd, const std::string& head, const std::string&) {
    if (is_get(head)) return metrics(fd, head);
    return FakeServer::begin_stream(fd);  // and nothing more
  });
  Target target;
  target.url = {.host = "127.0.0.1", .port = server.port()};
  std::vector<PlannedRequest> plan(2);
  plan[0].pieces = plan[1].pieces = {1};
  plan[1].at_ns = 3600 * kNsPerSecond;
  const auto result = run_load(target, {}, plan, [](const Progress& p) { return p.sent == 0; });
  EXPECT_TRUE(result->stopped);
  EXPECT_TRUE(result->records.empty());
}

TEST(LoadRun, NobodyThere) {
  uint16_t port = 0;
  {
    const FakeServer server([](int, const std::string&, const std::string&) { return false; });
    port = server.port();
  }
  Target target;
  target.url = {.host = "127.0.0.1", .port = port};
  const Result<> prepared = prepare(target);
  ASSERT_FALSE(prepared.ok());
  EXPECT_THAT(prepared.error().message(), HasSubstr("no server at 127.0.0.1:"));
  std::vector<PlannedRequest> plan(1);
  plan[0].pieces = {1};
  EXPECT_EQ(run_load(target, {}, plan, {})->records.at(0).outcome, Outcome::kFailed);
}

TEST(Prepare, AsksForTheModelAndCountsTokens) {
  const FakeServer server([](int fd, const std::string& head, const std::string& body) {
    if (head.starts_with("GET /v1/models")) {
      EXPECT_THAT(head, HasSubstr("Authorization: Bearer k"));
      return FakeServer::reply(fd, "200 OK", "", R"({"data":[{"id":"the-model"}]})");
    }
    const auto value = boost::json::parse(body);
    const bool chat = value.as_object().contains("messages");
    return FakeServer::reply(fd, "200 OK", "", chat ? R"({"count":1050})" : R"({"count":1024})");
  });
  Target target;
  target.url = {.host = "127.0.0.1", .port = server.port()};
  target.tenants = {{.name = "a", .key = "k"}};
  const Result<> prepared = prepare(target);
  ASSERT_TRUE(prepared.ok()) << prepared.error().message();
  EXPECT_EQ(target.model, "the-model");
  EXPECT_DOUBLE_EQ(target.tokens_per_word, 2);
  EXPECT_EQ(target.template_tokens, 26);
}

}  // namespace
}  // namespace puna::load
