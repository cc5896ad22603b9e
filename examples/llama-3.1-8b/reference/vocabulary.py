"""Decides the text of every token of the random-weight model, and the tokenizer files that say the same to others.

Ids: newline and the 95 printable ASCII characters, then pseudo-words with a leading space, then the specials (empty
text). Text is the concatenation of the tokens' strings; encoding takes the longest token that fits. `tokenizer.json` is
that rule in the format of Hugging Face's `tokenizers`, so that vLLM and `vllm bench serve` see the same tokens.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
SINGLES = ("\n", *(chr(code) for code in range(32, 127)))
ONSETS = (*"bcdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "sh", "st", "th", "tr")
NUCLEI = (*"aeiou", "ai", "ea", "ou")
CODAS = ("", "n", "r", "s", "l", "m", "nd", "st")
STRIDE = 7919
"""Prime, and so coprime to the number of spellings: words that follow each other do not look alike."""


def first_special(config: Json) -> int:
    """Ids from here on are specials."""
    return int(config["vocab_size"]) - int(config["num_special_tokens"])


def make_vocabulary(config: Json) -> list[str]:
    """Text by id."""
    words: dict[str, None] = {}
    spellings = (len(ONSETS) * len(NUCLEI)) ** 2 * len(CODAS)
    number = 0
    while len(SINGLES) + len(words) < first_special(config):
        words[_word(number * STRIDE % spellings)] = None
        number += 1
    return [*SINGLES, *words, *[""] * int(config["num_special_tokens"])]


def _word(code: int) -> str:
    parts = []
    for letters in (ONSETS, NUCLEI, ONSETS, NUCLEI, CODAS):
        code, digit = divmod(code, len(letters))
        parts.append(letters[digit])
    return " " + "".join(parts)


def special_name(config: Json, token: int) -> str:
    """What the tokenizer calls a special, whose text is empty."""
    known = {config["bos_token_id"]: "<|begin_of_text|>", config["eos_token_id"][0]: "<|end_of_text|>"}
    return str(known.get(token, f"<|special_{token}|>"))


def tokenizer_json(config: Json, vocabulary: list[str]) -> Json:
    """`tokenizer.json`: words are cut at spaces and taken apart by longest match, which WordPiece does."""
    specials = range(first_special(config), len(vocabulary))
    vocab = {text: token for token, text in enumerate(vocabulary) if text}
    vocab |= {special_name(config, token): token for token in specials}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    unknown = special_name(config, len(vocabulary) - 1)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": t, "content": special_name(config, t)} | flags for t in specials],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": " ?[a-z]+|[^a-z]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "",
            "max_input_chars_per_word": 1_000_000,
            "vocab": vocab,
        },
    }


def tokenizer_config(config: Json) -> Json:
    """`tokenizer_config.json`, with a chat template like that of the quickstart: ROLE: CONTENT."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": special_name(config, config["bos_token_id"]),
        "eos_token": special_name(config, config["eos_token_id"][0]),
        "unk_token": special_name(config, config["vocab_size"] - 1),
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_model_len"],
        "chat_template": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:",
    }
