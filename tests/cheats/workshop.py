"""Decides what a fixture is made of: the target with the example's reference, and the honest tree with edits."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.cheats.corpus import Tree

HERE = Path(__file__).parent
TARGET = HERE / "target"
EXAMPLE = HERE.parents[1] / "examples" / "tiny-llama" / "reference"
REFERENCE_FILES = ("build.py", "model.py", "roofline.py", "score.py")


def make_target(
    folder: Path,
    allow: Iterable[str] = (),
    settings: Iterable[tuple[str, str]] = (),
    config: Path | None = None,
) -> Path:
    """The corpus's target, complete with the reference implementation of examples/tiny-llama and its own vocabulary.

    Args:
        allow: rules of the diff inspection that it switches off.
        settings: lines of target.toml and what replaces them.
        config: another model than the corpus's own.
    """
    shutil.copytree(TARGET, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in REFERENCE_FILES:
        shutil.copy(EXAMPLE / name, folder / "reference" / name)
    if config is not None:
        shutil.copy(config, folder / "reference" / "config.json")
    build = [sys.executable, "-B", "reference/build.py", "--write-vocab", "reference/vocab.json"]
    subprocess.run(build, cwd=folder, check=True, env={"OPENBLAS_NUM_THREADS": "1"})
    text = (folder / "target.toml").read_text(encoding="utf-8")
    for line, instead in settings:
        assert text.count(line) == 1, f"expected {line!r} once in target.toml"
        text = text.replace(line, instead)
    text += "\n[inspection.allow]\n" + "".join(f'{rule} = "switched off"\n' for rule in sorted(allow))
    (folder / "target.toml").write_text(text, encoding="utf-8")
    return folder


def make_tree(folder: Path, tree: Tree, words: Mapping[str, str]) -> Path:
    """The honest tree in `folder`, changed; `@NAME@` in what is written becomes `words[NAME]`."""
    shutil.copytree(TARGET / "seed", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in tree.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_fill(text, words), encoding="utf-8")
    for name, to in tree.links.items():
        (folder / name).symlink_to(_fill(to, words))
    for edit in tree.edits:
        path = folder / edit.path
        text = path.read_text(encoding="utf-8")
        count = text.count(edit.find)
        assert count == 1, f"{tree.name}: expected {edit.find!r} once in {edit.path}, found it {count} times"
        path.write_text(text.replace(edit.find, _fill(edit.replace, words)), encoding="utf-8")
    return folder


def _fill(text: str, words: Mapping[str, str]) -> str:
    for name, word in words.items():
        text = text.replace(f"@{name}@", word)
    return text
