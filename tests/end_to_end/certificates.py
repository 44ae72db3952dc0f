# SPDX-License-Identifier: Apache-2.0
"""Certificates as `puna check` signs them (src/check/certificate.cc), with verdicts of our choice."""

import hashlib
import hmac
import json
import os

FAMILIES = ("arithmetic", "algebra", "json_extract", "tool_call", "code", "retrieval", "format",
            "edit", "open_chat")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _number(value):
    return "%.9g" % value if isinstance(value, float) else json.dumps(value)


def _fields(fields):
    return ", ".join(f'"{name}": {_number(value)}' for name, value in fields.items())


def _family(name, verdict):
    lost = 0 if verdict == "pass" else 60
    return {"name": name, "version": 1, "n": 500, "accuracy_base": 0.8,
            "accuracy_variant": 0.8 - lost / 500, "b": lost, "c": 0, "loss": lost / 500,
            "interval_low": lost / 500 - 0.01, "interval_high": lost / 500 + 0.01, "p": 1.0,
            "power": 0.99, "kld": -1.0, "same_top": -1.0, "verdict": verdict, "degraded": False,
            "early": False, "why": "a test says so"}


def certificate(key, *, base, variant, build, kv_dtype, base_kv_dtype, template, verdicts):
    """The text of a certificate; `verdicts`: family -> pass, refuse or inconclusive."""
    secret = key.strip().encode()
    sign = lambda text: hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    head = {"base": os.path.basename(base), "variant": os.path.basename(variant),
            "base_hash": sha256_of(base), "variant_hash": sha256_of(variant), "build": build,
            "device": "cpu", "isa": "avx2", "kv_dtype": kv_dtype, "base_kv_dtype": base_kv_dtype,
            "activations": "int8", "template": template, "seed": 7, "difficulty": 1, "delta": 0.03,
            "error": 0.05, "early_error": 0.01, "control_items": 60, "control_flips": 0}
    families = ",".join("\n  {" + _fields(_family(*one)) + "}" for one in verdicts.items())
    text = (f'{{"format": "puna-check-1", {_fields(head)}, '
            f'"key_id": "{sign("puna check key")[:16]}",\n "families": [{families}]')
    return f'{text},\n "signature": "{sign(text)}"}}\n'
