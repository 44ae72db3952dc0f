// SPDX-License-Identifier: Apache-2.0
// The chaos against servers that keep or break one promise each.
#include "load/chaos.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "load/chaos_watch.h"
#include "load/server_process.h"
#include "load/test_fake_server.h"

namespace puna::load {
namespace {

// Answers every good request with a text that depends on the body, bad ones with 400.
struct Faults {
  std::atomic<bool> wrong_text{false};
  std::atomic<bool> breaks_off{false};
  std::atomic<bool> refuses_silently{false};
  std::atomic<bool> takes_poison{false};
  std::atomic<bool> stuck{false};
  std::atomic<bool> not_ready{false};
  std::atomic<bool> allocates{false};
  // The first answers are the quiet ones.
  std::atomic<int> asked{0};
};

bool get(int fd, const std::string& head, const Faults& faults) {
  if (head.starts_with("GET /ready")) {
    const bool ready = !faults.not_ready || faults.asked < 8;
    return FakeServer::reply(fd, ready ? "200 OK" : "503 Not Ready", "", "{}");
  }
  std::string text =
      faults.stuck ? "vllm:num_requests_running{} 1\n" : "vllm:num_requests_running{} 0\n";
  text += faults.allocates ? "puna:allocs_after_seal_total{} 3\n"
                           : "puna:allocs_after_seal_total{} 0\n";
  return FakeServer::reply(fd, "200 OK", "", text);
}

bool is_good(const std::string& body) {
  boost::system::error_code ec;
  const auto value = boost::json::parse(body, ec);
  return !ec && value.is_object() && value.get_object().contains("stream");
}

bool serve(int fd, const std::string& head, const std::string& body, Faults& faults) {
  if (head.starts_with("GET ")) return get(fd, head, faults);
  if (!is_good(body)) {
    return FakeServer::reply(fd, faults.takes_poison ? "200 OK" : "400 Bad Request", "", "{}");
  }
  const int before = faults.asked++;
  const bool quiet = before < 6;
  if (!quiet && faults.refuses_silently && before % 3 == 0) {
    return FakeServer::reply(fd, "429 Too Many Requests", "", "{}");
  }
  const std::string text =
      std::to_string(std::hash<std::string>{}(body) + (!quiet && faults.wrong_text ? 1 : 0));
  if (!FakeServer::begin_stream(fd) || !FakeServer::chunk(fd, FakeServer::text_event(text))) {
    return false;
  }
  if (!quiet && faults.breaks_off && before % 3 == 0) return false;
  return FakeServer::chunk(fd, "data: [DONE]\n\n") && FakeServer::send(fd, "0\r\n\r\n");
}

// The names of the broken promises.
std::vector<std::string> broken_by(Faults& faults) {
  const FakeServer server([&](int fd, const std::string& head, const std::string& body) {
    return serve(fd, head, body, faults);
  });
  Target target;
  target.url = {.host = "127.0.0.1", .port = server.port()};
  target.model = "m";
  const ChaosOptions options{.duration_s = 1.5, .rate = 30, .settle_ns = kNsPerSecond};
  const auto report = run_chaos(target, options, {});
  EXPECT_TRUE(report.ok()) << report.error().message();
  std::vector<std::string> names;
  if (!report.ok()) return names;
  EXPECT_GT(report->asked, 10U);
  for (const Promise& promise : report->promises) {
    if (!promise.kept) names.push_back(promise.name);
  }
  EXPECT_EQ(report->kept(), names.empty());
  return names;
}

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Chaos, AGoodServerKeepsEveryPromise) {
  Faults faults;
  EXPECT_THAT(broken_by(faults), IsEmpty());
}

TEST(Chaos, NamesTheBrokenPromise) {
  {
    Faults faults;
    faults.wrong_text = true;
    EXPECT_THAT(broken_by(faults), ElementsAre("same-answers", "alive"));
  }
  {
    Faults faults;
    faults.breaks_off = true;
    EXPECT_THAT(broken_by(faults), Contains("admitted-finishes"));
  }
  {
    Faults faults;
    faults.refuses_silently = true;
    EXPECT_THAT(broken_by(faults), Contains("refusals-say-when"));
  }
  {
    Faults faults;
    faults.stuck = true;
    EXPECT_THAT(broken_by(faults), ElementsAre("nothing-stuck"));
  }
  {
    Faults faults;
    faults.allocates = true;
    EXPECT_THAT(broken_by(faults), ElementsAre("sealed"));
  }
  {
    Faults faults;
    faults.not_ready = true;
    EXPECT_THAT(broken_by(faults), ElementsAre("always-observable"));
  }
}

TEST(Chaos, PoisonThatIsTakenIsFound) {
  Faults faults;
  faults.takes_poison = true;
  const FakeServer server([&](int fd, const std::string& head, const std::string& body) {
    return serve(fd, head, body, faults);
  });
  Target target;
  target.url = {.host = "127.0.0.1", .port = server.port()};
  target.model = "m";
  Vandals vandals(target, *resolve(target.url), 1);
  vandals.start();
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const VandalTally tally = vandals.stop();
  EXPECT_FALSE(tally.accepted.empty());
  EXPECT_GT(tally.acts.size(), 3U);
}

TEST(Chaos, PoisonIsNoRequestThatAServerShouldTake) {
  for (const Poison& poison : poisons("m")) EXPECT_FALSE(is_good(poison.body)) << poison.name;
}

TEST(ServerProcess, ReadsTheMemoryOfAProcess) {
  EXPECT_GT(resident_bytes(::getpid()), int64_t{1} << 20U);
  EXPECT_EQ(resident_bytes(999'999'999), 0);
}

}  // namespace
}  // namespace puna::load
