"""Decides what the artifacts hold: shape, tokenizer, and where the weights come from.

    python build.py --output DIR                      random weights of the true shape, made from a seed where needed
    python build.py --output DIR --config tiny.json   the same in small, for machines without a GPU
    python build.py --output DIR --model FOLDER       a user's own weights: a folder as Hugging Face keeps it
    python build.py --output DIR --files              random weights as files, too, for servers that must read them

Writes config.json, weights.json, vocab.json, tokenizer.json and tokenizer_config.json: a few megabytes and seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from vocabulary import make_vocabulary, tokenizer_config, tokenizer_json

Json = dict[str, Any]
HERE = Path(__file__).resolve().parent
DEFAULT_MODEL_LEN = 8192
SHARD_BYTES = 4 << 30
CARRIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")


class BuildError(Exception):
    """The model folder cannot be used: says what was expected in it."""


def write_seeded(output: Path, config: Json) -> None:
    """Artifacts of the random-weight model; nothing here needs a GPU."""
    vocabulary = make_vocabulary(config)
    _write(output / "config.json", config)
    _write(output / "weights.json", {"source": "seed", "seed": config["weights_seed"]})
    _write(output / "vocab.json", vocabulary)
    _write(output / "tokenizer.json", tokenizer_json(config, vocabulary))
    _write(output / "tokenizer_config.json", tokenizer_config(config))


def write_model(output: Path, model: Path) -> None:
    """Artifacts of a model folder, whose files are copied: links would not be seen from inside a sandbox.

    `vocab.json` has the text of each token by itself. Text of several may differ where a character's bytes are spread
    over tokens: leave `vocab` out of [model], and texts are not checked.
    """
    files = sorted(path.name for path in model.glob("*.safetensors"))
    missing = [name for name in ("config.json", "tokenizer.json") if not (model / name).is_file()]
    if missing or not files:
        wanted = ", ".join([*missing, *([] if files else ["*.safetensors"])])
        raise BuildError(f"{model}: expected {wanted} in the model folder, found none")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    longest = min(DEFAULT_MODEL_LEN, int(config["max_position_embeddings"]))
    head = config["hidden_size"] // config["num_attention_heads"]
    _write(output / "config.json", {"max_model_len": longest, "head_dim": head} | config)
    _write(output / "weights.json", {"source": "safetensors", "files": files})
    for name in (*files, *(name for name in CARRIED if (model / name).is_file())):
        shutil.copyfile(model / name, output / name)
    _write(output / "vocab.json", _texts(model / "tokenizer.json", config["vocab_size"]))


def write_files(output: Path) -> None:
    """Add model-*.safetensors to seeded artifacts, with the index that Hugging Face's loaders want."""
    import torch
    from safetensors.torch import save_file
    from weights import fill, weight_shapes

    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shard: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}

    def flush() -> None:
        name = f"model-{len(set(index.values())) + 1:05}.safetensors"
        save_file(shard, output / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in weight_shapes(config):
        made = torch.empty(shape, dtype=torch.bfloat16, device=device)
        fill(made, name, config["weights_seed"])
        shard[name] = made.cpu()
        if sum(2 * tensor.numel() for tensor in shard.values()) > SHARD_BYTES:
            flush()
    flush()
    _write(output / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def _texts(tokenizer: Path, size: int) -> list[str]:
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(tokenizer))
    return [known.decode([token]) if known.id_to_token(token) is not None else "" for token in range(size)]


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=True) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "config.json", help="shape of the random-weight model")
    parser.add_argument("--model", type=Path, help="folder with config.json, tokenizer.json and *.safetensors")
    parser.add_argument("--files", action="store_true", help="write the random weights as files, too")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.model is not None:
            write_model(arguments.output, arguments.model)
        else:
            write_seeded(arguments.output, json.loads(arguments.config.read_text(encoding="utf-8")))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.files and arguments.model is None:
        write_files(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
