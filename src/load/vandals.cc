// SPDX-License-Identifier: Apache-2.0
#include "load/vandals.h"

#include <boost/json.hpp>
#include <chrono>

namespace puna::load {
namespace {

namespace json = boost::json;

constexpr int kVandals = 6;
constexpr int kFloodClients = 48;
constexpr TimeNs kActLimitNs = 10 * kNsPerSecond;
constexpr int kStalledBufferBytes = 4096;
constexpr int64_t kHugeWords = 200'000;
constexpr size_t kNesting = 100'000;

// Closes a connection at its time. The coroutine that owns it waits for leave() before it ends, for
// the handler of a timer that has just fired still points here.
class Limit {
 public:
  Limit(asio::io_context& context, HttpConnection& connection, TimeNs after_ns)
      : timer_(context, std::chrono::nanoseconds(after_ns)) {
    timer_.async_wait([this, &connection](const error_code& ec) {
      if (ec) return;
      fired_ = true;
      connection.close();
    });
  }
  // True when nothing is on its way any more.
  bool leave() { return fired_ || timer_.cancel() > 0; }

 private:
  asio::steady_timer timer_;
  bool fired_ = false;
};

bool is_fault(int status) { return status == 200 || (status >= 500 && status != 503); }

}  // namespace

std::vector<Poison> poisons(const std::string& model) {
  const std::string chat = "/v1/chat/completions";
  const std::string completions = "/v1/completions";
  const std::string name = json::serialize(json::string(model));
  const auto with = [&](std::string_view fields) {
    return fmt::format(
        R"({{"model":{},"messages":[{{"role":"user","content":"Hi"}}],"max_tokens":2,{}}})", name,
        fields);
  };
  return {
      {"cut JSON", chat, "{\"model\":"},
      {"no object", chat, "[]"},
      {"empty body", chat, ""},
      {"messages is text", chat, fmt::format(R"({{"model":{},"messages":"x"}})", name)},
      {"role is a number", chat,
       fmt::format(R"({{"model":{},"messages":[{{"role":1,"content":"x"}}]}})", name)},
      {"temperature is text", chat, with(R"("temperature":"hot")")},
      {"negative top_p", chat, with(R"("top_p":-1)")},
      {"n is huge", chat, with(R"("n":1000000000)")},
      {"seed is an object", chat, with(R"("seed":{})")},
      {"stop is a number", chat, with(R"("stop":5)")},
      {"no UTF-8", chat, with("\"user\":\"\xff\xfe\"")},
      {"ids out of range", completions,
       fmt::format(R"({{"model":{},"prompt":[999999999],"max_tokens":1}})", name)},
      {"deep nesting", chat, std::string(kNesting, '[')},
      {"a prompt beyond every context", completions,
       fmt::format(R"({{"model":{},"prompt":"{}","max_tokens":1}})", name, words(1, kHugeWords))}};
}

Vandals::Vandals(const Target& target, Endpoints endpoints, uint64_t seed)
    : target_(target), endpoints_(std::move(endpoints)), seed_(seed) {}

Vandals::~Vandals() {
  if (thread_.joinable()) stop();
}

void Vandals::start() {
  Random random(seed_);
  for (int i = 0; i < kVandals; ++i) asio::co_spawn(context_, one(random.fork()), asio::detached);
  thread_ = std::thread([this] { context_.run(); });
}

VandalTally Vandals::stop() {
  context_.stop();
  thread_.join();
  return tally_;
}

asio::awaitable<void> Vandals::sleep(TimeNs for_ns) {
  asio::steady_timer timer(context_, std::chrono::nanoseconds(for_ns));
  error_code ignored;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

asio::awaitable<void> Vandals::one(Random random) {
  for (;;) {
    co_await act(random);
    co_await sleep(random.between(1, 100) * kNsPerMs);
  }
}

std::string Vandals::long_request(Random& random) const {
  PlannedRequest planned;
  planned.text_seed = random.next();
  planned.pieces = {static_cast<int32_t>(random.between(20, 200))};
  planned.output_tokens = 200;
  return request_of(target_, planned);
}

asio::awaitable<void> Vandals::act(Random& random) {
  const int64_t which = random.between(0, 9);
  std::string bytes = long_request(random);
  const TimeNs moment_ns = random.between(0, 800) * kNsPerMs;
  if (which <= 2) {
    ++tally_.acts["leaves while it is answered"];
    co_await send_and_leave(std::move(bytes), moment_ns, true);
  } else if (which == 3) {
    ++tally_.acts["leaves at once"];
    co_await send_and_leave(std::move(bytes), 0, false);
  } else if (which == 4) {
    ++tally_.acts["half a request"];
    bytes.resize(static_cast<size_t>(random.between(1, static_cast<int64_t>(bytes.size()) - 1)));
    co_await send_and_leave(std::move(bytes), moment_ns, false);
  } else if (which == 5) {
    ++tally_.acts["no HTTP"];
    for (char& c : bytes) c = static_cast<char>(random.next());
    co_await send_and_leave(std::move(bytes), moment_ns, true);
  } else if (which == 6) {
    ++tally_.acts["stalls"];
    co_await stall(std::move(bytes), moment_ns * 4);
  } else if (which == 7) {
    ++tally_.acts["floods"];
    co_await flood(random.fork());
  } else {
    ++tally_.acts["poison"];
    co_await poison(random.next());
  }
}

asio::awaitable<void> Vandals::flood(Random random) {
  for (int i = 0; i < kFloodClients; ++i) {
    std::string bytes = long_request(random);
    const TimeNs stays_ns = random.between(100, 3000) * kNsPerMs;
    asio::co_spawn(context_, send_and_leave(std::move(bytes), stays_ns, true), asio::detached);
  }
  co_await sleep(kNsPerSecond);
}

asio::awaitable<void> Vandals::send_and_leave(std::string bytes, TimeNs after_ns, bool read) {
  HttpConnection connection(context_);
  Limit limit(context_, connection, after_ns);
  const Result<> connected = co_await connection.connect(endpoints_);
  if (connected.ok()) (void)(co_await connection.send(bytes)).ok();
  if (read && connected.ok()) {
    const Result<HttpHead> head = co_await connection.read_head();
    if (head.ok() && head->status == 429) {
      ++tally_.refusals;
      tally_.refusals_without_wait += head->retry_after_ns ? 0 : 1;
    }
    while (head.ok()) {
      const Result<std::string_view> piece = co_await connection.read_body();
      if (!piece.ok() || piece->empty()) break;
    }
  }
  while (!limit.leave()) co_await sleep(0);
}

asio::awaitable<void> Vandals::stall(std::string bytes, TimeNs for_ns) {
  HttpConnection connection(context_);
  connection.set_receive_buffer(kStalledBufferBytes);
  const Result<> connected = co_await connection.connect(endpoints_);
  if (!connected.ok()) co_return;
  const Result<> sent = co_await connection.send(bytes);
  if (sent.ok()) co_await sleep(for_ns);
}

asio::awaitable<void> Vandals::poison(size_t which) {
  const std::vector<Poison> all = poisons(target_.model);
  const Poison& chosen = all[which % all.size()];
  const std::string request =
      http_request("POST", chosen.path, target_.url, target_.key_headers(), chosen.body);
  HttpConnection connection(context_);
  Limit limit(context_, connection, kActLimitNs);
  const Result<> connected = co_await connection.connect(endpoints_);
  if (connected.ok()) {
    (void)(co_await connection.send(request)).ok();
    const Result<HttpHead> head = co_await connection.read_head();
    if (head.ok() && is_fault(head->status)) {
      ++tally_.accepted[fmt::format("{} got {}", chosen.name, head->status)];
    }
  }
  while (!limit.leave()) co_await sleep(0);
}

}  // namespace puna::load
