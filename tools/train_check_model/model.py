# SPDX-License-Identifier: Apache-2.0
"""A small Llama: the forward pass for training, greedy decoding with a key/value cache, and export as a Hugging Face
folder. Rotary layout "half-split", as in transformers."""
import json
import math
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

CONFIG = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 9,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
}
END = 2  # <|im_end|>
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def norm(x, weight, eps):
    return F.rms_norm(x.float(), (x.shape[-1],), weight.float(), eps).to(x.dtype)


def rotate(x, cos, sin):  # [batch, heads, tokens, head_dim]
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, heads, kv_heads, dim = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.c = c
        self.input_norm = nn.Parameter(torch.ones(hidden))
        self.post_norm = nn.Parameter(torch.ones(hidden))
        linear = lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False)
        self.q, self.k, self.v = linear(hidden, heads * dim), linear(hidden, kv_heads * dim), linear(hidden, kv_heads * dim)
        self.o = linear(heads * dim, hidden)
        self.gate, self.up = linear(hidden, c["intermediate_size"]), linear(hidden, c["intermediate_size"])
        self.down = linear(c["intermediate_size"], hidden)

    def forward(self, x, cos, sin, cache=None, at=0):
        c = self.c
        batch, tokens, _ = x.shape
        h = norm(x, self.input_norm, c["rms_norm_eps"])
        split = lambda y, heads: y.view(batch, tokens, heads, c["head_dim"]).transpose(1, 2)
        q = rotate(split(self.q(h), c["num_attention_heads"]), cos, sin)
        k = rotate(split(self.k(h), c["num_key_value_heads"]), cos, sin)
        v = split(self.v(h), c["num_key_value_heads"])
        if cache is not None:
            cache[0][:, :, at:at + tokens], cache[1][:, :, at:at + tokens] = k, v
            k, v = cache[0][:, :, :at + tokens], cache[1][:, :, :at + tokens]
        groups = c["num_attention_heads"] // c["num_key_value_heads"]
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.o(y.transpose(1, 2).reshape(batch, tokens, -1))
        h = norm(x, self.post_norm, c["rms_norm_eps"])
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, c=None):
        super().__init__()
        self.c = c = c or CONFIG
        self.embedding = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.last_norm = nn.Parameter(torch.ones(c["hidden_size"]))
        for name, p in self.named_parameters():
            if p.ndim == 2:
                deep = name.endswith(("o.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * c["num_hidden_layers"]) if deep else 1))

    def angles(self, begin, end, device):
        dim = self.c["head_dim"]
        rates = self.c["rope_theta"] ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim)
        turns = torch.arange(begin, end, device=device, dtype=torch.float32)[:, None] * rates
        return turns.cos(), turns.sin()

    def forward(self, ids, cache=None, at=0):
        x = self.embedding(ids)
        cos, sin = self.angles(at, at + ids.shape[1], ids.device)
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, None if cache is None else cache[i], at)
        return F.linear(norm(x, self.last_norm, self.c["rms_norm_eps"]), self.embedding.weight)

    def loss(self, ids, weights):  # weights [batch, tokens - 1] of predicting ids[:, 1:]
        logits = self(ids[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        return (losses * weights.flatten()).sum() / weights.sum()

    @torch.no_grad()
    def answer(self, prompts, max_tokens, device):
        """Greedy answers to lists of ids, all in one batch: ids without the end token."""
        c = self.c
        batch, longest = len(prompts), max(map(len, prompts))
        total = longest + max_tokens
        ids = torch.zeros(batch, total + 1, dtype=torch.long, device=device)
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        for i, prompt in enumerate(prompts):
            ids[i, :len(prompt)] = torch.tensor(prompt, device=device)
        dtype = self.embedding.weight.dtype
        shape = (batch, c["num_key_value_heads"], total, c["head_dim"])
        cache = [(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
                 for _ in self.blocks]
        ended = torch.zeros(batch, dtype=torch.bool, device=device)
        for at in range(total):
            best = self(ids[:, at:at + 1], cache, at)[:, -1].argmax(-1)
            answering = at + 1 >= lengths
            ids[:, at + 1] = torch.where(answering, best, ids[:, at + 1])
            ended |= answering & (best == END)
            if at % 16 == 0 and bool(ended.all()):
                break
        answers = []
        for i, prompt in enumerate(prompts):
            answer = ids[i, len(prompt):len(prompt) + max_tokens].tolist()
            answers.append(answer[:answer.index(END)] if END in answer else answer)
        return answers


def export(model, tokenizer_path, folder):
    """Writes a Hugging Face folder with bf16 weights."""
    from safetensors.torch import save_file
    c = model.c
    os.makedirs(folder, exist_ok=True)
    names = {"input_norm": "input_layernorm.weight", "post_norm": "post_attention_layernorm.weight",
             "q.weight": "self_attn.q_proj.weight", "k.weight": "self_attn.k_proj.weight",
             "v.weight": "self_attn.v_proj.weight", "o.weight": "self_attn.o_proj.weight",
             "gate.weight": "mlp.gate_proj.weight", "up.weight": "mlp.up_proj.weight",
             "down.weight": "mlp.down_proj.weight"}
    tensors = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.last_norm}
    for i, block in enumerate(model.blocks):
        for name, p in block.named_parameters():
            tensors[f"model.layers.{i}.{names[name]}"] = p
    tensors = {name: p.detach().to(torch.bfloat16).cpu().contiguous() for name, p in tensors.items()}
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    config = dict(c, architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu",
                  tie_word_embeddings=True, attention_bias=False, mlp_bias=False, torch_dtype="bfloat16",
                  bos_token_id=1, eos_token_id=END, pad_token_id=0)
    write = lambda name, value: open(f"{folder}/{name}", "w").write(json.dumps(value, indent=1) + "\n")
    write("config.json", config)
    write("generation_config.json", {"eos_token_id": END, "do_sample": False})
    write("tokenizer_config.json", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                                    "add_bos_token": False, "chat_template": CHAT_TEMPLATE,
                                    "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048})
    open(f"{folder}/tokenizer.json", "w").write(open(tokenizer_path).read())
