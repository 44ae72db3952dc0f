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
  puna quantize IN OUT        a model in fewer bits: GGUF or compressed-tensors
  puna plan MODEL             what memory it takes, and how far a machine goes with it
  puna bench engine MODEL     how fast it runs here, beside what the machine can do
  puna bench kernels          the same for every operation, weight type and number of rows
  puna bench serve --url URL  load on a server: latencies, goodput, refusals
  puna check BASE VARIANT     is the variant as good, task by task? (also as quantize_check)
  puna divergence BASE VARIANT   how far apart their predictions of a text are
  puna selftest --chaos 60    does a server keep its promises among bad clients?
  puna route explain          which variant of a model a request would go to, and why

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
  --api-key KEY              clients must send it; repeatable; or PUNA_API_KEY; or a file of keys
                             with classes and limits: --api-keys-file FILE.toml
  --tls-cert, --tls-key PEM  serve https with this certificate and key
  --max-model-len N          longest prompt + answer, in tokens (default: the model's, or what fits)
  --max-num-seqs N           requests that run at once (default: 32, on a GPU 256, or what fits)
  --max-num-batched-tokens N tokens in one step (default: 512, on a GPU 2048, or what fits)
  --max-queued-requests N, --max-queued-tokens N   more are told to retry later (256, 262144)
  --tpot-target MS           long prompts leave interactive streams this time per token (50; 0: any)
  --no-chunk-sizing, --no-prefix-cache   prompts in whole chunks; earlier prompts' work isn't kept
  --memory-budget SIZE       all memory: 4GiB, 80% (default: a KV pool of at most a quarter of RAM)
  --threads N, --isa NAME    one per core; PUNA_CPU or the best of scalar, avx2, avx512, avx512_bf16
  --activations, --kv-dtype  int8 or float (int8); auto, bf16, int8 or f32 (auto: bf16 with int8)
  --device cuda[:N]          on a GPU, in f16 (cpu); --memory-budget is of the host then, and of it
  --host-kv-memory SIZE, --tuning-cache FOLDER   of a GPU (4GiB, 0: none; ~/.cache/puna/cuda, none)
  --random-weights SHAPE     no MODEL: made on the GPU: llama-3-8b, ...; --tokenizer PATH (stand-in)
  --seed N, --drain-timeout S   of requests without a seed (0); time to finish on SIGTERM (30)
  --config FILE.toml         the same names without --; flags win. [[model]]: variants, by task
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
  --activations TYPE       int8, int8-wide (faster, less exact), float (slow, the reference)
  --kv-dtype TYPE          auto, bf16, int8, f32 (auto: bf16, or f32 with --activations float)
  --isa NAME               scalar, avx2, avx512, avx512_bf16 (default: PUNA_CPU or the best)
  --device cuda[:N]        on a GPU, in f16 (cpu)
  --tuning-cache FOLDER    a GPU's: what its products were tuned to (~/.cache/puna/cuda; none)
  --random-weights SHAPE   no MODEL: made on the GPU: llama-3-8b, ...; --tokenizer PATH (stand-in)

In a chat: /reset forgets it, /exit or Ctrl-D leaves, Ctrl-C stops an answer.
)";

inline constexpr std::string_view kInspectHelp =
    R"(usage: puna inspect MODEL [--tensors] [--json]    what is in a model file

  --tensors   list every tensor
  --json      one JSON object
)";

inline constexpr std::string_view kQuantizeHelp =
    R"(usage: puna quantize IN OUT --type TYPE [flags]    a model in fewer bits

IN is a GGUF file or a Hugging Face folder in any type; weights of 16 or 32 bits give the best.
OUT appears when it is complete; on an error or Ctrl-C nothing is left.

  --type TYPE          Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K,
                       Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL, BF16, F16, F32: OUT is a GGUF file
                       W4A16, W8A8, FP8_DYNAMIC: from a folder, OUT is a compressed-tensors folder
  --imatrix FILE       importance of each input column, a file of llama-imatrix (.gguf or .dat)
  --calibration FILE   measure it instead, on this text: plain, or lines {"messages": [...]} that go
                       through the chat template; `default` is a small mixture that comes with puna
  --imatrix-out FILE   keep what --calibration measured
  --gptq, --awq        W4A16 by GPTQ or AWQ with --calibration: better, and slow for large models
  --threads N          one per core
  --json               what became of each tensor, and what it lost
)";

inline constexpr std::string_view kPlanHelp =
    R"(usage: puna plan --model PATH [flags]             what memory a server would take
       puna plan --shape NAME --device NAME [flags]

Prints the plan that `puna serve` makes of the same flags, how many requests of that context and
what context for that many requests would fit, and an estimate of the speed.

  --model PATH               GGUF file or Hugging Face folder (also without --model)
  --shape NAME               instead: llama-3-8b, llama-3.2-1b, ... (a wrong name lists them all)
  --weights TYPE             of a shape: BF16 (default), Q8_0, Q4_K, ...; a GPU holds 16 bits anyway
  --device NAME              cpu (this machine), h100-80g, a100-40g, rtx-4090, ... (as --shape)
  --max-model-len N          longest prompt + answer, in tokens (default: the model's, or what fits)
  --max-num-seqs N           requests that run at once (default: 32, on a GPU 256, or what fits)
  --max-num-batched-tokens N tokens in one step (default: 512, on a GPU 2048, or what fits)
  --memory-budget SIZE       4GiB, or 80% of the machine or device
  --activations, --kv-dtype  as for serve
  --threads N, --isa NAME    as for serve
  --json                     one JSON object
)";

inline constexpr std::string_view kBenchHelp =
    R"(usage: puna bench engine MODEL [flags]            how fast a model runs here
       puna bench kernels [flags]                 every operation beside the machine's limit
       puna bench serve --url URL [flags]         load on any OpenAI-compatible server

`puna bench engine --help` and so on list the flags.
)";

inline constexpr std::string_view kBenchEngineHelp =
    R"(usage: puna bench engine --model PATH [flags]     how fast a model runs here

Computes prompts, then decodes, in the steps that `puna serve` makes; no HTTP. Beside it: what the
machine reads from memory and computes at most, measured before and after.

  --model PATH             GGUF file or Hugging Face folder (also without --model)
  --prompt N               tokens of each prompt (512)
  --output N               decode steps (64)
  --batch N,N,...          sequences that decode together, a run for each (1,8,32)
  --chunk N                most tokens of a prompt in a step (default: as serve does)
  --memory-budget SIZE     4GiB, 80%
  --threads N              compute threads (default: one per core)
  --activations TYPE       int8, int8-wide (faster, less exact), float (slow, the reference)
  --kv-dtype TYPE          auto, bf16, int8, f32 (auto: bf16, or f32 with --activations float)
  --isa NAME               scalar, avx2, avx512, avx512_bf16 (default: PUNA_CPU or the best)
  --device cuda[:N]        on a GPU, beside what it reads from its memory at most
  --tuning-cache FOLDER    a GPU's: what its products were tuned to (~/.cache/puna/cuda; none)
  --random-weights SHAPE   no MODEL: weights made on the GPU (llama-3-8b, ...; no --tokenizer)
  --json                   one JSON object
)";

inline constexpr std::string_view kBenchKernelsHelp =
    R"(usage: puna bench kernels [flags]                 every operation beside the machine's limit

  --filter REGEX           of OP/TYPE/ROWS, as in 'matmul/Q4_K/(1|8)$' (default: all)
  --threads N              compute threads (default: one per core)
  --activations TYPE       int8, int8-wide (faster, less exact), float (slow, the reference)
  --kv-dtype TYPE          bf16, int8, f32: attention over these alone (default: auto, all)
  --device cpu, --isa NAME scalar, avx2, avx512, avx512_bf16 (default: PUNA_CPU or the best)
  --json                   one JSON object
)";

inline constexpr std::string_view kBenchServeHelp =
    R"(usage: puna bench serve --url URL [flags]         load on any OpenAI-compatible server

Requests go out when their schedule says, whether or not earlier ones were answered.

  --url URL                http://HOST:PORT (http://127.0.0.1:8080)
  --api-key KEY, --model M what to send (default: no key, the first model of /v1/models)
  --endpoint NAME          chat or completions (chat); --prompt-ids V sends token ids below V
  --rate R                 requests a second, Poisson (1); or --bursts N:S, N at once every S s
  --trace FILE.jsonl       instead: {"at_s": .., "prompt_tokens": .., "output_tokens": ..} a line
  --duration S             how long to send (30), or --requests N
  --prompt-tokens DIST     N, uniform:A:B, lognormal:MEDIAN:SIGMA, geometric:MEAN (256)
  --output-tokens DIST     the same (64); --stop-at-eos lets answers end before
  --tenant NAME=KEY:WEIGHT who sends; repeatable; or --tenants FILE with one a line
  --classes NAME:WEIGHT,.. sent as x-puna-class
  --multi-turn N           conversations of N requests, each with all that was said before
  --shared-prefix T        all prompts begin with the same T tokens
  --slo-ttft-ms, --slo-tpot-ms, --slo-e2e-ms X     goodput: answers that keep these, since due
  --sweep                  many runs, from --rate on: the highest rate at which 99 % are good
  --honour-retry-after     refused clients come back when they were told to
  --timeout S, --seed N    for one answer (600); the same seed sends the same (0)
  --json FILE, --html FILE one JSON object (- is stdout, instead of the table); a page with plots
)";

inline constexpr std::string_view kSelftestHelp =
    R"(usage: puna selftest --chaos DURATION [flags]     does a server keep its promises?

  puna selftest --chaos 60 --model PATH -- [flags of puna serve]
  puna selftest --chaos 10m --url http://HOST:PORT [--pid N]

Takes answers while all is quiet, then asks for the same while other clients leave, stall, flood
and poison, and while the process is paused. Exit code 1 names the broken promises.

  --chaos DURATION         seconds, or 90s, 10m, 2h
  --model PATH             starts a server of its own; what comes after -- goes to it
  --url URL                a server that runs
  --pid N                  its process: it is paused now and then, and its memory watched
  --api-key KEY            what to send
  --rate R                 requests a second of the patient clients (2)
  --seed N                 the same seed misbehaves the same (0)
)";

inline constexpr std::string_view kRouteHelp =
    R"(usage: puna route explain --request FILE --config FILE.toml [flags]

Which variant of the [[model]] of --config would answer this request, and why: its task family and
what speaks for it, each variant's verdict, and who is next when the first is full. Reads the
variants' files and certificates as `puna serve --config` does, and loads no weights.

  --request FILE           the body of a chat or completion call, JSON
  --config FILE.toml       as for serve
  --task FAMILY            as the header x-puna-task: arithmetic, algebra, json_extract, tool_call,
                           code, retrieval, format, edit, open_chat
  --json                   one JSON object
)";

inline constexpr std::string_view kCheckHelp =
    R"(usage: puna check --base MODEL --variant MODEL [flags]    as good as the base, task by task?

Both answer the same seeded items. Exit code: 0 all pass, 3 all pass but a loss is certain,
4 inconclusive, 5 refused, 6 the base doesn't repeat itself; 2 bad input. docs/check.md

  --base, --variant MODEL  GGUF files or Hugging Face folders (also without the flags)
  --families A,B,..        arithmetic, algebra, json_extract, tool_call, code, retrieval, format,
                           edit, open_chat (default: all but the last)
  --gsm8k, --human-eval F  your own items, one JSON object a line, instead or besides
  --delta P                largest loss that passes, in points (3)
  --items N                of each family at most (as many as --delta needs: 654 for 3 points);
                           clear cases end early: --no-early-end
  --difficulty D           0 (for tiny models) to 4 (1)
  --seed N                 the same seed gives the same report (0)
  --report DIR             write certificate.json and report.html
  --key FILE               what signs (default: check.key in the user's configuration, made once)
  --json                   print the certificate
  --verify FILE            only: is this certificate unchanged, and (with --variant) of that file?
  --screen-kld X, --screen-same-top P   refuse by divergence alone (0.1 nats, 85 %); --no-screen
  --control-items N        base against base (60; 0: none); --batch N answers at once (32)
  --kv-dtype TYPE          auto, bf16, int8, f32: of the variant; --base-kv-dtype of the base
  --activations, --threads, --isa, --device, --tuning-cache, --chat-template,
  --memory-budget          as for run
)";

inline constexpr std::string_view kDivergenceHelp =
    R"(usage: puna divergence --base MODEL --variant MODEL --text FILE [flags]

Both models read the text in lock-step; what is compared is the second half of each chunk. The
statistics are those of llama-perplexity --kl-divergence; no logits are stored.

  --base, --variant MODEL  GGUF files or Hugging Face folders (also without the flags)
  --text FILE              UTF-8 text
  --context N              tokens of a chunk (512)
  --chunks N               how many (default: the whole text)
  --json                   one JSON object
  --kv-dtype TYPE          auto, bf16, int8, f32: of the variant; --base-kv-dtype of the base
  --activations TYPE       int8, int8-wide, float
  --threads N, --isa NAME  one per core; scalar, avx2, avx512, avx512_bf16
)";

}  // namespace puna::cli
