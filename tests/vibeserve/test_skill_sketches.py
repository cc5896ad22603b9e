"""The Python sketches that the skills show are right: an agent copies them into a server.

A sketch is a fenced `python` block of a SKILL.md. It may use `np` and `hashlib`, and nothing that it does not define.
"""

from __future__ import annotations

import hashlib
import random
import re
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SKILLS = Path(__file__).parents[2] / "skills"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLDERS = sorted(path.parent for path in SKILLS.glob("*/SKILL.md"))


def sketch(skill: str) -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "hashlib": hashlib}
    for block in _BLOCK.findall((SKILLS / skill / "SKILL.md").read_text(encoding="utf-8")):
        exec(compile(block, f"{skill}/SKILL.md", "exec"), names)
    return names


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_python_block_is_python(folder: Path) -> None:
    for block in _BLOCK.findall((folder / "SKILL.md").read_text(encoding="utf-8")):
        compile(block, str(folder), "exec")


def test_pages_are_shared_and_come_back() -> None:
    pages = sketch("paged-kv-cache")["Pages"](count=20, page_tokens=4)
    rng, tables = random.Random(7), []
    for _ in range(2000):
        if tables and rng.random() < 0.5:
            pages.release(tables.pop(rng.randrange(len(tables))))
        elif tables and rng.random() < 0.3:
            shared = list(rng.choice(tables)[:2])
            pages.share(shared)
            tables.append(shared)
        elif (taken := pages.allocate(rng.randrange(1, 30))) is not None:
            tables.append(taken)
        held = [sum(table.count(page) for table in tables) for page in range(20)]
        assert pages.users == held
        assert sorted(pages.free) == [page for page in range(1, 20) if held[page] == 0]
    for table in tables:
        pages.release(table)
    assert len(pages.allocate(19 * 4)) == 19 and pages.allocate(1) is None


def test_releasing_a_page_twice_is_noticed() -> None:
    pages = sketch("paged-kv-cache")["Pages"](count=3, page_tokens=4)
    table = pages.allocate(4)
    pages.release(table)
    with pytest.raises(AssertionError, match="released twice"):
        pages.release(table)


def test_block_keys_name_everything_before_them() -> None:
    block_keys = sketch("prefix-caching")["block_keys"]
    tokens = [70_000, 1, 2, 3, 4, 5, 6, 7, 8]
    keys = block_keys(tokens, 4, b"model")
    assert len(keys) == 2 and len(set(keys)) == 2
    assert block_keys(tokens[:8], 4, b"model") == keys and block_keys(tokens[:7], 4, b"model") == keys[:1]
    assert block_keys([1, *tokens[1:]], 4, b"model")[1] != keys[1], (
        "the first block's tokens must change the second key"
    )
    assert not set(block_keys(tokens, 4, b"another tenant")) & set(keys)
    assert block_keys([1, 2, 3], 4, b"model") == []


@pytest.mark.parametrize(
    ("cached", "checkpoints", "prompt", "expected"),
    [(100, [32, 64], 200, 64), (50, [32, 64], 200, 32), (10, [32], 200, 0), (64, [32, 64], 64, 32), (9, [], 10, 0)],
)
def test_hybrid_models_resume_at_a_checkpoint(cached: int, checkpoints: list[int], prompt: int, expected: int) -> None:
    assert sketch("hybrid-state-caching")["resume_at"](cached, checkpoints, prompt) == expected


@pytest.mark.parametrize("most", [1, 7, 8, 255, 256, 300, 1032, 2048])
def test_every_batch_has_a_graph_that_is_little_larger(most: int) -> None:
    sizes = sketch("cuda-graphs")["ladder"](most)
    assert sizes[-1] == most and all(a < b for a, b in pairwise(sizes))
    for rows in range(1, most + 1):
        size = sizes[bisect_left(sizes, rows)]
        assert rows <= size < rows + max(8, rows / 32 + 1)


def test_parts_of_attention_merge_into_the_whole() -> None:
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(4, 8)), rng.normal(size=(4, 50, 8)), rng.normal(size=(4, 50, 8))
    scores = 20 * np.einsum("hd,hnd->hn", q, k)
    outs, lses = [], []
    for part in (slice(0, 1), slice(1, 33), slice(33, 50)):
        outs.append(np.einsum("hn,hnd->hd", softmax(scores[:, part]), v[:, part]))
        top = scores[:, part].max(axis=1)
        lses.append(top + np.log(np.exp(scores[:, part] - top[:, None]).sum(axis=1)))
    out, lse = sketch("attention-backends")["merge"](np.stack(outs), np.stack(lses))
    np.testing.assert_allclose(out, np.einsum("hn,hnd->hd", softmax(scores), v), rtol=1e-10)
    top = scores.max(axis=1)
    np.testing.assert_allclose(lse, top + np.log(np.exp(scores - top[:, None]).sum(axis=1)))


def test_quantised_rows_are_as_near_as_eight_bits_allow() -> None:
    names, rng = sketch("quantisation"), np.random.default_rng(0)
    weights = rng.normal(size=(16, 64)) * np.geomspace(1e-3, 1e3, 16)[:, None]
    weights[3] = 0
    quantised, scales = names["quantise_rows"](weights)
    assert quantised.dtype == np.int8
    np.testing.assert_array_equal(np.abs(quantised).max(axis=1), np.where(np.arange(16) == 3, 0, 127))
    assert (np.abs(quantised * scales - weights) <= scales / 2 * (1 + 1e-9)).all()
    x = rng.normal(size=(5, 64))
    np.testing.assert_allclose(names["product"](x, quantised, scales), x @ (quantised * scales).T, rtol=1e-9)


@pytest.mark.parametrize("draft_weight", [0.0, 0.7, 1.0], ids=["independent", "near", "identical"])
def test_speculation_keeps_the_distribution(draft_weight: float) -> None:
    rng, accept = np.random.default_rng(1), sketch("speculative-decoding")["accept"]
    target = softmax(rng.normal(size=(3, 5)) * 1.5)
    draft = draft_weight * target[:2] + (1 - draft_weight) * softmax(rng.normal(size=(2, 5)) * 1.5)
    counts, second = np.zeros(5), np.zeros(5)
    for _ in range(20_000):
        guesses = [int(rng.choice(5, p=row / row.sum())) for row in draft]
        emitted = accept(target, draft, guesses, rng)
        assert 1 <= len(emitted) <= 3
        counts[emitted[0]] += 1
        if len(emitted) > 1:
            second[emitted[1]] += 1
    np.testing.assert_allclose(counts / counts.sum(), target[0], atol=0.015)  # 4 sigma of 20,000 draws
    np.testing.assert_allclose(second / second.sum(), target[1], atol=0.03)
    assert draft_weight < 1 or second.sum() == 20_000, "a perfect drafter is always accepted"


def steps_to_write(answer: list[int], prediction: list[int], most: int) -> int:
    drafter = sketch("predicted-outputs")["Prediction"](prediction)
    output: list[int] = []
    steps = 0
    while len(output) < len(answer):
        draft = drafter.draft(output, most)
        assert len(draft) <= most
        kept = next(
            (i for i, (a, b) in enumerate(zip(draft, answer[len(output) :], strict=False)) if a != b), len(draft)
        )
        output += answer[len(output) : len(output) + kept + 1]
        steps += 1
    assert output == answer
    return steps


def test_a_prediction_is_found_again_after_every_edit() -> None:
    text = random.Random(3).sample(range(10_000), 1000)
    edited = [*text[:200], 20_001, 20_002, *text[203:500], *text[510:800], 20_003, *text[800:]]
    assert steps_to_write(text, text, 16) == -(-1000 // 17)
    assert steps_to_write(edited, text, 16) <= 1000 // 17 + 3 * (3 + 1) + 3, "the skill's estimate, and one per edit"
    braces = [token for i in range(300) for token in (100 + i, 7, 7, 7)]
    assert steps_to_write(braces, braces, 16) == -(-1200 // 17), "what occurs everywhere must not lead astray"
    assert steps_to_write(text, [], 16) == 1000
    assert steps_to_write(text, list(range(20_000, 21_000)), 16) <= 1000
    assert steps_to_write([5, 5, 5, 5, 5, 5, 7], [5, 5, 5], 4) <= 7


class Matcher:
    def __init__(self, forced: str) -> None:
        self.forced_text = lambda: forced


def encode(text: str) -> list[str]:
    """A tokenizer with a few merges, longest first, as far as letters matter here."""
    return re.findall(r'{"|": "|name|na|"|.', text)


def test_forced_text_becomes_a_draft_only_if_it_leaves_the_past_alone() -> None:
    forced_draft = sketch("structured-output")["forced_draft"]
    assert forced_draft(Matcher('{"name": "'), "", encode, 8) == ['{"', "name"]
    assert forced_draft(Matcher('{"name": "'), "", encode, 1) == ['{"']
    assert forced_draft(Matcher('ame": "na'), '{"n', encode, 8) == [], "n + ame would be cut as name"
    assert forced_draft(Matcher(""), '{"', encode, 8) == []


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_convolution_in_chunks_equals_the_whole(width: int, chunk: int) -> None:
    rng, step = np.random.default_rng(0), sketch("streaming-asr")["causal_conv_chunk"]
    frames, kernel = rng.normal(size=(20, 3)), rng.normal(size=(width, 3))
    cache = np.zeros((width - 1, 3))
    padded = np.concatenate([cache, frames])
    whole = np.stack([(padded[t : t + width] * kernel).sum(axis=0) for t in range(20)])
    parts = []
    for start in range(0, 20, chunk):
        out, cache = step(frames[start : start + chunk], cache, kernel)
        assert cache.shape == (width - 1, 3)
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


def test_euler_steps_of_rows_at_different_times_reach_the_picture() -> None:
    euler_step, rng = sketch("diffusion-serving")["euler_step"], np.random.default_rng(0)
    picture, noise = rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 3, 4, 4))
    sigmas = np.array([1.0, 0.8, 0.3, 0.0])
    steps = np.array([0, 1])  # the second request came one step earlier
    latents = picture + sigmas[steps].reshape(-1, 1, 1, 1) * (noise - picture)
    for _ in range(2):
        latents = euler_step(latents, noise - picture, sigmas, steps)
        steps = steps + 1
    np.testing.assert_allclose(latents[1], picture[1], atol=1e-12)
    np.testing.assert_allclose(latents[0], picture[0] + 0.3 * (noise - picture)[0], atol=1e-12)


@pytest.mark.parametrize("tile", [1, 4, 16])
@pytest.mark.parametrize("experts_used", [1, 3, 8])
def test_rows_are_grouped_by_expert_in_whole_tiles(tile: int, experts_used: int) -> None:
    rng = np.random.default_rng(0)
    experts = rng.integers(0, experts_used, size=(13, 2))
    slots, owners = sketch("moe-serving")["group_rows"](experts, 8, tile)
    assert len(slots) == len(owners) * tile
    real = slots < experts.size
    assert sorted(slots[real]) == list(range(experts.size)) and (slots[~real] == experts.size).all()
    np.testing.assert_array_equal(experts.reshape(-1)[slots[real]], np.repeat(owners, tile)[real])
