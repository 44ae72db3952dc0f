// SPDX-License-Identifier: Apache-2.0
// What --help prints. Written by hand so that each fits a screen; cli_test checks that, and that
// every flag is in it.
#pragma once

#include <string_view>

namespace puna::cli {

inline constexpr std::string_view kMainHelp =
    R"(puna: serves Llama-family models.

  puna serve MODEL            answer OpenAI clients over HTTP
  puna run MODEL [PROMPT]     one answer, or a chat in the terminal
  puna inspect MODEL          what is in a model file

MODEL is a GGUF file or a Hugging Face folder (config.json and safetensors).
`puna COMMAND --help` lists a command's flags; `puna --version` prints the version.
)";

inline constexpr std::string_view kServeHelp =
    R"(usage: puna serve --model PATH [flags]            answer OpenAI clients over HTTP

  --model PATH               GGUF file or Hugging Face folder (also without --model)
  --served-model-name NAME   the name clients use; repeatable (default: the file's name)
  --chat-template NAME       llama3, llama3.1, llama3.2, llama3.3, chatml (default: the model's own)
  --host ADDR, --port N      where to listen (127.0.0.1, 8080; port 0 picks a free one)
  --admin-port N             metrics and health on a port and thread of their own
  --api-key KEY              clients must send it; repeatable; or PUNA_API_KEY in the environment
  --tls-cert, --tls-key PEM  serve https with this certificate and key
  --max-model-len N          longest prompt + answer, in tokens (default: the model's, or what fits)
  --max-num-seqs N           requests that run at once (32)
  --max-num-batched-tokens N tokens in one step (512)
  --max-queued-requests N    requests that wait; more are told to retry later (256)
  --max-queued-tokens N      prompt tokens that wait (262144)
  --no-prefix-cache          don't keep the work of earlier prompts
  --memory-budget SIZE       all memory: 4GiB, 80% (default: a KV pool of at most a quarter of RAM)
  --threads N                compute threads (default: one per core)
  --device cpu, --isa NAME   where to compute; isa: reference, avx2, avx512 (default: the best)
  --seed N                   for requests that bring no seed (0)
  --drain-timeout S          seconds that running requests get after SIGTERM (30)
  --config FILE.toml         the same names as above without --; flags win over the file
)";

inline constexpr std::string_view kRunHelp =
    R"(usage: puna run MODEL [PROMPT] [flags]            one answer, or a chat in the terminal

Without PROMPT: a chat when stdin is a terminal, else stdin is the prompt.

  --system TEXT            the system message
  --temperature T          0 is greedy (0.7)
  --top-p P                keep the likeliest tokens that add up to P (0.95)
  --seed N                 the same seed gives the same answer (default: another one each time)
  --max-tokens N           longest answer (default: the rest of the context)
  --raw                    no chat template: the model continues the text
  --chat-template NAME     llama3, llama3.1, llama3.2, llama3.3, chatml (default: the model's own)
  --max-model-len N        longest conversation, in tokens (default: the model's, or what fits)
  --memory-budget SIZE     4GiB, 80%
  --threads N              compute threads (default: one per core)
  --device cpu, --isa NAME where to compute; isa: reference, avx2, avx512 (default: the best)

In a chat: /reset forgets it, /exit or Ctrl-D leaves, Ctrl-C stops an answer.
)";

inline constexpr std::string_view kInspectHelp =
    R"(usage: puna inspect MODEL [--tensors] [--json]    what is in a model file

  --tensors   list every tensor
  --json      one JSON object
)";

}  // namespace puna::cli
