// SPDX-License-Identifier: Apache-2.0
#include "load/load_run.h"

#include <algorithm>
#include <chrono>

#include "base/quick_thread.h"
#include "load/answer_reader.h"
#include "load/http_client.h"

namespace puna::load {
namespace {

constexpr TimeNs kProgressEveryNs = 200 * kNsPerMs;

bool is_refusal(int status) { return status == 429 || status == 503; }

// One run: its loop, its clock, its records.
class Runner {
 public:
  Runner(const Target& target, const LoadOptions& options, std::span<const PlannedRequest> plan,
         const OnProgress& on_progress, Endpoints endpoints)
      : target_(target),
        options_(options),
        plan_(plan),
        on_progress_(on_progress),
        pool_(context_, std::move(endpoints)),
        start_(std::chrono::steady_clock::now()),
        records_(plan.size()) {}

  LoadResult run() {
    make_thread_quick();  // what it measures is when answers come, not when it had a core
    asio::co_spawn(context_, dispatch(), asio::detached);
    asio::co_spawn(context_, watch(), asio::detached);
    if (options_.scrape_every_ns > 0) asio::co_spawn(context_, scrape(), asio::detached);
    context_.run();
    LoadResult result;
    result.samples = std::move(samples_);
    result.stopped = stopped_;
    for (Record& record : records_) {
      if (record.outcome == Outcome::kCancelled) continue;
      result.took_ns = std::max(result.took_ns, record.end_ns);
      result.records.push_back(std::move(record));
    }
    return result;
  }

 private:
  TimeNs now_ns() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() -
                                                                start_)
        .count();
  }
  asio::awaitable<void> sleep_until(TimeNs at_ns) {
    asio::steady_timer timer(context_);
    timer.expires_at(start_ + std::chrono::nanoseconds(at_ns));
    error_code ignored;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }

  asio::awaitable<void> dispatch() {
    for (size_t i = 0; i < plan_.size() && !stopped_; ++i) {
      // In slices, so that a stop is seen.
      while (now_ns() < plan_[i].at_ns && !stopped_) {
        const TimeNs next_ns = std::min(plan_[i].at_ns, now_ns() + kProgressEveryNs);
        co_await sleep_until(next_ns);
      }
      if (stopped_) break;
      ++progress_.sent;
      ++progress_.in_flight;
      asio::co_spawn(context_, drive(plan_[i], records_[i]), asio::detached);
    }
    all_sent_ = true;
  }

  // Progress, and the end.
  asio::awaitable<void> watch() {
    while (!stopped_ && !(all_sent_ && progress_.in_flight == 0)) {
      co_await sleep_until(now_ns() + kProgressEveryNs / 10);
      if (now_ns() < next_progress_ns_) continue;
      next_progress_ns_ = now_ns() + kProgressEveryNs;
      if (on_progress_ && !on_progress_(progress_)) stopped_ = true;
    }
    ended_ = true;
    context_.stop();
  }

  asio::awaitable<void> scrape() {
    const std::string request =
        http_request("GET", "/metrics", target_.url, target_.key_headers(), "");
    while (!ended_) {
      const TimeNs asked_ns = now_ns();
      const Result<HttpReply> reply = co_await pool_.call(request);
      if (!reply.ok() || reply->head.status != 200) co_return;
      samples_.push_back(read_metrics(reply->body));
      samples_.back().at_ns = asked_ns;
      co_await sleep_until(asked_ns + options_.scrape_every_ns);
    }
  }

  asio::awaitable<void> drive(const PlannedRequest& planned, Record& record) {
    record.tenant = planned.tenant;
    record.cls = planned.cls;
    record.turn = planned.turn;
    record.wanted_tokens = planned.prompt_tokens() + planned.output_tokens;
    record.due_ns = planned.at_ns;
    const std::string request = request_of(target_, planned);
    for (int32_t attempt = 1;; ++attempt) {
      co_await try_once(request, record);
      if (record.outcome != Outcome::kRefused || !options_.honour_retry_after) break;
      const auto& wait_ns = record.refusals.back().retry_after_ns;
      if (!wait_ns || attempt >= options_.max_attempts) break;
      co_await sleep_until(record.end_ns + *wait_ns);
    }
    --progress_.in_flight;
    if (record.outcome == Outcome::kDone) ++progress_.done;
    if (record.outcome == Outcome::kRefused) ++progress_.refused;
    if (record.outcome == Outcome::kFailed) ++progress_.failed;
  }

  // One attempt, closed when it takes longer than the limit.
  asio::awaitable<void> try_once(const std::string& request, Record& record) {
    std::unique_ptr<HttpConnection> connection = pool_.take();
    bool late = false;
    asio::steady_timer limit(context_, std::chrono::nanoseconds(options_.timeout_ns));
    limit.async_wait([&late, raw = connection.get()](const error_code& ec) {
      if (ec) return;
      late = true;
      raw->close();
    });
    record.sent_ns = now_ns();
    Outcome outcome = Outcome::kFailed;
    const Result<HttpHead> head = co_await pool_.ask(connection, request);
    if (head.ok()) {
      record.status = head->status;
      outcome = co_await take_answer(*connection, *head, record);
    } else {
      record.status = 0;
      record.error = head.error().message();
    }
    // The handler of a timer that fired at this moment still points here.
    if (limit.cancel() == 0 && !late) co_await wait_for(late);
    if (late && outcome != Outcome::kDone) {
      record.error = fmt::format("no whole answer within {} s", options_.timeout_ns / kNsPerSecond);
    }
    record.end_ns = now_ns();
    if (outcome == Outcome::kRefused) {
      record.refusals.push_back({.status = record.status,
                                 .sent_ns = record.sent_ns,
                                 .took_ns = record.end_ns - record.sent_ns,
                                 .retry_after_ns = head->retry_after_ns});
    }
    record.outcome = outcome;
    if (outcome != Outcome::kFailed) pool_.give_back(std::move(connection));
  }

  asio::awaitable<void> wait_for(const bool& flag) {
    while (!flag) co_await sleep_until(now_ns());
  }

  asio::awaitable<Outcome> take_answer(HttpConnection& connection, const HttpHead& head,
                                       Record& record) {
    AnswerReader reader(record, options_.keep_text);
    std::string other;  // the body of what is no stream
    for (;;) {
      const Result<std::string_view> piece = co_await connection.read_body();
      if (!piece.ok()) {
        record.error = piece.error().message();
        reader.finish();
        co_return Outcome::kFailed;
      }
      if (piece->empty()) break;
      if (head.status == 200) {
        reader.feed(*piece, now_ns());
      } else if (other.size() < kMaxReplyBytes) {
        other += *piece;
      }
    }
    if (head.status == 200) co_return reader.finish() ? Outcome::kDone : Outcome::kFailed;
    if (is_refusal(head.status)) co_return Outcome::kRefused;
    record.error = error_message_of(other);
    co_return Outcome::kFailed;
  }

  const Target& target_;
  const LoadOptions& options_;
  const std::span<const PlannedRequest> plan_;
  const OnProgress& on_progress_;
  asio::io_context context_{1};
  ConnectionPool pool_;
  const std::chrono::steady_clock::time_point start_;
  std::vector<Record> records_;
  std::vector<MetricSample> samples_;
  Progress progress_;
  TimeNs next_progress_ns_ = 0;
  bool all_sent_ = false;
  bool stopped_ = false;
  bool ended_ = false;
};

}  // namespace

Result<LoadResult> run_load(const Target& target, const LoadOptions& options,
                            std::span<const PlannedRequest> plan, const OnProgress& on_progress) {
  ASSIGN_OR_RETURN(Endpoints endpoints, resolve(target.url));
  Runner runner(target, options, plan, on_progress, std::move(endpoints));
  return runner.run();
}

}  // namespace puna::load
