# SPDX-License-Identifier: Apache-2.0
"""Makes the tiny random Llama-3-shaped models under tests/golden (2 layers, hidden 64, 512 tokens).

  tiny_llama_hf_tied/  float32, one file, tied head, config.json in the style of transformers 4
  tiny_llama_hf/       bfloat16, several shards, separate head, config.json as transformers 5 writes it
  tiny_llama_gguf/     tiny.gguf: tiny_llama_hf as Q4_0 + Q8_0 + F16
                       tiny-tied-0000N-of-0000M.gguf: tiny_llama_hf_tied as Q4_1 + Q5_0 + Q5_1 + BF16

All have llama3 RoPE scaling and one byte-level BPE tokenizer with Llama 3's special tokens.
Run: python tools/golden/make_tiny_models.py   (needs torch, transformers, tokenizers, gguf, numpy)
"""

import copy
import glob
import json
import os
import shutil

import gguf
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden")
SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
]
VOCAB = 512
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 16
ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 256}
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
TEXT = """A server keeps a promise when it says yes, and it says no at once when it must.
The harbour lies quiet in the morning; boats come in with the tide and leave with the wind.
She counted the stones: one, two, three, four hundred and twelve, and then she started again.
What is the capital of France? The capital of France is Paris. What is two plus two? It is four.
def answer(question):
    return {"role": "assistant", "content": question.strip()}
for (int i = 0; i < 128; ++i) { total += values[i] * weights[i]; }
Der Wind weht kalt. El viento sopla fuerte. Le vent se lève. Ветер крепчает. 風が吹く。
Water boils at 100 degrees; the year has 365 days, 8760 hours, 525600 minutes.
"""


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB - len(SPECIAL), show_progress=False, min_frequency=1,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens(SPECIAL)
    bos = SPECIAL[0]
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
                                      special_tokens=[(bos, tokenizer.token_to_id(bos))])])
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def make_model(tokenizer, tied, seed):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HEADS * HEAD_DIM, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM,
        max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=tied, rope_parameters=dict(ROPE),
        bos_token_id=tokenizer.token_to_id("<|begin_of_text|>"),
        eos_token_id=tokenizer.token_to_id("<|end_of_text|>"), attention_bias=False, mlp_bias=False)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:  # not all ones, so that a forgotten norm weight shows
                weight.copy_(1.0 + 0.2 * torch.randn(weight.shape))
            else:  # attention and feed-forward contribute as much as the embedding does
                weight.copy_(torch.randn(weight.shape) / weight.shape[1] ** 0.5 * 1.5)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=[tokenizer.token_to_id(t) for t in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")])
    return model


def fresh_folder(name):
    folder = os.path.join(GOLDEN, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def save_tokenizer(tokenizer, folder):
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>",
              "eos_token": "<|eot_id|>", "model_max_length": 2048, "clean_up_tokenization_spaces": False,
              "chat_template": CHAT_TEMPLATE}
    write_json(os.path.join(folder, "tokenizer_config.json"), config)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def save_tied(model, tokenizer):
    folder = fresh_folder("tiny_llama_hf_tied")
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype", "float32")
    del config["head_dim"]
    write_json(path, config)


def save_separate(model, tokenizer):
    folder = fresh_folder("tiny_llama_hf")
    copy.deepcopy(model).bfloat16().save_pretrained(folder, max_shard_size="120KB")
    assert len(glob.glob(os.path.join(folder, "*.safetensors"))) > 1
    save_tokenizer(tokenizer, folder)
    with torch.no_grad():
        for weight in model.parameters():  # not model.bfloat16(): that rounds the RoPE frequencies too
            weight.copy_(weight.bfloat16().float())


def gguf_name(name):
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
             "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
             "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down"}
    stem = name.removesuffix(".weight")
    if stem in names:
        return names[stem] + ".weight"
    layer, rest = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{names[rest]}.weight"


def interleave(rows, heads):
    """Hugging Face pairs row i of a head with i + head_dim/2; GGUF wants the two beside each other."""
    halves = rows.reshape(heads, 2, HEAD_DIM // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def rope_divisors(model):
    plain = ROPE["rope_theta"] ** -(np.arange(0, HEAD_DIM, 2, dtype=np.float64) / HEAD_DIM)
    scaled = model.model.rotary_emb.inv_freq.double().numpy()
    return (plain / scaled).astype(np.float32)


def add_metadata(writer, tokenizer, name):
    writer.add_name(name)
    writer.add_context_length(2048)
    writer.add_embedding_length(HEADS * HEAD_DIM)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(ROPE["rope_theta"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    state = json.loads(tokenizer.to_str())
    tokens = [tokenizer.id_to_token(i) for i in range(VOCAB)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in state["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id("<|begin_of_text|>"))
    writer.add_eos_token_id(tokenizer.token_to_id("<|eot_id|>"))
    writer.add_eom_token_id(tokenizer.token_to_id("<|eom_id|>"))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def save_gguf(path, model, tokenizer, type_of, tensors_per_shard=0):
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=tensors_per_shard)
    add_metadata(writer, tokenizer, "Tiny Llama")
    writer.add_tensor("rope_freqs.weight", rope_divisors(model))
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        rows = weight.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            rows = interleave(rows, HEADS if "q_proj" in name else KV_HEADS)
        qtype = gguf.GGMLQuantizationType.F32 if rows.ndim == 1 else type_of(name)
        writer.add_tensor(gguf_name(name), gguf.quantize(rows, qtype), raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def type_of_separate(name):
    types = gguf.GGMLQuantizationType
    if "embed" in name:
        return types.F16
    return types.Q4_0 if "mlp" in name else types.Q8_0


def type_of_tied(name):
    types = gguf.GGMLQuantizationType
    if "mlp" in name:
        return types.Q5_1 if "down" in name else types.Q4_1
    return types.BF16 if "embed" in name else types.Q5_0


def main():
    tokenizer = make_tokenizer()
    separate = make_model(tokenizer, tied=False, seed=1)
    save_separate(separate, tokenizer)  # rounds the weights to bfloat16 first
    tied = make_model(tokenizer, tied=True, seed=2)
    save_tied(tied, tokenizer)
    folder = fresh_folder("tiny_llama_gguf")
    save_gguf(os.path.join(folder, "tiny.gguf"), separate, tokenizer, type_of_separate)
    save_gguf(os.path.join(folder, "tiny-tied.gguf"), tied, tokenizer, type_of_tied, tensors_per_shard=12)


if __name__ == "__main__":
    main()
