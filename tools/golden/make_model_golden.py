# SPDX-License-Identifier: Apache-2.0
"""Makes the golden logits under tests/golden/model: transformers in float32 on the dequantised weights.

  tiny.json, tiny_*.f32     logits of every position of 160 tokens, for each tiny model: [160, 512]
  smollm2.json, smollm2.bin SmolLM2-135M from its GGUF over windows of tests/golden/text/english.txt; per
                            position an entry of ENTRY; then the full log-probs of a few positions, f32

Run: python tools/golden/make_model_golden.py --model SmolLM2.gguf --llama-bin FOLDER
     (needs torch, transformers, gguf, numpy; FOLDER holds llama-tokenize and llama-perplexity)
"""

import argparse
import hashlib
import json
import os
import re
import subprocess

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import LlamaConfig, LlamaForCausalLM

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden")
OUT = os.path.join(GOLDEN, "model")
TEXT = os.path.join(GOLDEN, "text", "english.txt")
WINDOW = 512
TOP = 64
ENTRY = np.dtype([("token", "<i4"), ("top1", "<i4"), ("next_logprob", "<f4"), ("rest_logprob", "<f4"),
                  ("top_ids", "<u2", TOP), ("top_logprobs", "<f4", TOP)])
FULL_EVERY = 512  # positions between two with the whole distribution
TINY_TOKENS = 160


def halves(rows, heads):
    """Undoes GGUF's row order: pairs (2i, 2i + 1) of a head become (i, i + head_dim / 2)."""
    shape = rows.shape
    return rows.reshape(heads, shape[0] // heads // 2, 2, shape[1]).swapaxes(1, 2).reshape(shape)


def gguf_tensors(paths):
    return {t.name: dequantize(t.data, t.tensor_type).astype(np.float32)
            for path in paths for t in GGUFReader(path).tensors}


def model_from_tensors(config, tensors):
    model = LlamaForCausalLM(config).float().eval()
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"],
             "model.norm.weight": tensors["output_norm.weight"],
             "lm_head.weight": tensors.get("output.weight", tensors["token_embd.weight"])}
    names = {"input_layernorm": "attn_norm", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down"}
    for layer in range(config.num_hidden_layers):
        to, of = f"model.layers.{layer}.", f"blk.{layer}."
        for theirs, ours in names.items():
            state[f"{to}{theirs}.weight"] = tensors[f"{of}{ours}.weight"]
        state[to + "self_attn.q_proj.weight"] = halves(tensors[of + "attn_q.weight"], config.num_attention_heads)
        state[to + "self_attn.k_proj.weight"] = halves(tensors[of + "attn_k.weight"], config.num_key_value_heads)
    model.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in state.items()})
    return model


def config_from_gguf(path):
    fields = {key: field.contents() for key, field in GGUFReader(path).fields.items() if key.startswith("llama.")}
    return LlamaConfig(
        vocab_size=fields["llama.vocab_size"], hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"], num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]})


@torch.no_grad()
def logits_of(model, tokens):
    return model(torch.tensor([tokens])).logits[0]


def make_tiny():
    folder = lambda name: os.path.join(GOLDEN, name)
    tokens = [(i * i * 31 + 7 * i + 3) % 509 for i in range(TINY_TOKENS)]
    with open(os.path.join(OUT, "tiny.json"), "w") as file:
        json.dump({"tokens": tokens}, file)
        file.write("\n")
    shards = [folder(f"tiny_llama_gguf/tiny-tied-0000{i}-of-00002.gguf") for i in (1, 2)]
    load = lambda name: LlamaForCausalLM.from_pretrained(folder(name), dtype=torch.float32).eval()
    config = lambda name: LlamaConfig.from_pretrained(folder(name))
    models = {
        "tiny_llama_hf": load("tiny_llama_hf"),
        "tiny_llama_hf_tied": load("tiny_llama_hf_tied"),
        "tiny_gguf": model_from_tensors(config("tiny_llama_hf"),
                                        gguf_tensors([folder("tiny_llama_gguf/tiny.gguf")])),
        "tiny_gguf_tied": model_from_tensors(config("tiny_llama_hf_tied"), gguf_tensors(shards)),
    }
    for name, model in models.items():
        logits_of(model, tokens).numpy().astype("<f4").tofile(os.path.join(OUT, f"{name}.f32"))


def llama_perplexity(llama_bin, model):
    flags = ["-f", "english.txt", "-c", str(WINDOW)]
    command = [os.path.join(llama_bin, "llama-perplexity"), "-m", model, *flags]
    output = subprocess.run(command, cwd=os.path.dirname(TEXT), capture_output=True, text=True, check=True)
    value = float(re.search(r"PPL = ([0-9.]+)", output.stdout + output.stderr).group(1))
    return " ".join(["llama-perplexity", "-m", os.path.basename(model), *flags]), value


def entries_of(logprobs, window):
    entries = np.zeros(len(window), ENTRY)
    top = torch.topk(logprobs, TOP)
    entries["token"] = window
    entries["top1"] = top.indices[:, 0]
    entries["top_ids"] = top.indices
    entries["top_logprobs"] = top.values
    entries["rest_logprob"] = torch.log(1 - torch.exp(top.values).sum(-1))
    following = torch.tensor(window[1:])
    entries["next_logprob"][:-1] = logprobs[:-1].gather(1, following[:, None])[:, 0]
    return entries


def make_smollm2(path, llama_bin):
    output = subprocess.run([os.path.join(llama_bin, "llama-tokenize"), "-m", path, "-f", TEXT, "--ids",
                             "--log-disable"], capture_output=True, text=True, check=True).stdout
    tokens = json.loads(output[output.index("["):])
    windows = len(tokens) // WINDOW
    model = model_from_tensors(config_from_gguf(path), gguf_tensors([path]))
    entries, full, scored = [], [], []
    for index in range(windows):
        window = tokens[index * WINDOW:(index + 1) * WINDOW]
        logprobs = torch.log_softmax(logits_of(model, window).double(), -1)
        entries.append(entries_of(logprobs, window))
        full.append(logprobs[FULL_EVERY - 1::FULL_EVERY].float().numpy().astype("<f4"))
        scored += entries[-1]["next_logprob"][WINDOW // 2:-1].astype(float).tolist()
    with open(os.path.join(OUT, "smollm2.bin"), "wb") as file:
        file.write(np.concatenate(entries).tobytes())
        file.write(np.concatenate(full).tobytes())
    command, value = llama_perplexity(llama_bin, path)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    with open(os.path.join(OUT, "smollm2.json"), "w") as file:
        json.dump({"sha256": digest, "text": "text/english.txt", "windows": windows, "window_tokens": WINDOW,
                   "top": TOP, "full_every": FULL_EVERY, "perplexity_float32": float(np.exp(-np.mean(scored))),
                   "perplexity_llama_cpp": value, "perplexity_llama_cpp_command": command}, file, indent=2)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="SmolLM2-135M-Instruct.Q4_1.gguf; without it only the tiny models")
    parser.add_argument("--llama-bin")
    arguments = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    make_tiny()
    if arguments.model:
        make_smollm2(arguments.model, arguments.llama_bin)


main()
