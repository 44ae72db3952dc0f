// SPDX-License-Identifier: Apache-2.0
// The command line as values. Flag names are vLLM's where the meaning is the same.
//
//   Result<Command> command = parse_command(argc, argv);   // errors are one line for stderr
//   std::visit(run_it, *command);
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/api_keys.h"
#include "base/result.h"
#include "cli/config_file.h"
#include "kernels/cpu/cpu_options.h"
#include "kernels/ops.h"

namespace puna::cli {

// How a model is loaded, whatever is done with it.
struct ModelFlags {
  std::string model;           // a GGUF file or a Hugging Face folder
  std::string random_weights;  // instead: a name for formats::known_spec()
  std::string tokenizer;       // for random weights; empty: a stand-in
  std::string chat_template;   // empty: the model's own
  std::string device = "cpu";  // or "cuda", "cuda:N"
  int32_t threads = 0;         // 0: one per core
  std::string isa;             // empty: the best of this CPU
  kernels::ActivationMode activations = kernels::ActivationMode::kInt8;
  std::optional<kernels::KvType> kv_dtype;  // "auto" is none: as the activations, see kv_type()
  std::string memory_budget;                // "4GiB", "80%"; empty: what is available
  std::string host_kv_memory;               // of a GPU's paused requests, "0": none; plan/host_kv.h
  std::string tuning_cache;                 // a GPU's; empty: in the user's cache; "none": nowhere
  int32_t max_model_len = 0;                // 0: the model's, or what fits

  kernels::KvType kv_type() const {
    const bool exact = activations == kernels::ActivationMode::kFloat;
    return kv_dtype.value_or(exact ? kernels::KvType::kF32 : kernels::KvType::kBF16);
  }
};

// The GPU of a device "cuda" (0) or "cuda:N"; nothing for any other text.
std::optional<int32_t> cuda_ordinal(std::string_view device);

struct ServeFlags {
  ModelFlags model;
  std::vector<std::string> served_model_names;  // empty: from the model's path
  std::string host = "127.0.0.1";
  int32_t port = 8080;
  int32_t admin_port = -1;  // -1: none
  std::vector<std::string> api_keys;
  std::string api_keys_file;
  std::vector<api::KeyPolicy> key_policies;  // of both
  ClassPolicies classes = engine::EngineConfig{}.classes;
  std::optional<ModelConfig> variants;  // of --config: instead of a model
  std::string tls_cert;
  std::string tls_key;
  int32_t max_num_seqs = 0;            // 0: the plan's choice (plan/memory_model.h)
  int32_t max_num_batched_tokens = 0;  // 0: the same
  int32_t max_queued_requests = 256;
  int64_t max_queued_tokens = 1 << 18;
  bool no_prefix_cache = false;
  bool no_chunk_sizing = false;
  uint64_t seed = 0;
  int32_t drain_timeout_s = 30;
};

struct RunFlags {
  ModelFlags model;
  std::string prompt;  // empty: from stdin, or a conversation
  bool prompt_given = false;
  std::string system;
  float temperature = 0.7F;
  float top_p = 0.95F;
  uint64_t seed = 0;
  bool seed_given = false;  // else another one each time
  int32_t max_tokens = 0;   // 0: up to the end of the context
  bool raw = false;         // no chat template: the model continues the text
};

// `puna plan`: what a model takes and how far a machine goes, with or without either.
struct PlanFlags {
  ModelFlags model;     // its `device`: cpu or a GPU's name (plan/known_devices.h)
  std::string shape;    // instead of a model: a name for formats::known_spec()
  std::string weights;  // with a shape: the type of its matrices; empty: BF16
  int32_t max_num_seqs = 0;
  int32_t max_num_batched_tokens = 0;
  bool json = false;
};

struct InspectFlags {
  std::string model;
  bool tensors = false;
  bool json = false;
};

// `puna quantize`: a model in fewer bits.
struct QuantizeFlags {
  std::string input;   // a GGUF file or a Hugging Face folder
  std::string output;  // a GGUF file, or a folder
  std::string type;    // a name for quant::find_mix() or find_folder_scheme()
  std::string imatrix;
  std::string calibration;  // a text file, or "default"
  std::string imatrix_out;
  bool gptq = false;    // W4A16 by GPTQ
  bool awq = false;     // W4A16 by AWQ
  int32_t threads = 0;  // 0: one per core
  bool json = false;
};

// `puna bench engine`: how fast a model runs here.
struct BenchEngineFlags {
  ModelFlags model;
  int32_t prompt = 512;                     // tokens of each sequence's prompt
  int32_t output = 64;                      // decode steps after it
  std::vector<int32_t> batch = {1, 8, 32};  // sequences that decode together
  int32_t chunk = 0;                        // most tokens of a prompt in a step; 0: as serve does
  bool json = false;
};

// `puna bench kernels`: every op x weight type x rows beside the machine's limit.
struct BenchKernelsFlags {
  ModelFlags model;    // of it: what says how to compute
  std::string filter;  // extended regular expression on "op/type/rows"
  bool json = false;
};

// `puna bench serve`: load on any OpenAI-compatible server. What the texts mean: load/.
struct BenchServeFlags {
  std::string url = "http://127.0.0.1:8080";
  std::string api_key;
  std::string model;  // empty: the first that the server names
  std::string endpoint = "chat";
  double rate = 1;
  bool sweep = false;  // `rate` is where the search for the capacity begins
  std::string bursts;
  std::string trace;
  double duration_s = 0;  // 0: by requests
  int64_t requests = 0;   // 0: by duration
  std::string prompt_tokens = "256";
  std::string output_tokens = "64";
  int32_t prompt_id_limit = 0;  // 0: prompts are words
  std::vector<std::string> tenants;
  std::string tenants_file;
  std::vector<std::string> classes;
  int32_t turns = 1;
  int32_t shared_prefix = 0;
  std::optional<double> slo_ttft_ms;
  std::optional<double> slo_tpot_ms;
  std::optional<double> slo_e2e_ms;
  bool honour_retry_after = false;
  bool stop_at_eos = false;
  double timeout_s = 600;
  uint64_t seed = 0;
  std::string json;  // a file; "-" is stdout
  std::string html;  // a file
};

// `puna selftest --chaos`: does a server keep its promises among bad clients?
struct SelftestFlags {
  double chaos_s = 0;
  std::string url;    // a running server, or
  std::string model;  // one of our own
  std::vector<std::string> serve_flags;
  std::string api_key;
  int32_t pid = 0;  // of a server at `url` that may be paused
  double rate = 2;
  uint64_t seed = 0;
};

// `puna route explain`: where a request would go.
struct RouteFlags {
  ModelFlags model;  // of --config: what counts for every variant
  ModelConfig variants;
  std::string request;  // a file with the body of a call
  std::string task;     // as the header x-puna-task
  bool json = false;
};

// Two forms of one model, compared.
struct PairFlags {
  ModelFlags model;  // the base; its kv_dtype is the variant's
  std::string variant;
  std::optional<kernels::KvType> base_kv_dtype;

  ModelFlags of_base() const;
  ModelFlags of_variant() const;
};

// `puna check`: is the variant as good, task by task?
inline constexpr int32_t kMaxItems = 1 << 17;  // of a family
struct CheckFlags {
  PairFlags pair;
  std::vector<std::string> families;  // empty: all that have right answers
  std::string gsm8k;                  // a user's items
  std::string human_eval;
  double delta = 3;   // points
  int32_t items = 0;  // of each family; 0: as planned_items() has it
  int32_t difficulty = 1;
  uint64_t seed = 0;
  bool no_early_end = false;
  bool no_screen = false;
  double screen_kld = 0.10;
  double screen_same_top = 85;  // per cent
  int32_t control_items = 60;
  int32_t batch = 32;
  std::string report;  // a folder
  std::string verify;  // a certificate to look at, instead of a check
  std::string key;     // empty: SigningKey::default_path()
  bool json = false;
};

// `puna divergence`: how far apart the two models' predictions of a text are.
struct DivergenceFlags {
  PairFlags pair;
  std::string text;  // a file
  int32_t context = 512;
  int32_t chunks = 0;  // 0: all
  bool json = false;
};

// Something to print on stdout, and then the end: --help, --version.
struct Text {
  std::string text;
};

using Command = std::variant<Text, ServeFlags, RunFlags, PlanFlags, InspectFlags, QuantizeFlags,
                             BenchEngineFlags, BenchKernelsFlags, BenchServeFlags, SelftestFlags,
                             CheckFlags, DivergenceFlags, RouteFlags>;

Result<Command> parse_command(int argc, const char* const* argv);

// The names ("--port") of the flags of a sub-command ("serve", "bench engine"), --help left out;
// for the test of the help texts.
std::vector<std::string> flag_names(const std::string& sub_command);

}  // namespace puna::cli
