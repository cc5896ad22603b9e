"""The vocabulary: one text per id, and tokenizer files that mean longest match."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llama import TARGET

Json = dict[str, Any]


@pytest.fixture(scope="module")
def vocab(artifacts: Path) -> list[str]:
    return list(json.loads((artifacts / "vocab.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def tokenizer(artifacts: Path) -> Json:
    return dict(json.loads((artifacts / "tokenizer.json").read_text(encoding="utf-8")))


def longest_match(text: str, vocab: list[str]) -> list[str]:
    known, found = set(vocab), []
    while text:
        found.append(next(text[:n] for n in range(min(len(text), 16), 0, -1) if text[:n] in known))
        text = text[len(found[-1]) :]
    return found


def word_pieces(text: str, tokenizer: Json) -> list[str]:
    """What `tokenizers` does with this file: pieces of the pattern, each taken apart from the left, longest first."""
    known = tokenizer["model"]["vocab"]
    found = []
    for piece in re.findall(tokenizer["pre_tokenizer"]["pattern"]["Regex"], text):
        while piece:
            found.append(next(piece[:n] for n in range(len(piece), 0, -1) if piece[:n] in known))
            piece = piece[len(found[-1]) :]
    return found


def test_every_id_has_its_text(vocab: list[str], artifacts: Path) -> None:
    config = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
    assert len(vocab) == config["vocab_size"]
    assert vocab[-config["num_special_tokens"] :] == [""] * config["num_special_tokens"]
    texts = vocab[: -config["num_special_tokens"]]
    assert len(set(texts)) == len(texts)
    assert all(texts)
    assert [text for text in texts if len(text) == 1] == texts[:96]
    assert all(re.fullmatch(" [a-z]+", text) for text in texts[96:])


def test_tokenizer_and_vocabulary_agree(vocab: list[str], tokenizer: Json) -> None:
    assert all(tokenizer["model"]["vocab"][text] == token for token, text in enumerate(vocab) if text)
    assert sorted(tokenizer["model"]["vocab"].values()) == list(range(len(vocab)))
    rng = random.Random(4)
    for _ in range(300):
        text = "".join(rng.choices(vocab[:-16], k=20)) + "".join(rng.choices(" \nabstxyz!4Q", k=20))
        assert word_pieces(text, tokenizer) == longest_match(text, vocab)


def test_the_text_of_words_becomes_these_words(vocab: list[str]) -> None:
    words = random.Random(5).choices(vocab[96:-16], k=500)
    assert longest_match("".join(words), vocab) == words


def test_the_full_size_has_no_word_twice(tmp_path: Path) -> None:
    from llama import run_script

    assert run_script("reference/build.py", "--output", tmp_path).returncode == 0
    made = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert len(made) == 128_256
    assert len(set(made)) == 128_001
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 8e6


def encoded(texts: list[str], artifacts: Path) -> list[list[int]]:
    """What the seed's tokenizer makes of each text."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from tokenizer import Tokenizer;"
        "t = Tokenizer.load(Path(sys.argv[2]), -1); print(json.dumps([t.encode(x) for x in json.load(sys.stdin)]))"
    )
    command = [sys.executable, "-I", "-c", code, str(TARGET / "seed"), str(artifacts)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=60, check=True)
    return [list(ids) for ids in json.loads(done.stdout)]


def test_the_seed_encodes_by_longest_match(artifacts: Path, vocab: list[str]) -> None:
    rng = random.Random(3)
    texts = ["".join(rng.choice(vocab) for _ in range(200)) for _ in range(20)]
    texts += ["".join(rng.choice("ab c\nd xyz.A1ou~") for _ in range(200)) for _ in range(20)]
    for text, ids in zip(texts, encoded(texts, artifacts), strict=True):
        assert [vocab[i] for i in ids] == longest_match(text, vocab)


def test_the_name_of_a_special_is_one_token(artifacts: Path, vocab: list[str], tokenizer: Json) -> None:
    """`vllm bench serve` sends prompts with them: as text, 1,024 tokens became 5,325."""
    names = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    ids = [*range(len(vocab) - 40, len(vocab)), 96, 100, len(vocab) - 1]
    text = "".join(names.get(i, vocab[i]) for i in ids)
    assert encoded([text, "<|special_"], artifacts) == [ids, [vocab.index(letter) for letter in "<|special_"]]
