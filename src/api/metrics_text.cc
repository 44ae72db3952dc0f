// SPDX-License-Identifier: Apache-2.0
#include "api/metrics_text.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <string_view>

#include "api/json_text.h"
#include "api/request_terms.h"
#include "kv/block_id.h"

namespace puna::api {
namespace {

std::string escape_label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

// Writes metrics that all carry the same labels.
class MetricsText {
 public:
  MetricsText(std::string& out, std::string labels) : out_(out), labels_(std::move(labels)) {}

  void gauge(std::string_view name, std::string_view help, double value) {
    head(name, help, "gauge");
    sample(name, {}, value);
  }
  void counter(std::string_view name, std::string_view help, uint64_t value) {
    head(name, help, "counter");
    sample(name, {}, static_cast<double>(value));
  }
  void head(std::string_view name, std::string_view help, std::string_view type) {
    fmt::format_to(std::back_inserter(out_), "# HELP {} {}\n# TYPE {} {}\n", name, help, name,
                   type);
  }
  // `extra`: further labels, as in `code="200"`.
  void sample(std::string_view name, std::string_view extra, double value) {
    fmt::format_to(std::back_inserter(out_), "{}{{{}{}{}}} ", name, labels_,
                   extra.empty() ? "" : ",", extra);
    append_json_number(out_, value);
    out_ += '\n';
  }

  void histogram(std::string_view name, std::string_view help, const Histogram& cells) {
    head(name, help, "histogram");
    uint64_t total = 0;
    for (size_t i = 0; i < cells.bounds().size(); ++i) {
      total += cells.count(i);
      sample(fmt::format("{}_bucket", name), fmt::format("le=\"{}\"", cells.bounds()[i]),
             static_cast<double>(total));
    }
    total += cells.count(cells.bounds().size());
    sample(fmt::format("{}_bucket", name), "le=\"+Inf\"", static_cast<double>(total));
    sample(fmt::format("{}_sum", name), {}, cells.sum());
    sample(fmt::format("{}_count", name), {}, static_cast<double>(total));
  }

 private:
  std::string& out_;
  const std::string labels_;
};

void append_state(MetricsText& text, const engine::EngineStats& stats,
                  const engine::BackendLimits& limits) {
  text.gauge("vllm:num_requests_running", "Requests in the running batch.",
             stats.requests_running.value());
  text.gauge("vllm:num_requests_waiting", "Requests waiting to be scheduled.",
             stats.requests_waiting.value());
  text.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks held by requests; 1 is all.",
             stats.kv_cache_usage.value());
  text.gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.",
             stats.kv_cache_usage.value());
  text.gauge("puna:tokens_waiting", "Prompt tokens of requests that have not started.",
             stats.tokens_waiting.value());
  text.gauge("puna:tokens_in_flight", "Positions held by running requests.",
             stats.tokens_in_flight.value());
  text.head("vllm:cache_config_info", "How the KV cache is laid out.", "gauge");
  text.sample(
      "vllm:cache_config_info",
      fmt::format(R"(block_size="{}",num_gpu_blocks="{}")", kv::kBlockTokens, limits.num_blocks),
      1);
}

// The mildest first, as engine::Rung.
constexpr std::array<std::string_view, engine::kNumRungs> kRungNames = {
    "none",         "drop_cached",       "smaller_chunk", "pause_background", "refuse_background",
    "refuse_batch", "refuse_interactive"};

std::string class_label(size_t index) {
  return fmt::format("class=\"{}\"", class_name(static_cast<engine::RequestClass>(index)));
}

void append_classes(MetricsText& text, const engine::EngineStats& stats) {
  const auto by_class = [&](std::string_view name, std::string_view help, const auto& cells) {
    text.head(name, help, "gauge");
    for (size_t i = 0; i < cells.size(); ++i) text.sample(name, class_label(i), cells[i].value());
  };
  by_class("puna:class_requests_waiting", "Waiting requests by class.",
           stats.class_requests_waiting);
  by_class("puna:class_tokens_waiting", "Prompt tokens of waiting requests by class.",
           stats.class_tokens_waiting);
  text.gauge("puna:degrade_rung", "What is given up now under load: 0 nothing, 6 all.",
             stats.degrade_rung.value());
  text.gauge("puna:step_predicted_seconds", "Predicted time of the last predicted step.",
             stats.step_time_predicted_s.value());
  text.gauge("puna:step_measured_seconds", "Measured time of the last predicted step.",
             stats.step_time_measured_s.value());
}

void append_counters(MetricsText& text, const engine::EngineStats& stats) {
  text.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
               stats.prefix_cache_queries.value());
  text.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
               stats.prefix_cache_hits.value());
  text.counter("vllm:prompt_tokens_total", "Prompt tokens processed.", stats.prompt_tokens.value());
  text.counter("vllm:generation_tokens_total", "Tokens generated.",
               stats.generation_tokens.value());
  text.counter("vllm:num_preemptions_total", "Running requests paused to free memory.",
               stats.preemptions.value());
  constexpr std::string_view kSuccess = "vllm:request_success_total";
  text.head(kSuccess, "Finished requests by reason.", "counter");
  const auto finished = [&](std::string_view reason, const Counter& cell) {
    text.sample(kSuccess, fmt::format("finished_reason=\"{}\"", reason),
                static_cast<double>(cell.value()));
  };
  finished("stop", stats.finished_stop);
  finished("length", stats.finished_length);
  finished("abort", stats.finished_cancelled);
  finished("deadline", stats.finished_deadline);
  finished("error", stats.finished_error);
  text.counter("puna:request_refusals_total", "Requests refused because the queue was full.",
               stats.refusals.value());
  constexpr std::string_view kClassRefusals = "puna:class_refusals_total";
  text.head(kClassRefusals, "Requests that the engine refused, by class.", "counter");
  for (size_t i = 0; i < engine::kNumClasses; ++i) {
    text.sample(kClassRefusals, class_label(i),
                static_cast<double>(stats.class_refusals[i].value()));
  }
  text.counter("puna:deadline_expiries_total", "Requests that their deadline ended.",
               stats.finished_deadline.value());
  constexpr std::string_view kRungs = "puna:degrade_steps_total";
  text.head(kRungs, "Steps in which a rung of the degrade ladder was used.", "counter");
  for (size_t i = 1; i < engine::kNumRungs; ++i) {
    text.sample(kRungs, fmt::format("rung=\"{}\"", kRungNames[i]),
                static_cast<double>(stats.rung_steps[i].value()));
  }
  text.counter("puna:predicted_steps_total", "Steps whose time was predicted.",
               stats.predicted_steps.value());
  text.counter("puna:steps_total", "Forward passes.", stats.steps.value());
}

void append_histograms(MetricsText& text, const engine::EngineStats& stats) {
  text.histogram("vllm:time_to_first_token_seconds", "Submission to first token.",
                 stats.time_to_first_token_s);
  text.histogram("puna:ttft_over_quote", "Submission to first token over its quoted p95.",
                 stats.ttft_over_quote);
  text.histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.",
                 stats.inter_token_latency_s);
  text.histogram("vllm:time_per_output_token_seconds",
                 "Older name of vllm:inter_token_latency_seconds.", stats.inter_token_latency_s);
  text.histogram("vllm:e2e_request_latency_seconds", "Submission to last token.",
                 stats.e2e_latency_s);
  text.histogram("vllm:request_queue_time_seconds", "Waiting to be scheduled.", stats.queue_time_s);
  text.histogram("vllm:request_prefill_time_seconds", "First schedule to first token.",
                 stats.prefill_time_s);
  text.histogram("vllm:request_decode_time_seconds", "First token to last token.",
                 stats.decode_time_s);
  text.histogram("vllm:request_prompt_tokens", "Prompt tokens per request.",
                 stats.request_prompt_tokens);
  text.histogram("vllm:request_generation_tokens", "Generated tokens per request.",
                 stats.request_generation_tokens);
  text.histogram("vllm:iteration_tokens_total", "Tokens per forward pass.", stats.iteration_tokens);
  text.histogram("puna:step_prediction_error", "Of step times: |measured / predicted - 1|.",
                 stats.step_time_error);
  text.histogram("puna:step_seconds", "Time of a forward pass.", stats.step_time_s);
}

void append_server(MetricsText& text, const ServerStatus& status) {
  text.gauge("puna:connections", "Open connections on the serving port.",
             static_cast<double>(status.connections.load()));
  text.counter("puna:connections_accepted_total", "Connections taken.",
               status.connections_accepted.value());
  text.counter("puna:connections_refused_total", "Connections over --max-connections.",
               status.connections_refused.value());
  text.counter("puna:clients_gone_total", "Clients that left while their answer was being made.",
               status.clients_gone.value());
  text.counter("puna:write_timeouts_total", "Clients dropped because they did not read.",
               status.write_timeouts.value());
  constexpr std::string_view kRefusals = "puna:refusals_total";
  text.head(kRefusals, "Refused requests by class and reason.", "counter");
  constexpr std::array<std::string_view, ServerStatus::kNumReasons> kReasons = {
      "queue_full", "class_refused", "deadline", "draining", "rate_limited"};
  for (size_t i = 0; i < status.refusals.size(); ++i) {
    for (size_t reason = 0; reason < kReasons.size(); ++reason) {
      text.sample(kRefusals, fmt::format("{},reason=\"{}\"", class_label(i), kReasons[reason]),
                  static_cast<double>(status.refusals[i][reason].value()));
    }
  }
  text.counter("puna:canaries_total",
               "Requests of one token that /ready submitted to see an idle engine step.",
               status.canaries.value());
  text.counter("puna:early_refusals_total", "Of them: before the prompt was tokenised.",
               status.early_refusals.value());
  constexpr std::string_view kResponses = "puna:http_responses_total";
  text.head(kResponses, "HTTP responses by status.", "counter");
  for (size_t i = 0; i < ServerStatus::kCountedStatuses.size(); ++i) {
    text.sample(kResponses, fmt::format("code=\"{}\"", ServerStatus::kCountedStatuses[i]),
                static_cast<double>(status.responses[i].value()));
  }
}

}  // namespace

void append_metrics(std::string& out, const ServedModel& model, const ServerStatus& status) {
  MetricsText text(
      out, fmt::format("model_name=\"{}\",engine=\"0\"", escape_label(model.names.front())));
  const engine::EngineStats& stats = model.engine->stats();
  append_state(text, stats, model.engine->limits());
  append_classes(text, stats);
  append_counters(text, stats);
  append_histograms(text, stats);
  append_server(text, status);
  if (model.extra_metrics) out += model.extra_metrics(status.host_use());
}

}  // namespace puna::api
