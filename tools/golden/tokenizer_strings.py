# SPDX-License-Identifier: Apache-2.0
"""The strings of the tokenizer's golden files: made up here from a fixed seed, nothing is copied.

`sections()` gives (name, [bytes, ...]). Section names say what an oracle needs to know: "malformed" is no
UTF-8, "new_letters" are code points that older Unicode tables do not have, "long_s" is where
engines differ on ignoring case.
"""
import random
import unicodedata

SCRIPTS = [
    "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA", "NKO", "DEVANAGARI",
    "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI",
    "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "HANGUL SYLLABLE", "ETHIOPIC", "CHEROKEE", "KHMER", "MONGOLIAN",
    "HIRAGANA", "KATAKANA", "CJK UNIFIED", "BOPOMOFO", "YI SYLLABLE", "TIFINAGH", "GLAGOLITIC", "COPTIC",
    "GOTHIC", "RUNIC", "OGHAM", "JAVANESE", "BALINESE", "TAI LE", "VAI SYLLABLE", "MATHEMATICAL", "CUNEIFORM",
]
SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 32, 32, 32, 32, 10, 0x85, 0xA0, 0x1680, 0x2000, 0x2003, 0x2009,
                           0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)]
NOT_SPACES = ["\u200b", "\u200c", "\u200d", "\ufeff", "\u180e", "\u2060", "\x1c", "\x1f", "\x00", "\x7f"]
WORDS = ("the of and to in is that it was for on are as with his they at be this from have or by one had not but "
         "what all were when we there can an your which their said if do will each about how up out them then she "
         "many some so these would other into has more her two like him see time could no make than first been its "
         "who now people my made over did down only way find use may water long little very after words called just "
         "where most know Reykjavik Xylophone antidisestablishmentarianism HTTPRequest snake_case camelCase").split()
NAMES = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>",
         "<|end_header_id|>", "<|python_tag|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>",
         "<file_sep>", "<|reserved_special_token_5|>", "<|reserved_special_token_200|>", "<empty_output>"]


def assigned(low, high):
    return [chr(c) for c in range(low, high)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs") and not 0xE000 <= c <= 0xF8FF]


def script_letters():
    by_script = {name: [] for name in SCRIPTS}
    for char in assigned(0x41, 0x1F000):
        name = unicodedata.name(char, "")
        for script in SCRIPTS:
            if name.startswith(script):
                by_script[script].append(char)
    return by_script


def script_texts(rng, letters, count):
    for script in SCRIPTS:
        chars = letters[script]
        assert len(chars) >= 20, script
        for _ in range(count):
            words = ["".join(rng.choices(chars, k=rng.randint(1, 9))) for _ in range(rng.randint(1, 5))]
            yield rng.choice([" ", " ", ", ", "\u3000", "-", "'"]).join(words) + rng.choice(["", ".", "?", "!\n"])


def code_texts(rng, count):
    idents = ["i", "x1", "size_t", "self", "std::vector<int>", "foo", "getValue", "MAX_LEN", "__init__", "tmp$", "λ"]
    ops = ["+", "-", "*", "==", "!=", "<=", ">>=", "&&", "||", "->", "=>", ":=", "...", "::", "?:", "|>", "**"]
    for _ in range(count):
        lines = []
        depth = 0
        for _ in range(rng.randint(1, 6)):
            a, b, c = rng.choices(idents, k=3)
            number = rng.choice(["0", "42", "0xFF3a", "1e-10", "3.14159", "1_000_000", "007"])
            line = rng.choice([
                f"if ({a} {rng.choice(ops)} {b}) {{", f"def {a}({b}, {c}={number}):", f"return {a}[{number}];",
                f"// {rng.choice(WORDS)} {rng.choice(WORDS)}'s {number}", f"#include <{a}.h>", "}", "", "\t",
                f"SELECT {a} FROM {b} WHERE {c}='{number}';", f"<div class=\"{a}\">{number}</div>",
                f"{a} = {{\"{b}\": [{number}, null], '{c}': true}}", f"for(;;){a}{rng.choice(ops)}{b};"])
            indent = rng.choice(["  ", "    ", "\t"]) * depth
            lines.append(indent + line)
            depth = max(0, depth + (line.endswith(("{", ":")) - (line == "}")))
        yield rng.choice(["\n", "\n", "\r\n", "\n\n"]).join(lines)


def emoji_texts(rng, count):
    faces = assigned(0x1F600, 0x1F640) + assigned(0x1F300, 0x1F5FF)
    people = list("👩👨🧑👧👦🧔👮💂🕵")
    tones = [chr(c) for c in range(0x1F3FB, 0x1F400)]
    things = ["💻", "🚀", "⚕️", "✈️", "🔬", "🎨", "❤️", "🦰"]
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 6)):
            parts.append(rng.choice([
                lambda: rng.choice(faces),
                lambda: rng.choice(people) + rng.choice(tones),
                lambda: rng.choice(people) + rng.choice(tones) + "\u200d" + rng.choice(things),
                lambda: "\u200d".join(rng.choices(people, k=rng.randint(2, 4))),
                lambda: "".join(chr(0x1F1E6 + rng.randrange(26)) for _ in range(2)),
                lambda: rng.choice("0123456789#*") + "\ufe0f\u20e3",
                lambda: "\U0001F3F4" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000E007F",
                lambda: rng.choice(WORDS)])())
        yield rng.choice(["", "", " ", "  "]).join(parts)


def space_texts(rng, count):
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 5)):
            parts.append("".join(rng.choices(SPACES, k=rng.randint(1, 7))))
            parts.append(rng.choice(WORDS + ["1", "22", "x", "...", "", "", "'s", "-"] + NOT_SPACES))
        yield "".join(parts[rng.randint(0, 1):len(parts) - rng.randint(0, 1)])


def special_texts(rng, count):
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 5)):
            name = rng.choice(NAMES)
            spoiled = rng.choice([name, name, name[:-1], name[1:], name.upper(), name.replace("|", "||"),
                                  name[:len(name) // 2], "<" + name, name + ">", name.replace("_", " ")])
            parts += [spoiled, rng.choice(["", "", " ", "\n", "\n\n", "user", " hi", "  "])]
        yield "".join(parts)


def digit_texts(rng, count):
    digits = [c for c in assigned(0x30, 0x1FBFA) if unicodedata.category(c) in ("Nd", "Nl", "No")]
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 5)):
            alphabet = rng.choice(["0123456789", "0123456789", digits, "²³½Ⅷ①"])
            parts.append("".join(rng.choices(alphabet, k=rng.randint(1, 8))))
            parts.append(rng.choice([" ", "  ", "", ".", ",", "-", "x", "\n", "e", " \n"]))
        yield "".join(parts)


def contraction_texts(rng, count):
    ends = ["s", "t", "re", "ve", "m", "ll", "d", "r", "v", "l", "x", "", "st", "rest"]
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 4)):
            end = "".join(rng.choice([c.lower(), c.upper()]) for c in rng.choice(ends))
            parts.append(rng.choice(WORDS + ["", " ", "5", "!", "é"]) + rng.choice("'''’`") + end)
        yield rng.choice([" ", "", "\n"]).join(parts)


def random_texts(rng, count):
    pool = assigned(0x20, 0x20000) + assigned(0x2A6D0, 0x2A6E0) + assigned(0xE0100, 0xE0110)
    for _ in range(count):
        yield "".join(rng.choices(pool, k=rng.randint(1, 12)))


def long_texts(rng):
    for char in ["a", " ", "\n", "é", "1", "!", "👍", "ab", "\u3000", " \n", "'", "ก", "-="]:
        for length in (47, 48, 49, 50, 130, 700):
            yield (char * length)[:length]
    for _ in range(40):
        yield "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(40, 300)))


def malformed_texts(rng, count):
    """Valid parts are of scripts that all Unicode versions agree on."""
    parts = [b"hello", b" world", b" ", b"\n", b"  ", b"123", "é".encode(), "日本".encode(), "👍".encode(), b"'s", b"!"]
    broken = [b"\x80", b"\xbf", b"\xc3", b"\xc0\x80", b"\xe6\x97", b"\xed\xa0\x80", b"\xf0\x9f\x91", b"\xf5\x80\x80\x80",
              b"\xff", b"\xfe", b"\xf4\x90\x80\x80", b"\xe0\x80\xaf", b"\xc1\xbf", b"\xf0\x80\x80\x80"]
    for index in range(count):
        if index % 5 == 0:
            yield bytes(rng.randrange(128, 256) if rng.random() < 0.5 else rng.randrange(32, 127)
                        for _ in range(rng.randint(1, 24)))
        else:
            yield b"".join(rng.choice(parts) if rng.random() < 0.6 else rng.choice(broken)
                           for _ in range(rng.randint(1, 8)))


def new_letters(rng, count):
    pool = [chr(c) for c in [*range(0x1C89, 0x1C8B), *range(0xA7CB, 0xA7CE), *range(0x105C0, 0x105F4),
                             *range(0x10D40, 0x10D66), *range(0x16D40, 0x16D7A), *range(0x2EBF0, 0x2EC00)]]
    for _ in range(count):
        yield "".join(rng.choices(pool, k=rng.randint(1, 6))) + rng.choice(["", " a", "1"])


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def sections():
    rng = random.Random(20240726)
    letters = script_letters()
    mixed = [char for script in SCRIPTS for char in letters[script][:40]] + list(" \n.,'1")
    result = [
        ("words", [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(300)]),
        ("code", list(code_texts(rng, 500))),
        ("scripts", list(script_texts(rng, letters, 28))),
        ("mixed", ["".join(rng.choices(mixed, k=rng.randint(2, 20))) for _ in range(300)]),
        ("emoji", list(emoji_texts(rng, 500))),
        ("spaces", list(space_texts(rng, 700))),
        ("names", list(special_texts(rng, 300))),
        ("digits", list(digit_texts(rng, 500))),
        ("contractions", list(contraction_texts(rng, 500))),
        ("random", list(random_texts(rng, 800))),
        ("long", list(long_texts(rng))),
        ("new_letters", list(new_letters(rng, 60))),
        ("long_s", ["'\u017fa", "it'\u017f", " '\u017f '\u017f1", "'\u017f\u017f"]),
    ]
    result = [(name, [text.encode() for text in texts]) for name, texts in result]
    malformed = [text for text in malformed_texts(rng, 600) if not is_utf8(text)]
    return result + [("malformed", malformed), ("empty", [b""])]
