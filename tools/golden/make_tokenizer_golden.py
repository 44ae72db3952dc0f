#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/tokenizer: strings, and what the oracles make of them.

  make_tokenizer_golden.py --out tests/golden/tokenizer --cache DIR
      --meta tokenizer.model --gguf SmolLM2.gguf --llama-tokenize PROGRAM [--vocabularies DIR]

Oracles: tiktoken for Meta's tokenizer.model, Hugging Face tokenizers for tokenizer.json, llama-tokenize
for GGUF. --vocabularies is llama.cpp's folder `models` (ggml-vocab-{llama-bpe,gpt-2,qwen2}.gguf). Big
tokenizer.json files are written to --cache and read by tests through PUNA_TEST_TOKENIZER_CACHE.

Files: strings.bin is a list of strings; x.ids has for each of them what x gives, x_names.ids the same
with special tokens recognised. Numbers are LEB128.
replaced.bin has Python's decode(errors="replace") of every malformed string in their order, then of all
of them in a row.
  strings.bin, replaced.bin = count { length bytes }      x.ids = count { 0 for "not asked" | tokens + 1, ids }
"""
import argparse
import ast
import json
import pathlib
import subprocess
import tempfile

import gguf
import regex
import tiktoken
import tiktoken.load
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

import tokenizer_strings

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
SMALL_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_ids(path, results):
    data = bytearray(number(len(results)))
    for ids in results:
        data += number(0) if ids is None else number(len(ids) + 1) + b"".join(map(number, ids))
    path.write_bytes(data)
    print(f"{path}: {sum(ids is not None for ids in results)} of {len(results)} strings, {len(data)} bytes")


# ---- tiktoken

def llama3_specials(first):
    named = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
             "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    named += [f"<|reserved_special_token_{i}|>" for i in range(3, 256 - len(named) + 3)]
    return {name: first + i for i, name in enumerate(named)}


def meta_encoding(path):
    ranks = tiktoken.load.load_tiktoken_bpe(str(path))
    return tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks,
                             special_tokens=llama3_specials(len(ranks)))


def tiktoken_of_bytes(encoding, data):
    """tiktoken takes no malformed UTF-8, so its pieces are cut here: a wrong byte is a character that is
    neither letter, number nor space (surrogateescape makes it a lone surrogate)."""
    ids = []
    for piece in regex.findall(LLAMA3, data.decode(errors="surrogateescape")):
        ids += encoding._core_bpe.encode_single_piece(piece.encode(errors="surrogateescape"))
    return ids


def tiktoken_results(encoding, names, strings):
    plain, special = [], []
    for section, data in strings:
        if section == "malformed":
            plain.append(tiktoken_of_bytes(encoding, data))
            special.append(None)
            continue
        plain.append(encoding.encode_ordinary(data.decode()))
        with_names = any(name in data.decode() for name in names)
        special.append(encoding.encode(data.decode(), allowed_special="all") if with_names else None)
    return plain, special


# ---- tokenizers

def hugging_face_results(tokenizer, names, strings):
    plain, special = [], []
    for section, data in strings:
        if section == "malformed":
            plain.append(None), special.append(None)
            continue
        tokenizer.encode_special_tokens = True
        plain.append(tokenizer.encode(data.decode(), add_special_tokens=False).ids)
        tokenizer.encode_special_tokens = False
        with_names = any(name in data.decode() for name in names)
        special.append(tokenizer.encode(data.decode(), add_special_tokens=False).ids if with_names else None)
    return plain, special


def split_steps(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def steps_of(kind):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {
        "llama-bpe": lambda: split_steps(LLAMA3),
        "qwen2": lambda: split_steps(QWEN2),
        "gpt-2": lambda: byte_level,
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
    }[kind]()


def train_small(strings):
    """A vocabulary of 1,500 tokens, trained on the strings themselves."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = steps_of("llama-bpe")
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=SMALL_SPECIALS, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    texts = [data.decode() for section, data in strings if section in ("words", "code", "scripts", "contractions")]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def smollm_json(path):
    """SmolLM2's vocabulary as a tokenizer.json."""
    fields = gguf.GGUFReader(path).fields
    names = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = steps_of("smollm")
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True)
                                  for name, kind in zip(names, types) if kind == gguf.TokenType.CONTROL])
    return tokenizer


def meta_json(path):
    specials = llama3_specials(128000)
    tokenizer = TikTokenConverter(vocab_file=str(path), pattern=LLAMA3, extra_special_tokens=list(specials)).converted()
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, specials[bos])])])
    return tokenizer


def small_gguf(tokenizer, path):
    """The small vocabulary as GGUF metadata, with the smollm pre-tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    names = sorted(model["vocab"], key=model["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    writer.add_token_types([gguf.TokenType.CONTROL if name in SMALL_SPECIALS else gguf.TokenType.NORMAL
                            for name in names])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


# ---- llama-tokenize

def run_llama_tokenize(program, model, data, parse_special):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        command = [program, "-m", model, "-f", file.name, "--ids", "--no-bos", "--no-escape", "--log-disable"]
        if not parse_special:
            command.append("--no-parse-special")
        output = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    return ast.literal_eval(output.strip().splitlines()[-1])


def llama_tokenize_results(program, model, separator, names, strings):
    """One run for all strings, a special token between them (what lies between two specials is tokenised
    alone); strings that hold a special token's name get a run each."""
    plain, special, together = [None] * len(strings), [None] * len(strings), []
    for i, (section, data) in enumerate(strings):
        if section in ("malformed", "new_letters", "long_s", "empty"):
            continue  # it replaces wrong bytes; its tables are of Unicode 15; it lowers ASCII only
        if any(name in data.decode() for name in names):
            plain[i] = run_llama_tokenize(program, model, data, False)
            special[i] = run_llama_tokenize(program, model, data, True)
        else:
            together.append(i)
    separator_id = run_llama_tokenize(program, model, separator.encode(), True)
    assert len(separator_id) == 1
    joined = separator.encode().join(strings[i][1] for i in together)
    groups = [[]]
    for token in run_llama_tokenize(program, model, joined, True):
        if token == separator_id[0]:
            groups.append([])
        else:
            groups[-1].append(token)
    assert len(groups) == len(together)
    for i, ids in zip(together, groups):
        plain[i] = ids
    return plain, special


def control_names(model):
    fields = gguf.GGUFReader(model).fields
    return [name for name, kind in zip(fields["tokenizer.ggml.tokens"].contents(),
                                       fields["tokenizer.ggml.token_type"].contents())
            if kind in (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED)]


def write_both(out, name, results):
    write_ids(out / f"{name}.ids", results[0])
    write_ids(out / f"{name}_names.ids", results[1])


def write_strings(path, strings):
    path.write_bytes(number(len(strings)) + b"".join(number(len(data)) + data for data in strings))
    print(f"{path}: {len(strings)} strings")


def make_strings(out):
    strings = [(section, data) for section, texts in tokenizer_strings.sections() for data in texts]
    write_strings(out / "strings.bin", [data for _, data in strings])
    malformed = [data for section, data in strings if section == "malformed"]
    write_strings(out / "replaced.bin", [data.decode(errors="replace").encode()
                                         for data in [*malformed, b"".join(malformed)]])
    return strings


def make_small(out, strings):
    small = train_small(strings)
    # A BOS, as Llama 3's own file has it: kept in the committed file, not in the expected ids.
    small.post_processor = processors.TemplateProcessing(single="<|im_start|> $A",
                                                         special_tokens=[("<|im_start|>", 1)])
    small.save(str(out / "small_tokenizer.json"), pretty=False)
    small_gguf(small, out / "small_smollm.gguf")
    for kind in ("llama-bpe", "qwen2", "gpt-2", "smollm"):
        small.pre_tokenizer = steps_of(kind)
        plain, special = hugging_face_results(small, SMALL_SPECIALS, strings)
        write_ids(out / f"small_{kind}.ids", plain)
        if kind == "llama-bpe":
            write_ids(out / f"small_{kind}_names.ids", special)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--out", "--cache", "--meta", "--gguf"):
        parser.add_argument(flag, type=pathlib.Path, required=True)
    parser.add_argument("--llama-tokenize", required=True)
    parser.add_argument("--vocabularies", type=pathlib.Path)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    flags.cache.mkdir(parents=True, exist_ok=True)

    strings = make_strings(flags.out)
    make_small(flags.out, strings)

    encoding = meta_encoding(flags.meta)
    names = list(llama3_specials(0))
    expected = tiktoken_results(encoding, names, strings)
    write_both(flags.out, "meta", expected)
    converted = meta_json(flags.meta)
    converted.save(str(flags.cache / "llama3_tokenizer.json"), pretty=False)
    plain, special = hugging_face_results(converted, names, strings)
    for want, got in zip(expected[0] + expected[1], plain + special):  # the test relies on this
        assert got is None or want == got

    smollm = smollm_json(flags.gguf)
    smollm.save(str(flags.cache / "smollm_tokenizer.json"), pretty=False)
    names = control_names(flags.gguf)
    write_both(flags.out, "smollm_json", hugging_face_results(smollm, names, strings))
    write_both(flags.out, "smollm_gguf",
               llama_tokenize_results(flags.llama_tokenize, str(flags.gguf), "<file_sep>", names, strings))
    if flags.vocabularies:
        for kind, separator in (("llama-bpe", "<|end_of_text|>"), ("gpt-2", "<|endoftext|>"), ("qwen2", "<|endoftext|>")):
            model = str(flags.vocabularies / f"ggml-vocab-{kind}.gguf")
            results = llama_tokenize_results(flags.llama_tokenize, model, separator, control_names(model), strings)
            write_ids(flags.out / f"vocab_{kind}.ids", results[0])


if __name__ == "__main__":
    main()
