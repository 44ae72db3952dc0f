// SPDX-License-Identifier: Apache-2.0
// All of the folder that needs no socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "load/answer_reader.h"
#include "load/metrics_reader.h"
#include "load/report.h"
#include "load/sse_parser.h"
#include "load/summary.h"
#include "load/svg_plot.h"
#include "load/target.h"

namespace puna::load {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int32_t> draws(std::string_view text, size_t count) {
  auto distribution = Distribution::parse(text);
  EXPECT_TRUE(distribution.ok()) << text;
  Random random(1);
  std::vector<int32_t> values(count);
  for (int32_t& value : values) value = distribution->draw(random);
  return values;
}

double mean_of(const std::vector<int32_t>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(Distribution, DrawsWhatItSays) {
  EXPECT_THAT(draws("128", 3), ElementsAre(128, 128, 128));

  const auto uniform = draws("uniform:10:13", 4000);
  const auto [low, high] = std::minmax_element(uniform.begin(), uniform.end());
  EXPECT_EQ(*low, 10);
  EXPECT_EQ(*high, 13);
  EXPECT_NEAR(mean_of(uniform), 11.5, 0.1);

  auto lognormal = draws("lognormal:100:0.5", 20001);
  std::sort(lognormal.begin(), lognormal.end());
  EXPECT_NEAR(lognormal[10000], 100, 3);
  // One sigma above the median: 100 e^0.5.
  EXPECT_NEAR(lognormal[16827], 164.9, 6);

  const auto geometric = draws("geometric:20", 20000);
  EXPECT_NEAR(mean_of(geometric), 20, 0.6);
  EXPECT_EQ(*std::min_element(geometric.begin(), geometric.end()), 1);
  EXPECT_NEAR(static_cast<double>(std::count(geometric.begin(), geometric.end(), 1)), 1000, 120);
  EXPECT_THAT(draws("geometric:1", 2), ElementsAre(1, 1));
}

TEST(Distribution, RefusesWhatIsNone) {
  for (const char* text : {"", "x", "1:2", "uniform:1", "uniform:a:b", "normal:1:2",
                           "geometric:1:2", "lognormal:5", "12 "}) {
    const auto result = Distribution::parse(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_THAT(result.error().message(), HasSubstr("lognormal:MEDIAN:SIGMA")) << text;
  }
  for (const char* text : {"0", "-3", "nan", "1048577", "uniform:5:4", "uniform:0:4",
                           "lognormal:10:6", "lognormal:10:-1", "geometric:0.5"}) {
    const auto result = Distribution::parse(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_THAT(result.error().message(), HasSubstr("out of range")) << text;
  }
}

TEST(Percentiles, LieBetweenValues) {
  std::vector<double> values(101);
  std::iota(values.begin(), values.end(), 0);
  std::reverse(values.begin(), values.end());
  const Percentiles of = percentiles_of(values);
  EXPECT_EQ(of.count, 101U);
  EXPECT_DOUBLE_EQ(of.mean, 50);
  EXPECT_DOUBLE_EQ(of.p50, 50);
  EXPECT_DOUBLE_EQ(of.p90, 90);
  EXPECT_DOUBLE_EQ(of.p95, 95);
  EXPECT_DOUBLE_EQ(of.p99, 99);
  EXPECT_DOUBLE_EQ(of.max, 100);
  EXPECT_DOUBLE_EQ(percentiles_of({1, 2}).p50, 1.5);
  EXPECT_DOUBLE_EQ(percentiles_of({7}).p99, 7);
  EXPECT_EQ(percentiles_of({}).count, 0U);
}

TEST(SseParser, IsTheSameAtEverySplit) {
  const std::string stream =
      ": comment\n\ndata: one\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\ndata\rid: 4\r\r"
      "database: no\n\ndata:  three\n\ndata: cut";
  const std::vector<std::string> expected = {"one", "two\nlines", "", " three"};
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      SseParser parser;
      std::vector<std::string> events;
      const auto take = [&](std::string_view data) { events.emplace_back(data); };
      ASSERT_TRUE(parser.feed(stream.substr(0, first), take));
      ASSERT_TRUE(parser.feed(stream.substr(first, second - first), take));
      ASSERT_TRUE(parser.feed(stream.substr(second), take));
      ASSERT_EQ(events, expected) << first << " " << second;
      ASSERT_TRUE(parser.inside_event());
    }
  }
}

TEST(SseParser, RefusesAnEventWithoutEnd) {
  SseParser parser;
  const std::string piece(1 << 20, 'x');
  bool fits = true;
  for (int i = 0; i < 5; ++i) fits = parser.feed(piece, [](std::string_view) {});
  EXPECT_FALSE(fits);
}

TEST(AnswerReader, CountsTextAndReadsUsage) {
  Record record;
  AnswerReader reader(record, true);
  reader.feed("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n", 5);
  EXPECT_EQ(record.first_ns, 0);
  reader.feed("data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n", 10 * kNsPerMs);
  reader.feed("data: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":null}]}\n\n",
              13 * kNsPerMs);
  reader.feed("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
              14 * kNsPerMs);
  reader.feed(
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,"
      "\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\ndata: [DONE]\n\n",
      15 * kNsPerMs);
  EXPECT_TRUE(reader.finish());
  EXPECT_EQ(record.text, "Hello");
  EXPECT_EQ(record.finish_reason, "length");
  EXPECT_EQ(record.first_ns, 10 * kNsPerMs);
  EXPECT_EQ(record.last_ns, 13 * kNsPerMs);
  EXPECT_THAT(record.gaps_ms, ElementsAre(3.0F));
  EXPECT_EQ(record.prompt_tokens, 7);
  EXPECT_EQ(record.output_tokens, 3);
  EXPECT_EQ(record.cached_tokens, 4);
}

TEST(AnswerReader, CountsPiecesWithoutUsage) {
  Record record;
  AnswerReader reader(record, false);
  reader.feed(
      "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n"
      "data: [DONE]\n\n",
      1);
  EXPECT_TRUE(reader.finish());
  EXPECT_EQ(record.output_tokens, 2);
  EXPECT_FALSE(record.counted_by_server);
  EXPECT_EQ(record.text, "");
}

TEST(AnswerReader, ABrokenStreamIsNoAnswer) {
  const std::pair<const char*, const char*> cases[] = {
      {"data: {\"choices\":[{\"text\":\"a\"}]}\n\n", "before [DONE]"},
      {"data: {\"error\":{\"message\":\"engine died\"}}\n\ndata: [DONE]\n\n", "engine died"},
      {"data: nonsense\n\ndata: [DONE]\n\n", "no JSON"},
      {"data: [1]\n\ndata: [DONE]\n\n", "no JSON object"},
  };
  for (const auto& [stream, error] : cases) {
    Record record;
    AnswerReader reader(record, false);
    reader.feed(stream, 1);
    EXPECT_FALSE(reader.finish()) << stream;
    EXPECT_THAT(record.error, HasSubstr(error));
  }
}

TEST(Url, NamesAServer) {
  EXPECT_EQ(parse_url("http://127.0.0.1:8080")->host_header(), "127.0.0.1:8080");
  EXPECT_EQ(parse_url("http://box/v1/")->host_header(), "box:80");
  EXPECT_EQ(parse_url("http://[::1]:9/")->host_header(), "[::1]:9");
  for (const char* text :
       {"", "box:80", "ftp://x", "http://", "http://a:0", "http://a:99999", "http://a:b",
        "http://a/path", "http://u@a", "http://[::1", "http://a:"}) {
    EXPECT_FALSE(parse_url(text).ok()) << text;
  }
  EXPECT_THAT(parse_url("https://a").error().message(), HasSubstr("https is not supported"));
}

TEST(Sender, HasNameKeyAndWeight) {
  const auto whole = Sender::parse("acme=sk-1:2.5");
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->name, "acme");
  EXPECT_EQ(whole->key, "sk-1");
  EXPECT_DOUBLE_EQ(whole->weight, 2.5);
  EXPECT_EQ(Sender::parse("acme=sk")->weight, 1);
  EXPECT_EQ(Sender::parse("batch:3")->weight, 3);
  EXPECT_EQ(Sender::parse("batch")->key, "");
  for (const char* text : {"", "=key", "a:0", "a:-1", "a:x", "a:nan", "a=b\nc"}) {
    EXPECT_FALSE(Sender::parse(text).ok()) << text;
  }
}

TEST(Workload, PoissonArrivalsAreTheSameFromASeed) {
  Workload work;
  work.rate = 50;
  work.duration_s = 100;
  work.prompt_tokens = *Distribution::parse("uniform:5:50");
  const auto plan = *plan_requests(work);
  EXPECT_NEAR(static_cast<double>(plan.size()), 5000, 250);
  std::vector<double> waits;
  for (size_t i = 1; i < plan.size(); ++i) {
    waits.push_back(ms_between(plan[i - 1].at_ns, plan[i].at_ns));
    ASSERT_GE(waits.back(), 0);
  }
  const Percentiles of = percentiles_of(waits);
  EXPECT_NEAR(of.mean, 20, 1);
  EXPECT_NEAR(of.p50, 20 * 0.693, 1);  // exponential: the median is ln 2 of the mean
  EXPECT_NEAR(of.p95, 20 * 2.996, 4);

  const auto again = *plan_requests(work);
  work.seed = 1;
  const auto other = *plan_requests(work);
  const auto same = [&](const auto& a, const auto& b) {
    return a.at_ns == b.at_ns && a.pieces == b.pieces && a.text_seed == b.text_seed;
  };
  EXPECT_TRUE(std::equal(plan.begin(), plan.end(), again.begin(), again.end(), same));
  EXPECT_FALSE(std::equal(plan.begin(), plan.end(), other.begin(), other.end(), same));
}

TEST(Workload, BurstsAndWeights) {
  Workload work;
  work.bursts = *Bursts::parse("100:2");
  work.requests = 1000;
  work.tenants = {*Sender::parse("a:3"), *Sender::parse("b")};
  work.classes = {*Sender::parse("batch")};
  const auto plan = *plan_requests(work);
  ASSERT_EQ(plan.size(), 1000U);
  EXPECT_EQ(plan[99].at_ns, 0);
  EXPECT_EQ(plan[100].at_ns, 2 * kNsPerSecond);
  const auto first = std::count_if(plan.begin(), plan.end(), [](auto& p) { return p.tenant == 0; });
  EXPECT_NEAR(static_cast<double>(first), 750, 50);
  EXPECT_EQ(plan[7].cls, 0);
  for (const char* text : {"", "5", "0:1", "5:0", "5:-1", "a:b", "1:2:3"}) {
    EXPECT_FALSE(Bursts::parse(text).ok()) << text;
  }
}

TEST(Workload, TurnsRepeatWhatWasSaid) {
  Workload work;
  work.requests = 3 * kOpenConversations;
  work.duration_s = 0;
  work.turns = 3;
  work.prompt_tokens = Distribution::fixed(10);
  work.output_tokens = Distribution::fixed(4);
  const auto plan = *plan_requests(work);
  const auto& third = plan[2 * kOpenConversations];
  EXPECT_EQ(third.turn, 2);
  EXPECT_THAT(third.pieces, ElementsAre(10, 4, 10, 4, 10));
  EXPECT_EQ(third.text_seed, plan[0].text_seed);
  EXPECT_NE(plan[1].text_seed, plan[0].text_seed);

  // The bodies begin with the same bytes, so that a prefix cache has what to find.
  Target target;
  target.endpoint = Endpoint::kCompletions;
  const auto prompt = [&](const PlannedRequest& planned) {
    const std::string request = request_of(target, planned);
    const auto body = boost::json::parse(request.substr(request.find("\r\n\r\n") + 4));
    return std::string(body.at("prompt").as_string());
  };
  EXPECT_TRUE(prompt(third).starts_with(prompt(plan[kOpenConversations])));
  EXPECT_NE(prompt(plan[0]), prompt(plan[1]));
}

TEST(Workload, LimitsAreToldInWords) {
  Workload work;
  work.rate = 1e6;
  work.duration_s = 100;
  EXPECT_THAT(plan_requests(work).error().message(), HasSubstr("more than 5000000 requests"));
  work.rate = 1e-3;
  work.duration_s = 1e-3;
  EXPECT_THAT(plan_requests(work).error().message(), HasSubstr("nothing to send"));
}

struct FileTest : ::testing::Test {
  std::string write(const std::string& text) {
    const std::string path = ::testing::TempDir() + "/load_" +
                             ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::ofstream(path) << text;
    return path;
  }
};

TEST_F(FileTest, TracesOfTwoKinds) {
  const std::string path = write(
      "{\"timestamp\": 1500, \"input_length\": 30, \"output_length\": 5}\n\n"
      "{\"at_s\": 0.25, \"tenant\": \"b\", \"class\": \"batch\"}\r\n");
  const auto trace = read_trace(path);
  ASSERT_TRUE(trace.ok()) << trace.error().message();
  Workload work;
  work.trace = *trace;
  work.tenants = {*Sender::parse("a"), *Sender::parse("b")};
  work.classes = {*Sender::parse("batch")};
  const auto plan = plan_requests(work);
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  ASSERT_EQ(plan->size(), 2U);
  EXPECT_EQ((*plan)[0].at_ns, 250 * kNsPerMs);
  EXPECT_EQ((*plan)[0].tenant, 1);
  EXPECT_THAT((*plan)[0].pieces, ElementsAre(256));
  EXPECT_EQ((*plan)[1].at_ns, 1500 * kNsPerMs);
  EXPECT_THAT((*plan)[1].pieces, ElementsAre(30));
  EXPECT_EQ((*plan)[1].output_tokens, 5);
  work.tenants = {*Sender::parse("a")};
  EXPECT_THAT(plan_requests(work).error().message(), HasSubstr("tenant \"b\""));
}

TEST_F(FileTest, BadLinesAreNamed) {
  EXPECT_THAT(read_trace(write("{\"at_s\": 1}\nnope\n")).error().message(), HasSubstr(":2: "));
  EXPECT_THAT(read_trace(write("{\"x\": 1}\n")).error().message(), HasSubstr("at_s"));
  EXPECT_THAT(read_trace(write("{\"at_s\": 1, \"prompt_tokens\": 0}")).error().message(),
              HasSubstr("prompt_tokens"));
  EXPECT_THAT(read_trace(write("\n")).error().message(), HasSubstr("no requests"));
  EXPECT_THAT(read_trace("/no/such").error().message(), HasSubstr("/no/such"));
  EXPECT_THAT(read_senders(write("# all\na=1\n=2\n")).error().message(), HasSubstr(":3: "));
  EXPECT_EQ(read_senders(write("a=1:2\nb=2\n"))->size(), 2U);
}

TEST(Target, PromptsHaveAboutTheWantedLength) {
  Target target;
  target.model = "a \"b\"";
  target.tokens_per_word = 2;
  target.template_tokens = 10;
  target.tenants = {*Sender::parse("x=key")};
  target.classes = {*Sender::parse("batch")};
  PlannedRequest planned;
  planned.cls = 0;
  planned.pieces = {50};
  const std::string request = request_of(target, planned);
  EXPECT_THAT(request, HasSubstr("POST /v1/chat/completions HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("Authorization: Bearer key\r\n"));
  EXPECT_THAT(request, HasSubstr("x-puna-class: batch\r\n"));
  const auto body = boost::json::parse(request.substr(request.find("\r\n\r\n") + 4));
  EXPECT_EQ(body.at("model").as_string(), target.model);
  const std::string text(body.at("messages").at(0).at("content").as_string());
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 20);  // (50 - 10) / 2 words

  target.endpoint = Endpoint::kCompletions;
  target.prompt_id_limit = 800;
  target.shared_prefix_tokens = 5;
  const std::string with_ids = request_of(target, planned);
  const auto ids = boost::json::parse(with_ids.substr(with_ids.find("\r\n\r\n") + 4));
  EXPECT_EQ(ids.at("prompt").as_array().size(), 55U);
  for (const auto& id : ids.at("prompt").as_array()) {
    EXPECT_GE(id.as_int64(), 100);
    EXPECT_LE(id.as_int64(), 400);
  }
}

TEST(MetricsReader, ReadsThreeServers) {
  const MetricSample puna = read_metrics(
      "# HELP vllm:num_requests_running x\nvllm:num_requests_running{model_name=\"a b\"} 3\n"
      "vllm:num_requests_waiting{m=\"x\"} 2\nvllm:num_requests_waiting{m=\"y\"} 5 1700000\n"
      "vllm:kv_cache_usage_perc{m=\"x\"} 0.25\n");
  EXPECT_EQ(puna.running, 3);
  EXPECT_EQ(puna.waiting, 7);
  EXPECT_EQ(puna.kv_usage, 0.25);
  const MetricSample llama =
      read_metrics("llamacpp:requests_processing 4\nllamacpp:requests_deferred 9\n");
  EXPECT_EQ(llama.running, 4);
  EXPECT_EQ(llama.waiting, 9);
  EXPECT_FALSE(metric_value("name_total 1\n", "name").has_value());
}

Record done(TimeNs due_ms, TimeNs first_ms, TimeNs end_ms, int32_t tokens) {
  Record record;
  record.outcome = Outcome::kDone;
  record.status = 200;
  record.due_ns = record.sent_ns = due_ms * kNsPerMs;
  record.first_ns = first_ms * kNsPerMs;
  record.last_ns = record.end_ns = end_ms * kNsPerMs;
  record.prompt_tokens = 10;
  record.output_tokens = tokens;
  record.counted_by_server = true;
  record.wanted_tokens = 50;
  return record;
}

TEST(Summary, CountsFromTheSendAndFromTheDueTime) {
  LoadResult result;
  result.records.push_back(done(0, 100, 300, 5));
  result.records.push_back(done(100, 200, 1100, 11));
  result.records[1].sent_ns = 150 * kNsPerMs;  // the client was late
  result.records[0].quoted_ttft_ms = 80;
  result.took_ns = 2 * kNsPerSecond;
  const Summary summary = summarise(result, Target{}, kNsPerSecond, {.ttft_ms = 99, .tpot_ms = 60});
  EXPECT_EQ(summary.all.ttft_over_quote.count, 1U);
  EXPECT_DOUBLE_EQ(summary.all.ttft_over_quote.p50, 1.25);
  EXPECT_DOUBLE_EQ(summary.all.ttft_ms.p50, 75);
  EXPECT_DOUBLE_EQ(summary.all.due_ttft_ms.p50, 100);
  EXPECT_DOUBLE_EQ(summary.all.tpot_ms.max, 90);
  EXPECT_DOUBLE_EQ(summary.all.e2e_ms.max, 950);
  EXPECT_DOUBLE_EQ(summary.all.due_e2e_ms.max, 1000);
  EXPECT_DOUBLE_EQ(summary.send_lag_ms.max, 50);
  EXPECT_DOUBLE_EQ(summary.requests_per_s, 1);
  EXPECT_DOUBLE_EQ(summary.output_tokens_per_s, 8);
  EXPECT_DOUBLE_EQ(summary.total_tokens_per_s, 18);
  EXPECT_DOUBLE_EQ(summary.offered_per_s, 2);
  EXPECT_EQ(summary.most_in_flight, 2U);
  EXPECT_EQ(summary.all.good, 0U) << "both miss 99 ms from the due time";
  EXPECT_EQ(summarise(result, Target{}, 1, {.tpot_ms = 60}).all.good, 1U);
  EXPECT_EQ(summarise(result, Target{}, 1, {.e2e_ms = 999}).all.good, 1U);
  EXPECT_EQ(summarise(result, Target{}, 1, {}).all.good, 2U);
}

TEST(Summary, RetryAfterIsComparedWithWhenItWasTaken) {
  LoadResult result;
  // Refused at 0 and told 1 s; came back and was taken.
  Record back = done(0, 1100, 1200, 2);
  back.sent_ns = 1000 * kNsPerMs;
  back.refusals = {
      {.status = 429, .sent_ns = 0, .took_ns = 2 * kNsPerMs, .retry_after_ns = kNsPerSecond}};
  // Another of the same size was already taken at 800 ms, a smaller one at 400 ms proves nothing.
  Record witness = done(800, 900, 950, 2);
  Record smaller = done(400, 500, 550, 2);
  smaller.wanted_tokens = 49;
  Record other_tenant = done(300, 500, 550, 2);
  other_tenant.tenant = 1;
  // Another was still refused at 600 ms, a larger one at 750 ms proves nothing.
  Record refused;
  refused.outcome = Outcome::kRefused;
  refused.status = 429;
  refused.wanted_tokens = 50;
  refused.refusals = {{.status = 429, .sent_ns = 600 * kNsPerMs, .took_ns = 1}};
  Record larger = refused;
  larger.wanted_tokens = 51;
  larger.refusals = {{.status = 429, .sent_ns = 750 * kNsPerMs, .took_ns = 1}};
  // Never came back, and was told nothing.
  Record gone;
  gone.outcome = Outcome::kRefused;
  gone.status = 503;
  gone.end_ns = 1;
  gone.refusals = {{.status = 503, .sent_ns = 900 * kNsPerMs, .took_ns = 4 * kNsPerMs}};
  result.records = {back, witness, smaller, other_tenant, refused, larger, gone};
  result.took_ns = 2 * kNsPerSecond;
  const RefusalSummary refusals = summarise(result, Target{}, 1, {}).refusals;
  EXPECT_EQ(refusals.by_status.at(429), 3U);
  EXPECT_EQ(refusals.by_status.at(503), 1U);
  EXPECT_EQ(refusals.with_retry_after, 1U);
  EXPECT_DOUBLE_EQ(refusals.latency_ms.max, 4);
  EXPECT_EQ(refusals.retry_after_error.count, 1U);
  EXPECT_NEAR(refusals.retry_after_error.p50, 3.0 / 7, 1e-9);  // told 1000 ms, it was 600 to 800
  EXPECT_EQ(refusals.came_back, 1U);
  EXPECT_EQ(refusals.in_at_once, 1U);
}

TEST(SvgPlot, TicksAreRoundAndTextIsEscaped) {
  EXPECT_THAT(round_ticks(0, 10, 5), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(round_ticks(3, 3, 5), ElementsAre(3));
  EXPECT_EQ(html_escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
  const std::string svg =
      svg_plot({"T", "x", "y", true, {{"s", {{0, 1}, {1, 2}, {100, 3}}, false}}});
  EXPECT_THAT(svg, HasSubstr("line s0"));
  EXPECT_EQ(svg.find("inf"), std::string::npos) << "0 has no place on a logarithmic axis";
  EXPECT_THAT(svg_plot({"T", "x", "y", true, {}}), HasSubstr("</svg>"));
}

TEST(Report, TextAndJsonSayTheSame) {
  LoadResult result;
  result.records.push_back(done(0, 100, 300, 5));
  result.records.push_back(done(10, 100, 300, 5));
  result.records[1].outcome = Outcome::kFailed;
  result.records[1].status = 500;
  result.records[1].error = "boom";
  result.took_ns = kNsPerSecond;
  Target target;
  target.tenants = {*Sender::parse("first"), *Sender::parse("second")};
  const Summary summary = summarise(result, target, kNsPerSecond, {.ttft_ms = 1000});
  const ReportHead head{.url = "http://x",
                        .model = "m",
                        .endpoint = "chat",
                        .arrivals = "2/s",
                        .prompt_tokens = "10",
                        .output_tokens = "5",
                        .seed = 3,
                        .slo = {.ttft_ms = 1000}};
  const std::string text = report_text(head, summary);
  EXPECT_THAT(text, HasSubstr("2 sent: 1 done, 0 refused, 1 failed"));
  EXPECT_THAT(text, HasSubstr("failed: 1 x 500: boom"));
  EXPECT_THAT(text, HasSubstr("second"));
  const std::string page = report_html(head, summary, result);
  EXPECT_THAT(page, HasSubstr("<td>500: boom</td>"));
  EXPECT_THAT(page, HasSubstr("Latency over time"));
  for (const char* bad : {" nan", "Mnan", ">nan", "inf "}) {
    EXPECT_EQ(page.find(bad), std::string::npos) << bad;
  }
  EXPECT_EQ(page.find("src="), std::string::npos) << "needs nothing else";
  const auto value = boost::json::parse(report_json(head, summary));
  EXPECT_EQ(value.at("completed").to_number<int>(), 1);
  EXPECT_EQ(value.at("ttft_ms").at("p99").to_number<double>(), 100);
  EXPECT_EQ(value.at("tenants").as_array().size(), 2U);
  EXPECT_EQ(value.at("request_goodput").to_number<double>(), 1);
  EXPECT_TRUE(value.at("slo").at("tpot_ms").is_null());
}

}  // namespace
}  // namespace puna::load
