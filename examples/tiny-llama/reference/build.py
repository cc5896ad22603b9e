"""Decides the weights and the vocabulary: everything is drawn from the seed in config.json.

    python build.py --output ARTIFACTS      writes config.json, vocab.json, weights.json and weights.bin
    python build.py --write-vocab FILE      writes the vocabulary alone (reference/vocab.json is committed)

Random weights alone make a bad target: norms of one hide a server that skips them, weak attention hides a lost KV row,
and nothing ever repeats, so that speculation has nothing to hit. Hence
- norm weights are U(0.5, 1.5), and q, k, v have a gain of 1.6: attention is peaked and context decides;
- *planted phrases*: tokens are grouped into short cycles, and the head column of each token's successor contains the
  token's own embedding direction. A phrase goes round until the context's contribution outbids it and another phrase
  starts. benchmarks/tiny_llama/calibration.md states the measured hit rate.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))
from model import ALIGNMENT_BYTES, Array, Config, read_config, weight_shapes

CONFIG = Path(__file__).resolve().with_name("config.json")
NUM_SPECIALS = 3
FIRST_WORD = NUM_SPECIALS + 96
"""Ids below are specials (empty text), then newline and the 95 printable ASCII characters; above are pseudo-words."""
ATTENTION_GAIN = 1.6
PHRASE_TOKENS = (3, 6)
"""Shortest and longest planted phrase."""
PHRASE_STRENGTH = (0.92, 0.1)
"""Mean and standard deviation over tokens of the planted logit's weight."""
EMBED_STD = 1.0


def make_vocabulary(size: int, seed: int) -> list[str]:
    """Specials "", single characters, then distinct pseudo-words with a leading space."""
    rng = np.random.default_rng([seed, 1])
    singles = ["\n", *(chr(code) for code in range(32, 127))]
    onsets = [*"bcdfghjklmnprstvwz", "br", "ch", "cl", "dr", "fl", "gr", "pl", "sh", "st", "th", "tr"]
    nuclei, codas = [*"aeiou", "ai", "ea", "ou"], ["", "", "n", "r", "s", "l", "m", "nd", "st"]
    words: dict[str, None] = {}
    while len(words) < size - NUM_SPECIALS - len(singles):
        parts = [rng.choice(options) for _ in range(int(rng.integers(2, 4))) for options in (onsets, nuclei)]
        words[" " + "".join(parts) + str(rng.choice(codas))] = None
    return [""] * NUM_SPECIALS + singles + list(words)


def successors(config: Config, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The planted successor of every token: a permutation made of short cycles over the words."""
    order = rng.permutation(np.arange(FIRST_WORD, config.vocab_size))
    following = np.arange(config.vocab_size)
    start = 0
    while start < len(order):
        phrase = order[start : start + int(rng.integers(PHRASE_TOKENS[0], PHRASE_TOKENS[1] + 1))]
        following[phrase] = np.roll(phrase, -1)
        start += len(phrase)
    return following


def make_tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """One random tensor: fan-in scaling, with the gains that the module docstring explains."""
    if name.endswith("norm"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name == "embed":
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(EMBED_STD)
    gain = ATTENTION_GAIN if name.endswith(("wq", "wk", "wv")) else 1.0
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(gain / np.sqrt(shape[0]))


def make_weights(config: Config, seed: int) -> dict[str, Array]:
    """All tensors, the planted phrases included; the same seed gives the same bytes."""
    weights = {
        name: make_tensor(name, shape, np.random.default_rng([seed, 2, i]))
        for i, (name, shape) in enumerate(weight_shapes(config))
    }
    rng = np.random.default_rng([seed, 3])
    following = successors(config, rng)
    words = np.arange(FIRST_WORD, config.vocab_size)
    strength = rng.normal(*PHRASE_STRENGTH, len(words)).astype(np.float32)
    embed = weights["embed"][words]
    direction = embed / np.linalg.norm(embed, axis=1, keepdims=True)
    weights["head"][:, following[words]] += (direction * strength[:, None]).T
    # Specials and single characters are never produced: outputs stay readable and nothing ends by chance.
    weights["head"][:, :FIRST_WORD] *= np.float32(0.1)
    return weights


def write_artifacts(output: Path) -> None:
    """Write config.json, vocab.json, weights.json (name → shape, byte offset) and weights.bin (float32)."""
    output.mkdir(parents=True, exist_ok=True)
    config, seed = read_config(CONFIG), int(json.loads(CONFIG.read_text(encoding="utf-8"))["seed"])
    index: dict[str, dict[str, object]] = {}
    with (output / "weights.bin").open("wb") as file:
        for name, tensor in make_weights(config, seed).items():
            file.write(b"\0" * (-file.tell() % ALIGNMENT_BYTES))
            index[name] = {"shape": list(tensor.shape), "offset": file.tell()}
            file.write(np.ascontiguousarray(tensor).tobytes())
    (output / "weights.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    (output / "config.json").write_text(CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
    write_vocabulary(output / "vocab.json")


def write_vocabulary(path: Path) -> None:
    data = json.loads(CONFIG.read_text(encoding="utf-8"))
    words = make_vocabulary(int(data["vocab_size"]), int(data["seed"]))
    path.write_text(json.dumps(words, ensure_ascii=True, indent=0) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--output", type=Path, help="folder for the artifacts")
    group.add_argument("--write-vocab", type=Path, help="file for the vocabulary alone")
    arguments = parser.parse_args()
    if arguments.output is not None:
        write_artifacts(arguments.output)
    else:
        write_vocabulary(arguments.write_vocab)


if __name__ == "__main__":
    main()
