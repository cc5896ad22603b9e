"""Decides which routine multiplies: of those that cuBLASLt proposes for a shape, the fastest here, by trial.

cuBLASLt counts columns first: what is (T, N) here is an (N, T) matrix there, and weights (N, K) a transposed one.
https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api

Axes: T rows, N output columns, K input columns.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from knobs import read_knobs

SAMPLE_BYTES = 192 * 2**20
"""Weights that a trial goes through: several times what L2 holds, because the next layer's are never there."""
CLEARLY = 0.98
"""Another routine than the framework's must take less than this share of its time."""
Shape = tuple[int, int, int, bool]
"""T, N, K, and whether the result is added to what is there."""
WORKSPACE_BYTES = 32 * 2**20
COMPUTE_32F, REAL_32F, REAL_16BF = 68, 0, 14
"""Of cublasComputeType_t and cudaDataType_t."""
TRANSPOSE_FIRST, TRANSPOSED = 3, 1
"""CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T."""
VERSIONS = range(11, 21)
"""Of the library, which has the number of its CUDA in its name."""
MOST_WORKSPACE = 1
"""CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES."""


@dataclass(slots=True)
class Trial:
    """Weights of one shape, gathered as they come by until there are enough of them."""

    weights: list[torch.Tensor] = field(default_factory=list)

    def enough(self, w: torch.Tensor) -> bool:
        if all(w.data_ptr() != known.data_ptr() for known in self.weights):
            self.weights.append(w)
        return sum(w.nbytes for w in self.weights) >= SAMPLE_BYTES


class Products:
    """Component `products`, interface 2. A shape is tried once, outside of the recording of graphs."""

    def __init__(self, device: torch.device) -> None:
        knobs = read_knobs(__file__)
        self._proposals, self._most_rows = int(knobs["proposals"]), int(knobs["chosen_rows"])
        self._lt = CublasLt(device) if device.type == "cuda" and self._proposals else None
        self._trials: dict[Shape, Trial] = {}
        self._chosen: dict[Shape, Algorithm | None] = {}

    def multiply(self, h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """(T, K) @ (N, K).T"""
        algorithm = self._algorithm(h, w, adds=False)
        if algorithm is None or self._lt is None:
            return torch.mm(h, w.t())
        out = h.new_empty((h.shape[0], w.shape[0]))
        self._lt.multiply(algorithm, h, w, out, adds=False)
        return out

    def add(self, x: torch.Tensor, h: torch.Tensor, w: torch.Tensor) -> None:
        """x += (T, K) @ (N, K).T"""
        algorithm = self._algorithm(h, w, adds=True)
        if algorithm is None or self._lt is None:
            torch.addmm(x, h, w.t(), out=x)
        else:
            self._lt.multiply(algorithm, h, w, x, adds=True)

    def _algorithm(self, h: torch.Tensor, w: torch.Tensor, adds: bool) -> Algorithm | None:
        if self._lt is None or h.shape[0] > self._most_rows or h.dtype != torch.bfloat16 or not h.is_contiguous():
            return None
        shape = (*h.shape, w.shape[0], adds)
        if shape not in self._chosen and not torch.cuda.is_current_stream_capturing():
            trial = self._trials.setdefault(shape, Trial())
            if trial.enough(w):
                self._chosen[shape] = self._fastest(self._lt, h, self._trials.pop(shape).weights, adds)
        return self._chosen.get(shape)

    def _fastest(self, lt: CublasLt, h: torch.Tensor, weights: list[torch.Tensor], adds: bool) -> Algorithm | None:
        """None where the framework's own choice is as good as any."""
        out = h.new_zeros((h.shape[0], weights[0].shape[0]))

        def own(w: torch.Tensor) -> None:
            if adds:
                torch.addmm(out, h, w.t(), out=out)
            else:
                torch.mm(h, w.t(), out=out)

        best, best_us = None, CLEARLY * _time_us(own, weights)
        for algorithm in lt.proposals(h.shape[0], weights[0].shape[0], h.shape[1], self._proposals):
            try:
                took_us = _time_us(lambda w, algorithm=algorithm: lt.multiply(algorithm, h, w, out, adds), weights)
            except RuntimeError:
                # Proposed, but not possible with an addition.
                continue
            if took_us < best_us:
                best, best_us = algorithm, took_us
        return best


class Proposal(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace_bytes", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to multiply matrices of one shape."""

    proposal: Proposal
    operation: ctypes.c_void_p
    layouts: tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    """Of weights, rows and results."""


class CublasLt:
    """The library that PyTorch brings, with a workspace of its own."""

    def __init__(self, device: torch.device) -> None:
        self._library = _load()
        self._handle = ctypes.c_void_p()
        self._call("Create", ctypes.byref(self._handle))
        self._workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)

    def proposals(self, rows: int, columns: int, inputs: int, most: int) -> list[Algorithm]:
        """At most so many algorithms for (rows, inputs) @ (columns, inputs).T, the library's favourite first."""
        operation, wish, found = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
        self._call("MatmulDescCreate", ctypes.byref(operation), COMPUTE_32F, REAL_32F)
        transposed = ctypes.c_int32(TRANSPOSED)
        self._call("MatmulDescSetAttribute", operation, TRANSPOSE_FIRST, ctypes.byref(transposed), ctypes.c_size_t(4))
        layouts = (
            self._layout(inputs, columns), self._layout(inputs, rows), self._layout(columns, rows)
        )  # fmt: skip
        self._call("MatmulPreferenceCreate", ctypes.byref(wish))
        limit = ctypes.c_size_t(WORKSPACE_BYTES)
        self._call("MatmulPreferenceSetAttribute", wish, MOST_WORKSPACE, ctypes.byref(limit), ctypes.c_size_t(8))
        results = (Proposal * most)()
        self._call(
            "MatmulAlgoGetHeuristic", self._handle, operation, *layouts, layouts[2], wish, most, results,
            ctypes.byref(found),
        )  # fmt: skip
        self._call("MatmulPreferenceDestroy", wish)
        return [Algorithm(result, operation, layouts) for result in results[: found.value] if result.status == 0]

    def multiply(self, algorithm: Algorithm, h: torch.Tensor, w: torch.Tensor, out: torch.Tensor, adds: bool) -> None:
        """out = h @ w.T, or out += h @ w.T, on the current stream.

        Raises:
            RuntimeError: the algorithm cannot do that.
        """
        weights, rows, results = algorithm.layouts
        self._call(
            "Matmul", self._handle, algorithm.operation, ctypes.byref(ctypes.c_float(1.0)), _at(w), weights, _at(h),
            rows, ctypes.byref(ctypes.c_float(1.0 if adds else 0.0)), _at(out), results, _at(out), results,
            ctypes.byref(algorithm.proposal.algorithm), _at(self._workspace), ctypes.c_size_t(WORKSPACE_BYTES),
            ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
        )  # fmt: skip

    def _layout(self, rows: int, columns: int) -> ctypes.c_void_p:
        """Of a matrix whose columns of `rows` values follow each other."""
        layout = ctypes.c_void_p()
        self._call(
            "MatrixLayoutCreate", ctypes.byref(layout), REAL_16BF, ctypes.c_uint64(rows), ctypes.c_uint64(columns),
            ctypes.c_int64(rows),
        )  # fmt: skip
        return layout

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, f"cublasLt{name}")(*arguments)
        if status:
            raise RuntimeError(f"cublasLt{name} returned status {status} (cublasStatus_t)")


def _time_us(multiply: Callable[[torch.Tensor], None], weights: list[torch.Tensor]) -> float:
    """Median of three passes over the weights, as a graph runs them: a call takes the host longer than the GPU."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for w in weights:
            multiply(w)
    graph.replay()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
    for event in events:
        event.record()
        graph.replay()
    torch.cuda.synchronize()
    times_ms = [before.elapsed_time(after) for before, after in itertools.pairwise(events)]
    return 1e3 * statistics.median(times_ms) / len(weights)


def _at(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _load() -> ctypes.CDLL:
    """The copy that PyTorch has loaded: two different ones in a process would not share what they know of the GPU."""
    torch.cuda.current_blas_handle()
    for version in VERSIONS:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(f"libcublasLt.so.{version}", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    raise RuntimeError("PyTorch has not loaded libcublasLt.so: this recipe needs its CUDA build")
