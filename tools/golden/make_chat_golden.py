#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/chat_template/renders.json: conversations as transformers renders them with the
models' own Jinja templates, and the tokens it makes of them.

  make_chat_golden.py --out tests/golden/chat_template --gguf SmolLM2.gguf --templates DIR --cache DIR

--templates is llama.cpp's models/templates (meta-llama-Llama-3.{1-8B,2-3B,3-70B}-Instruct.jinja); --cache
holds the tokenizer.json files that make_tokenizer_golden.py wrote. The templates are not stored.
"""
import argparse
import json
import pathlib

import gguf
from transformers import PreTrainedTokenizerFast

# Llama 3's own template: one loop, BOS in front of the first message.
LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' "
          "+ message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
          "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
TODAY = "24 Nov 2026"


def conversations():
    def talk(*pairs):
        return [{"role": role, "content": content} for role, content in pairs]
    return [
        talk(("user", "Hello")),
        talk(("system", "Be brief."), ("user", "Hello")),
        talk(("user", "1 + 1?"), ("assistant", "2"), ("user", "And 2 + 2?")),
        talk(("system", "You are a pirate."), ("user", "Hi"), ("assistant", "Arr!"), ("user", "More, please.\nNow.")),
        talk(("user", "  spaces around \n\n")),
        talk(("system", "\n\tpadded system \u3000"), ("user", "\u00a0no-break\u2003em\u200b")),
        talk(("user", "")),
        talk(("user", "   \n ")),
        talk(("system", ""), ("user", "x")),
        talk(("user", "\x1c\x1fseparators\x85")),
        talk(("user", "日本語で答えて。"), ("assistant", "はい 👍🏽"), ("user", "Ça va? Да.")),
        talk(("user", "def f(x):\n    return x\n")),
        talk(("user", "first"), ("system", "a later system message"), ("user", "second")),
        talk(("assistant", "I begin."), ("user", "ok")),
        talk(("user", "a"), ("user", "b")),
        talk(("user", "ends with"), ("assistant", "an answer")),
        talk(("user", "'s \"quotes\" {{ braces }} {% raw %}")),
        talk(("user", "weather?"), ("assistant", "calling"), ("tool", '{"t": 21, "unit": "°C"}\n\t\\ \x01')),
        talk(("user", "x"), ("tool", "  plain text 日本 \x7f "), ("assistant", "done")),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--out", "--gguf", "--templates", "--cache"):
        parser.add_argument(flag, type=pathlib.Path, required=True)
    flags = parser.parse_args()
    llama = PreTrainedTokenizerFast(tokenizer_file=str(flags.cache / "llama3_tokenizer.json"),
                                    bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    smollm = PreTrainedTokenizerFast(tokenizer_file=str(flags.cache / "smollm_tokenizer.json"))
    jinja = {name: (flags.templates / f"meta-llama-Llama-{file}-Instruct.jinja").read_text()
             for name, file in (("llama3.1", "3.1-8B"), ("llama3.2", "3.2-3B"), ("llama3.3", "3.3-70B"))}
    jinja["llama3"] = LLAMA3
    smollm_jinja = gguf.GGUFReader(flags.gguf).fields["tokenizer.chat_template"].contents()
    plain_chatml = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
                    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
                    "{% endif %}")
    tokenizers = {name: (llama, text) for name, text in jinja.items()}
    tokenizers |= {"smollm": (smollm, smollm_jinja), "chatml": (smollm, plain_chatml)}
    renders = []
    for name, (tokenizer, template) in tokenizers.items():
        for messages in conversations():
            if name == "llama3" and any(message["role"] == "tool" for message in messages):
                continue  # Llama 3 has no such role; Puna refuses it
            for add in (True, False):
                more = {"date_string": TODAY} if name == "llama3.2" else {}
                text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False,
                                                     add_generation_prompt=add, **more)
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                renders.append({"template": name, "messages": messages, "add_generation_prompt": add,
                                "today": TODAY, "text": text, "ids": ids})
    flags.out.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(render, ensure_ascii=False) for render in renders)
    (flags.out / "renders.json").write_text(f"[\n{lines}\n]\n")
    print(len(renders), "renders")


if __name__ == "__main__":
    main()
