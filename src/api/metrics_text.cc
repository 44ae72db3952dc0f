// SPDX-License-Identifier: Apache-2.0
#include "api/metrics_text.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <string_view>
#include <vector>

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

struct EngineView {
  const engine::EngineStats& stats;
  const engine::BackendLimits& limits;
  std::string labels;  // model_name="smol",engine="0"
};

// Writes metrics of the server, and of each engine: the latter with the engine's labels.
class MetricsText {
 public:
  MetricsText(std::string& out, std::string labels, std::vector<EngineView> engines)
      : out_(out), labels_(std::move(labels)), engines_(std::move(engines)) {}

  // Of the server.
  void gauge(std::string_view name, std::string_view help, double value) {
    head(name, help, "gauge");
    sample(name, {}, value);
  }
  void counter(std::string_view name, std::string_view help, uint64_t value) {
    head(name, help, "counter");
    sample(name, {}, static_cast<double>(value));
  }
  // `extra`: further labels, as in `code="200"`.
  void sample(std::string_view name, std::string_view extra, double value) {
    sample_with(labels_, name, extra, value);
  }

  // Of each engine.
  void gauges(std::string_view name, std::string_view help, Gauge engine::EngineStats::*cell) {
    head(name, help, "gauge");
    for (const EngineView& engine : engines_) {
      sample_with(engine.labels, name, {}, (engine.stats.*cell).value());
    }
  }
  void counters(std::string_view name, std::string_view help, Counter engine::EngineStats::*cell) {
    head(name, help, "counter");
    for (const EngineView& engine : engines_) {
      sample_with(engine.labels, name, {}, static_cast<double>((engine.stats.*cell).value()));
    }
  }
  void histograms(std::string_view name, std::string_view help,
                  Histogram engine::EngineStats::*cells) {
    head(name, help, "histogram");
    for (const EngineView& engine : engines_) histogram(engine.labels, name, engine.stats.*cells);
  }
  // `write(engine, sample)`, where sample(extra, value) writes a line.
  template <typename Write>
  void each(std::string_view name, std::string_view help, std::string_view type, Write write) {
    head(name, help, type);
    for (const EngineView& engine : engines_) {
      write(engine, [&](std::string_view extra, double value) {
        sample_with(engine.labels, name, extra, value);
      });
    }
  }
  void head(std::string_view name, std::string_view help, std::string_view type) {
    fmt::format_to(std::back_inserter(out_), "# HELP {} {}\n# TYPE {} {}\n", name, help, name,
                   type);
  }

 private:
  void sample_with(std::string_view labels, std::string_view name, std::string_view extra,
                   double value) {
    fmt::format_to(std::back_inserter(out_), "{}{{{}{}{}}} ", name, labels,
                   extra.empty() ? "" : ",", extra);
    append_json_number(out_, value);
    out_ += '\n';
  }
  void histogram(std::string_view labels, std::string_view name, const Histogram& cells) {
    uint64_t total = 0;
    for (size_t i = 0; i < cells.bounds().size(); ++i) {
      total += cells.count(i);
      sample_with(labels, fmt::format("{}_bucket", name),
                  fmt::format("le=\"{}\"", cells.bounds()[i]), static_cast<double>(total));
    }
    total += cells.count(cells.bounds().size());
    sample_with(labels, fmt::format("{}_bucket", name), "le=\"+Inf\"", static_cast<double>(total));
    sample_with(labels, fmt::format("{}_sum", name), {}, cells.sum());
    sample_with(labels, fmt::format("{}_count", name), {}, static_cast<double>(total));
  }

  std::string& out_;
  const std::string labels_;  // of the server
  const std::vector<EngineView> engines_;
};

using Stats = engine::EngineStats;

void append_state(MetricsText& text) {
  text.gauges("vllm:num_requests_running", "Requests in the running batch.",
              &Stats::requests_running);
  text.gauges("vllm:num_requests_waiting", "Requests waiting to be scheduled.",
              &Stats::requests_waiting);
  text.gauges("vllm:kv_cache_usage_perc", "Share of KV blocks held by requests; 1 is all.",
              &Stats::kv_cache_usage);
  text.gauges("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.",
              &Stats::kv_cache_usage);
  text.gauges("puna:host_kv_usage_perc",
              "Share of host memory for KV blocks that paused requests hold; 1 is all.",
              &Stats::host_kv_usage);
  text.gauges("vllm:cpu_cache_usage_perc", "vLLM's name of puna:host_kv_usage_perc.",
              &Stats::host_kv_usage);
  text.gauges("puna:tokens_waiting", "Prompt tokens of requests that have not started.",
              &Stats::tokens_waiting);
  text.gauges("puna:tokens_in_flight", "Positions held by running requests.",
              &Stats::tokens_in_flight);
  text.each("vllm:cache_config_info", "How the KV cache is laid out.", "gauge",
            [](const EngineView& engine, const auto& sample) {
              sample(fmt::format(R"(block_size="{}",num_gpu_blocks="{}",num_cpu_blocks="{}")",
                                 kv::kBlockTokens, engine.limits.num_blocks,
                                 engine.limits.num_host_blocks),
                     1);
            });
}

// The mildest first, as engine::Rung.
constexpr std::array<std::string_view, engine::kNumRungs> kRungNames = {
    "none",         "drop_cached",       "smaller_chunk", "pause_background", "refuse_background",
    "refuse_batch", "refuse_interactive"};

std::string class_label(size_t index) {
  return fmt::format("class=\"{}\"", class_name(static_cast<engine::RequestClass>(index)));
}

void append_classes(MetricsText& text) {
  const auto by_class = [&](std::string_view name, std::string_view help, auto cells) {
    text.each(name, help, "gauge", [&](const EngineView& engine, const auto& sample) {
      for (size_t i = 0; i < engine::kNumClasses; ++i) {
        sample(class_label(i), (engine.stats.*cells)[i].value());
      }
    });
  };
  by_class("puna:class_requests_waiting", "Waiting requests by class.",
           &Stats::class_requests_waiting);
  by_class("puna:class_tokens_waiting", "Prompt tokens of waiting requests by class.",
           &Stats::class_tokens_waiting);
  text.gauges("puna:degrade_rung", "What is given up now under load: 0 nothing, 6 all.",
              &Stats::degrade_rung);
  text.gauges("puna:step_predicted_seconds", "Predicted time of the last predicted step.",
              &Stats::step_time_predicted_s);
  text.gauges("puna:step_measured_seconds", "Measured time of the last predicted step.",
              &Stats::step_time_measured_s);
}

void append_counters(MetricsText& text) {
  text.counters("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
                &Stats::prefix_cache_queries);
  text.counters("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
                &Stats::prefix_cache_hits);
  text.counters("vllm:prompt_tokens_total", "Prompt tokens processed.", &Stats::prompt_tokens);
  text.counters("vllm:generation_tokens_total", "Tokens generated.", &Stats::generation_tokens);
  text.counters("vllm:num_preemptions_total", "Running requests paused to free memory.",
                &Stats::preemptions);
  text.counters("puna:kv_blocks_swapped_out_total", "KV blocks copied to the host for a pause.",
                &Stats::kv_blocks_swapped_out);
  text.counters("puna:kv_blocks_swapped_in_total", "KV blocks copied back after a pause.",
                &Stats::kv_blocks_swapped_in);
  text.each("vllm:request_success_total", "Finished requests by reason.", "counter",
            [](const EngineView& engine, const auto& sample) {
              const auto finished = [&](std::string_view reason, const Counter& cell) {
                sample(fmt::format("finished_reason=\"{}\"", reason),
                       static_cast<double>(cell.value()));
              };
              finished("stop", engine.stats.finished_stop);
              finished("length", engine.stats.finished_length);
              finished("abort", engine.stats.finished_cancelled);
              finished("deadline", engine.stats.finished_deadline);
              finished("error", engine.stats.finished_error);
            });
  text.counters("puna:request_refusals_total", "Requests refused because the queue was full.",
                &Stats::refusals);
  text.each("puna:class_refusals_total", "Requests that the engine refused, by class.", "counter",
            [](const EngineView& engine, const auto& sample) {
              for (size_t i = 0; i < engine::kNumClasses; ++i) {
                sample(class_label(i), static_cast<double>(engine.stats.class_refusals[i].value()));
              }
            });
  text.counters("puna:deadline_expiries_total", "Requests that their deadline ended.",
                &Stats::finished_deadline);
  text.each("puna:degrade_steps_total", "Steps in which a rung of the degrade ladder was used.",
            "counter", [](const EngineView& engine, const auto& sample) {
              for (size_t i = 1; i < engine::kNumRungs; ++i) {
                sample(fmt::format("rung=\"{}\"", kRungNames[i]),
                       static_cast<double>(engine.stats.rung_steps[i].value()));
              }
            });
  text.counters("puna:predicted_steps_total", "Steps whose time was predicted.",
                &Stats::predicted_steps);
  text.counters("puna:steps_total", "Forward passes.", &Stats::steps);
}

void append_histograms(MetricsText& text) {
  text.histograms("vllm:time_to_first_token_seconds", "Submission to first token.",
                  &Stats::time_to_first_token_s);
  text.histograms("puna:ttft_over_quote", "Submission to first token over its quoted p95.",
                  &Stats::ttft_over_quote);
  text.histograms("vllm:inter_token_latency_seconds", "Between two tokens of a request.",
                  &Stats::inter_token_latency_s);
  text.histograms("vllm:time_per_output_token_seconds",
                  "Older name of vllm:inter_token_latency_seconds.", &Stats::inter_token_latency_s);
  text.histograms("vllm:e2e_request_latency_seconds", "Submission to last token.",
                  &Stats::e2e_latency_s);
  text.histograms("vllm:request_queue_time_seconds", "Waiting to be scheduled.",
                  &Stats::queue_time_s);
  text.histograms("vllm:request_prefill_time_seconds", "First schedule to first token.",
                  &Stats::prefill_time_s);
  text.histograms("vllm:request_decode_time_seconds", "First token to last token.",
                  &Stats::decode_time_s);
  text.histograms("vllm:request_prompt_tokens", "Prompt tokens per request.",
                  &Stats::request_prompt_tokens);
  text.histograms("vllm:request_generation_tokens", "Generated tokens per request.",
                  &Stats::request_generation_tokens);
  text.histograms("vllm:iteration_tokens_total", "Tokens per forward pass.",
                  &Stats::iteration_tokens);
  text.histograms("puna:step_prediction_error", "Of step times: |measured / predicted - 1|.",
                  &Stats::step_time_error);
  text.histograms("puna:step_seconds", "Time of a forward pass.", &Stats::step_time_s);
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

void append_routing(MetricsText& text, const ServedModel& model, const ServerStatus& status) {
  if (model.variants.empty()) return;
  size_t variant = 0;
  text.each("puna:routed_requests_total", "Requests taken, by family and the variant they went to.",
            "counter", [&](const EngineView&, const auto& sample) {
              for (size_t i = 0; i < kNumTaskFamilies; ++i) {
                sample(fmt::format("family=\"{}\"", kTaskFamilyNames[i]),
                       static_cast<double>(status.routed[variant][i].value()));
              }
              ++variant;
            });
}

std::vector<EngineView> engine_views(const ServedModel& model, std::string_view model_label) {
  std::vector<EngineView> views;
  for (size_t i = 0; i < model.engines().size(); ++i) {
    const engine::Engine& engine = *model.engines()[i];
    std::string labels = fmt::format("{},engine=\"{}\"", model_label, i);
    if (!model.variants.empty()) {
      labels += fmt::format(",variant=\"{}\"", escape_label(model.variants[i].name));
    }
    views.push_back({engine.stats(), engine.limits(), std::move(labels)});
  }
  return views;
}

}  // namespace

void append_metrics(std::string& out, const ServedModel& model, const ServerStatus& status) {
  const std::string label = fmt::format("model_name=\"{}\"", escape_label(model.names.front()));
  MetricsText text(out, label + ",engine=\"0\"", engine_views(model, label));
  append_state(text);
  append_classes(text);
  append_counters(text);
  append_histograms(text);
  append_server(text, status);
  append_routing(text, model, status);
  if (model.extra_metrics) out += model.extra_metrics(status.host_use());
}

}  // namespace puna::api
