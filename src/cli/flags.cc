// SPDX-License-Identifier: Apache-2.0
#include "cli/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <type_traits>
#include <utility>

#include "cli/check_flags.h"
#include "cli/config_file.h"
#include "cli/flag_kinds.h"
#include "cli/help.h"
#include "cli/keys_file.h"
#include "cli/load_flags.h"
#include "cli/version.h"
#include "formats/known_specs.h"
#include "plan/known_devices.h"

namespace puna::cli {
namespace {

constexpr double kMostTargetMs = 86'400'000;  // a day, as the class tables allow

// Random weights are made on the device, so that no file is needed to measure speed.
void add_random_weights(CLI::App& app, ModelFlags& flags) {
  app.add_option("--random-weights", flags.random_weights);
  app.add_option("--tokenizer", flags.tokenizer);
}

Result<> check_source(const ModelFlags& flags) {
  RETURN_IF_ERROR(check_gpu_flags(flags));
  if (flags.random_weights.empty()) {
    if (flags.model.empty()) {
      return Error(ErrorCode::kInvalidArgument,
                   "--model is missing: name a GGUF file or a Hugging Face folder");
    }
    if (flags.tokenizer.empty()) return Ok{};
    return Error(ErrorCode::kInvalidArgument,
                 "--tokenizer goes with --random-weights: a model brings its own");
  }
  if (!flags.model.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "--random-weights {} and the model {} exclude each other", flags.random_weights,
                 flags.model);
  }
  if (cuda_ordinal(flags.device)) return Ok{};
  return Error(ErrorCode::kInvalidArgument, "--random-weights needs --device cuda");
}

void add_model_flags(CLI::App& app, ModelFlags& flags) {
  app.add_option("--chat-template", flags.chat_template)
      ->check(CLI::IsMember({"llama3", "llama3.1", "llama3.2", "llama3.3", "chatml"}));
  add_device(app, flags);
  add_compute_flags(app, flags);
  app.add_option("--memory-budget", flags.memory_budget);
  add_number<int32_t>(app, "--max-model-len", flags.max_model_len, 1, kMaxContext);
  add_random_weights(app, flags);
}

void add_serve_flags(CLI::App& app, ServeFlags& flags, std::string& config,
                     double& tpot_target_ms) {
  app.add_option("--model,model", flags.model.model);
  add_model_flags(app, flags.model);
  app.add_option("--host-kv-memory", flags.model.host_kv_memory);
  app.add_option("--served-model-name", flags.served_model_names);
  app.add_option("--host", flags.host);
  add_number<int32_t>(app, "--port", flags.port, 0, 65535);
  add_number<int32_t>(app, "--admin-port", flags.admin_port, 0, 65535);
  app.add_option("--api-key", flags.api_keys)->envname("PUNA_API_KEY");
  app.add_option("--api-keys-file", flags.api_keys_file);
  app.add_option("--tls-cert", flags.tls_cert);
  app.add_option("--tls-key", flags.tls_key);
  add_number<int32_t>(app, "--max-num-seqs", flags.max_num_seqs, 1, kMaxSequences);
  add_number<int32_t>(app, "--max-num-batched-tokens", flags.max_num_batched_tokens, 1, 65536);
  add_number<int32_t>(app, "--max-queued-requests", flags.max_queued_requests, 0, 1 << 20);
  add_number<int64_t>(app, "--max-queued-tokens", flags.max_queued_tokens, 0, int64_t{1} << 32);
  // Written over the classes of --config, which come later: see command().
  add_number<double>(app, "--tpot-target", tpot_target_ms, 0.0, kMostTargetMs);
  app.add_flag("--no-chunk-sizing", flags.no_chunk_sizing);
  app.add_flag("--no-prefix-cache", flags.no_prefix_cache);
  add_number<uint64_t>(app, "--seed", flags.seed, 0, UINT64_MAX);
  add_number<int32_t>(app, "--drain-timeout", flags.drain_timeout_s, 0, 86400);
  app.add_option("--config", config);
  // A list flag takes one value each time, so that a positional MODEL may follow it.
  app.get_option("--served-model-name")->allow_extra_args(false);
  app.get_option("--api-key")->allow_extra_args(false);
}

void add_run_flags(CLI::App& app, RunFlags& flags) {
  app.add_option("model", flags.model.model);
  app.add_option("prompt", flags.prompt);
  add_model_flags(app, flags.model);
  app.add_option("--system", flags.system);
  add_number<float>(app, "--temperature", flags.temperature, 0.0F, 100.0F);
  add_number<float>(app, "--top-p", flags.top_p, 1e-6F, 1.0F);
  add_number<uint64_t>(app, "--seed", flags.seed, 0, UINT64_MAX);
  add_number<int32_t>(app, "--max-tokens", flags.max_tokens, 1, kMaxContext);
  app.add_flag("--raw", flags.raw);
}

void add_plan_flags(CLI::App& app, PlanFlags& flags) {
  CLI::Option* model = app.add_option("--model,model", flags.model.model);
  app.add_option("--shape", flags.shape)->excludes(model);
  app.add_option("--weights", flags.weights);
  app.add_option("--device", flags.model.device);
  add_compute_flags(app, flags.model);
  app.add_option("--memory-budget", flags.model.memory_budget);
  add_number<int32_t>(app, "--max-model-len", flags.model.max_model_len, 1, kMaxContext);
  add_number<int32_t>(app, "--max-num-seqs", flags.max_num_seqs, 1, kMaxSequences);
  add_number<int32_t>(app, "--max-num-batched-tokens", flags.max_num_batched_tokens, 1, 65536);
  app.add_flag("--json", flags.json);
}

void add_inspect_flags(CLI::App& app, InspectFlags& flags) {
  app.add_option("model", flags.model)->required();
  app.add_flag("--tensors", flags.tensors);
  app.add_flag("--json", flags.json);
}

void add_quantize_flags(CLI::App& app, QuantizeFlags& flags) {
  app.add_option("input", flags.input)->required();
  app.add_option("output", flags.output)->required();
  app.add_option("--type", flags.type)->required();
  CLI::Option* imatrix = app.add_option("--imatrix", flags.imatrix);
  CLI::Option* text = app.add_option("--calibration", flags.calibration)->excludes(imatrix);
  CLI::Option* out = app.add_option("--imatrix-out", flags.imatrix_out)->needs(text);
  CLI::Option* gptq = app.add_flag("--gptq", flags.gptq)->needs(text)->excludes(out);
  app.add_flag("--awq", flags.awq)->needs(text)->excludes(out)->excludes(gptq);
  add_number<int32_t>(app, "--threads", flags.threads, 0, 1024);
  app.add_flag("--json", flags.json);
}

void add_bench_engine_flags(CLI::App& app, BenchEngineFlags& flags) {
  app.add_option("--model,model", flags.model.model);
  add_random_weights(app, flags.model);
  add_number<int32_t>(app, "--prompt", flags.prompt, 1, kMaxContext);
  add_number<int32_t>(app, "--output", flags.output, 1, kMaxContext);
  app.add_option("--batch", flags.batch)->delimiter(',')->check(in_range(1, kMaxSequences));
  add_number<int32_t>(app, "--chunk", flags.chunk, 1, kMaxContext);
  add_device(app, flags.model);
  add_compute_flags(app, flags.model);
  app.add_option("--memory-budget", flags.model.memory_budget);
  app.add_flag("--json", flags.json);
}

void add_bench_kernels_flags(CLI::App& app, BenchKernelsFlags& flags) {
  app.add_option("--filter", flags.filter);
  app.add_option("--device", flags.model.device)->check(CLI::IsMember({"cpu"}));
  add_compute_flags(app, flags.model);
  app.add_flag("--json", flags.json);
}

void add_route_flags(CLI::App& app, RouteFlags& flags, std::string& config) {
  app.add_option("--request", flags.request)->required();
  app.add_option("--config", config)->required();
  app.add_option("--task", flags.task);
  app.add_flag("--json", flags.json);
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// Settings of the file for flags that the command line and the environment left out.
Result<> apply_config(CLI::App& app, const std::string& path, ServeFlags& flags) {
  ASSIGN_OR_RETURN(const ConfigFile file, read_config_file(path));
  flags.classes = file.classes;
  flags.variants = file.model;
  for (const Setting& setting : file.settings) {
    CLI::Option* option = app.get_option_no_throw("--" + setting.name);
    if (option == nullptr || setting.name == "config" || setting.name == "help") {
      return Error(ErrorCode::kInvalidArgument,
                   "--config {}:{}: there is no setting \"{}\" (puna serve --help lists them)",
                   path, setting.line, setting.name);
    }
    if (setting.values.size() > 1 && option->get_items_expected_max() <= 1) {
      return Error(ErrorCode::kInvalidArgument, "--config {}:{}: --{} takes one value, not a list",
                   path, setting.line, setting.name);
    }
    if (option->count() > 0 || setting.values.empty()) continue;
    try {
      for (const std::string& value : setting.values) option->add_result(value);
      option->run_callback();
    } catch (const CLI::Error& error) {
      return Error(ErrorCode::kInvalidArgument, "--config {}:{}: {}", path, setting.line,
                   one_line(error.what()));
    }
  }
  return Ok{};
}

// 0 is a number that the plan chooses.
Result<> check_step(int32_t max_num_seqs, int32_t max_num_batched_tokens) {
  if (max_num_batched_tokens == 0 || max_num_batched_tokens >= max_num_seqs) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "--max-num-batched-tokens {} is less than --max-num-seqs {}: each running request "
               "takes a token of every step",
               max_num_batched_tokens, max_num_seqs);
}

Result<> check_plan(const PlanFlags& flags) {
  if (flags.model.model.empty() && flags.shape.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "--model (a GGUF file or a Hugging Face folder) or --shape ({}) is missing",
                 formats::known_spec_names());
  }
  if (!flags.shape.empty()) {
    auto spec = formats::known_spec(flags.shape);
    if (!spec.ok()) return std::move(spec).error().with_context("--shape");
  }
  if (flags.model.device != "cpu" && plan::find_device(flags.model.device) == nullptr) {
    return Error(ErrorCode::kInvalidArgument, "--device {}: there are cpu, {}", flags.model.device,
                 plan::device_names());
  }
  if (!flags.weights.empty() && flags.shape.empty()) {
    return Error(ErrorCode::kInvalidArgument, "--weights goes with --shape: a file has its own");
  }
  return check_step(flags.max_num_seqs, flags.max_num_batched_tokens);
}

// [[model]] of --config says what others say by flags.
Result<> check_variants(const ServeFlags& flags) {
  const auto exclude = [](std::string_view flag) {
    return Error(ErrorCode::kInvalidArgument,
                 "{} and [[model]] of --config exclude each other: its variants have a path and "
                 "its name is served",
                 flag);
  };
  if (!flags.model.model.empty()) return exclude("--model");
  if (!flags.model.random_weights.empty()) return exclude("--random-weights");
  if (!flags.model.tokenizer.empty()) return exclude("--tokenizer");
  if (!flags.served_model_names.empty()) return exclude("--served-model-name");
  if (!cuda_ordinal(flags.model.device)) return check_gpu_flags(flags.model);
  return Error(ErrorCode::kUnsupported,
               "--device {}: several variants of a model are served on the CPU only",
               flags.model.device);
}

// What a range per flag can't say.
Result<> check_serve(const ServeFlags& flags) {
  RETURN_IF_ERROR(flags.variants ? check_variants(flags) : check_source(flags.model));
  if (flags.tls_cert.empty() != flags.tls_key.empty()) {
    return Error(ErrorCode::kInvalidArgument, "{} also needs {}",
                 flags.tls_cert.empty() ? "--tls-key" : "--tls-cert",
                 flags.tls_cert.empty() ? "--tls-cert" : "--tls-key");
  }
  RETURN_IF_ERROR(check_step(flags.max_num_seqs, flags.max_num_batched_tokens));
  const auto empty = [](const std::string& text) { return text.empty(); };
  if (std::any_of(flags.api_keys.begin(), flags.api_keys.end(), empty)) {
    return Error(ErrorCode::kInvalidArgument, "--api-key (or PUNA_API_KEY) is empty");
  }
  if (std::any_of(flags.served_model_names.begin(), flags.served_model_names.end(), empty)) {
    return Error(ErrorCode::kInvalidArgument, "--served-model-name is empty");
  }
  return Ok{};
}

// The keys of --api-key, then those of the file.
Result<> collect_keys(ServeFlags& flags) {
  for (const std::string& key : flags.api_keys) flags.key_policies.push_back({.key = key});
  if (flags.api_keys_file.empty()) return Ok{};
  ASSIGN_OR_RETURN(std::vector<api::KeyPolicy> keys, read_keys_file(flags.api_keys_file));
  std::move(keys.begin(), keys.end(), std::back_inserter(flags.key_policies));
  return Ok{};
}

// The parser with its targets; CLI11 keeps pointers into them.
struct Parser {
  CLI::App app;
  ServeFlags serve;
  RunFlags run;
  PlanFlags plan;
  InspectFlags inspect;
  QuantizeFlags quantize;
  BenchEngineFlags bench_engine;
  BenchKernelsFlags bench_kernels;
  BenchServeFlags bench_serve;
  SelftestFlags selftest;
  RouteFlags route;
  CheckFlags check;
  DivergenceFlags divergence;
  std::string config;
  double tpot_target_ms = 0;
  CLI::App* serve_app = app.add_subcommand("serve");
  CLI::App* run_app = app.add_subcommand("run");
  CLI::App* plan_app = app.add_subcommand("plan");
  CLI::App* inspect_app = app.add_subcommand("inspect");
  CLI::App* quantize_app = app.add_subcommand("quantize");
  CLI::App* bench_app = app.add_subcommand("bench");
  CLI::App* engine_app = bench_app->add_subcommand("engine");
  CLI::App* kernels_app = bench_app->add_subcommand("kernels");
  CLI::App* load_app = bench_app->add_subcommand("serve");
  CLI::App* selftest_app = app.add_subcommand("selftest");
  CLI::App* route_app = app.add_subcommand("route");
  CLI::App* explain_app = route_app->add_subcommand("explain");
  CLI::App* check_app = app.add_subcommand("check");
  CLI::App* divergence_app = app.add_subcommand("divergence");

  Parser() {
    app.set_version_flag("--version", std::string(kVersion));
    app.require_subcommand(1);
    add_serve_flags(*serve_app, serve, config, tpot_target_ms);
    add_run_flags(*run_app, run);
    add_plan_flags(*plan_app, plan);
    add_inspect_flags(*inspect_app, inspect);
    add_quantize_flags(*quantize_app, quantize);
    bench_app->require_subcommand(1);
    add_bench_engine_flags(*engine_app, bench_engine);
    add_bench_kernels_flags(*kernels_app, bench_kernels);
    add_bench_serve_flags(*load_app, bench_serve);
    add_selftest_flags(*selftest_app, selftest);
    route_app->require_subcommand(1);
    add_route_flags(*explain_app, route, config);
    add_check_flags(*check_app, check);
    add_divergence_flags(*divergence_app, divergence);
    // A flag given again wins, so that scripts can append to a command line. Lists add up.
    for (CLI::App* sub_command : {serve_app, run_app, plan_app, quantize_app, engine_app,
                                  kernels_app, load_app, check_app, divergence_app}) {
      for (CLI::Option* option : sub_command->get_options()) {
        if (option->get_items_expected_max() == 1) {
          option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
        }
      }
    }
  }

  std::string_view help() const {
    if (serve_app->parsed()) return kServeHelp;
    if (run_app->parsed()) return kRunHelp;
    if (plan_app->parsed()) return kPlanHelp;
    if (engine_app->parsed()) return kBenchEngineHelp;
    if (kernels_app->parsed()) return kBenchKernelsHelp;
    if (load_app->parsed()) return kBenchServeHelp;
    if (bench_app->parsed()) return kBenchHelp;
    if (selftest_app->parsed()) return kSelftestHelp;
    if (route_app->parsed()) return kRouteHelp;
    if (check_app->parsed()) return kCheckHelp;
    if (divergence_app->parsed()) return kDivergenceHelp;
    if (quantize_app->parsed()) return kQuantizeHelp;
    return inspect_app->parsed() ? kInspectHelp : kMainHelp;
  }

  // The file says what `serve` would do.
  Result<Command> route_command() {
    RETURN_IF_ERROR(apply_config(*serve_app, config, serve));
    if (!serve.variants) {
      return Error(ErrorCode::kInvalidArgument,
                   "--config {}: there is no [[model]]: a model with one variant is routed nowhere",
                   config);
    }
    RETURN_IF_ERROR(check_serve(serve));
    route.model = serve.model;
    route.variants = *serve.variants;
    return Command(std::move(route));
  }

  Result<Command> command() {
    if (serve_app->parsed()) {
      if (!config.empty()) RETURN_IF_ERROR(apply_config(*serve_app, config, serve));
      if (serve_app->get_option("--tpot-target")->count() > 0) {
        serve.classes[0].tpot_target_ns =
            static_cast<TimeNs>(tpot_target_ms * static_cast<double>(kNsPerMs));
      }
      RETURN_IF_ERROR(check_isa(serve.model));
      RETURN_IF_ERROR(check_serve(serve));
      RETURN_IF_ERROR(collect_keys(serve));
      return Command(std::move(serve));
    }
    if (run_app->parsed()) {
      run.prompt_given = run_app->get_option("prompt")->count() > 0;
      run.seed_given = run_app->get_option("--seed")->count() > 0;
      RETURN_IF_ERROR(check_isa(run.model));
      if (!run.model.random_weights.empty() && !run.prompt_given) {
        run.prompt_given = !run.model.model.empty();  // there is no MODEL before it
        run.prompt = std::exchange(run.model.model, {});
      }
      RETURN_IF_ERROR(check_source(run.model));
      return Command(std::move(run));
    }
    if (plan_app->parsed()) {
      RETURN_IF_ERROR(check_isa(plan.model));
      RETURN_IF_ERROR(check_plan(plan));
      return Command(std::move(plan));
    }
    if (engine_app->parsed()) {
      RETURN_IF_ERROR(check_isa(bench_engine.model));
      RETURN_IF_ERROR(check_source(bench_engine.model));
      return Command(std::move(bench_engine));
    }
    if (kernels_app->parsed()) {
      RETURN_IF_ERROR(check_isa(bench_kernels.model));
      return Command(std::move(bench_kernels));
    }
    if (load_app->parsed()) return Command(std::move(bench_serve));
    if (explain_app->parsed()) return route_command();
    if (check_app->parsed()) {
      RETURN_IF_ERROR(finish_check(check));
      return Command(std::move(check));
    }
    if (divergence_app->parsed()) {
      RETURN_IF_ERROR(finish_divergence(divergence));
      return Command(std::move(divergence));
    }
    if (selftest_app->parsed()) {
      if (selftest.url.empty() && selftest.model.empty()) {
        return Error(ErrorCode::kInvalidArgument,
                     "--url of a running server or --model for one of our own is missing");
      }
      return Command(std::move(selftest));
    }
    if (quantize_app->parsed()) return Command(std::move(quantize));
    return Command(std::move(inspect));
  }
};

}  // namespace

Result<Command> parse_command(int argc, const char* const* argv) {
  if (argc < 2) return Command(Text{std::string(kMainHelp)});
  Parser parser;
  try {
    parser.app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Command(Text{std::string(parser.help())});
  } catch (const CLI::CallForVersion&) {
    return Command(Text{"puna " + std::string(kVersion) + "\n"});
  } catch (const CLI::ParseError& error) {
    return Error(ErrorCode::kInvalidArgument, "{} (see --help)", one_line(error.what()));
  }
  return parser.command();
}

std::vector<std::string> flag_names(const std::string& sub_command) {
  const Parser parser;
  const CLI::App* app = &parser.app;
  for (const std::string& word : CLI::detail::split(sub_command, ' ')) {
    app = app->get_subcommand(word);
  }
  std::vector<std::string> names;
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (name != "help") names.push_back("--" + name);
    }
  }
  return names;
}

}  // namespace puna::cli
