"""Times single steps of a tree's engine, without HTTP: decodes at some contexts, prompts, and both together.

    python benchmarks/llama-3.1-8b/steps.py TREE --artifacts DIR [--decode 1,8,32] [--context 160,1088] [--profile 8]

A step is launched before the one before it is read, as `gpu-async-scheduling` does, where the tree can do that. What is
shown is the time from end to end of steps: the GPU's, or the host's where that is more. With `--profile N` the kernels
of a step of N decodes follow. Context is made up: the cache holds whatever it holds, which costs the same time.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WARMUP, STEPS = 4, 24


class Bench:
    """One tree, loaded."""

    def __init__(self, tree: Path, artifacts: Path) -> None:
        sys.path.insert(0, str(tree))
        import torch
        from engine import Engine  # type: ignore[import-not-found]
        from model import Model  # type: ignore[import-not-found]
        from sequence import Segment, Sequence  # type: ignore[import-not-found]

        self.torch, self._segment, self._sequence = torch, Segment, Sequence
        start_s = time.perf_counter()
        device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        self._engine = Engine(Model(artifacts, device), lambda outputs: None, lambda: None)
        print(f"{tree}: ready in {time.perf_counter() - start_s:.1f} s on {device}", flush=True)
        self._count = 0

    def segments(self, decodes: int, context: int, prompts: tuple[int, ...] = ()) -> list[Any]:
        """Sequences of `context` tokens that decode, and prompts."""
        spans = [(context - 1, context)] * decodes + [(0, length) for length in prompts]
        made = []
        for start, end in spans:
            self._count += 1
            tokens = [100 + 7919 * (self._count + i) % 1800 for i in range(end)]
            seq = self._sequence(id=self._count, tokens=tokens, prompt_len=end, max_new_tokens=1)
            if not self._engine.kv.allocate(seq):
                raise SystemExit(f"the KV cache has no room for {decodes} sequences of {context} tokens and {prompts}")
            self._engine.kv.commit(seq, start)
            # 0 where nothing is kept between steps.
            made.append(self._segment(seq, self._engine.kv.cached_len(seq), end, True))
        return made

    def step_ms(self, segments: list[Any]) -> float:
        """Median from the end of one step to the end of the next."""
        runner, ends = self._engine.runner, list[float]()
        under_way = runner.launch(segments)
        for _ in range(WARMUP + STEPS):
            following = runner.launch(segments)
            under_way.tokens()
            under_way = following
            ends.append(time.perf_counter())
        under_way.tokens()
        ends = ends[WARMUP:]
        return 1e3 * statistics.median(after - before for before, after in itertools.pairwise(ends))

    def free(self, segments: list[Any]) -> None:
        for segment in segments:
            self._engine.kv.free(segment.seq)

    def profile(self, segments: list[Any]) -> None:
        """What ran on the device in one step."""
        profiler = self.torch.profiler
        self.step_ms(segments)
        with profiler.profile(activities=[profiler.ProfilerActivity.CUDA, profiler.ProfilerActivity.CPU]) as found:
            self._engine.runner.launch(segments).tokens()
        on_gpu = self.torch.cuda.is_available()
        kernels: dict[str, list[float]] = {}
        for event in found.events():
            if (event.device_type.name == "CUDA") == on_gpu:
                kernels.setdefault(event.name, []).append(event.time_range.elapsed_us())
        for name, times in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:12]:
            print(f"{sum(times):10.1f} us {len(times):5d} x {sum(times) / len(times):8.2f}  {name[:90]}")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--artifacts", type=Path, required=True, help="folder that reference/build.py wrote")
    parser.add_argument("--decode", type=numbers, default=[1, 8, 32, 64, 128, 256], help="sequences that decode")
    parser.add_argument("--context", type=numbers, default=[160, 1088], help="their lengths")
    parser.add_argument(
        "--prompts", type=numbers, default=[64, 1024], help="lengths of a prompt, alone and beside 8 decodes"
    )
    parser.add_argument("--profile", type=int, metavar="N", help="show the kernels of a step of N decodes")
    arguments = parser.parse_args()
    bench = Bench(arguments.tree.resolve(), arguments.artifacts)
    shapes = [(n, context, ()) for context in arguments.context for n in arguments.decode]
    shapes += [(n, arguments.context[0], (length,)) for length in arguments.prompts for n in (0, 8)]
    with bench.torch.inference_mode():
        for decodes, context, prompts in shapes:
            segments = bench.segments(decodes, context, prompts)
            what = [f"{decodes} decodes @ {context}"] * bool(decodes) + [f"prompt of {length}" for length in prompts]
            print(f"{bench.step_ms(segments):9.3f} ms  {' + '.join(what)}", flush=True)
            bench.free(segments)
        if arguments.profile:
            bench.profile(bench.segments(arguments.profile, arguments.context[0]))


if __name__ == "__main__":
    main()
