"""Decides what the hardware leaves of a row: the least TTFT and TPOT, and the most throughput, of one H200 in bf16.

Bandwidth and arithmetic are those measured on one H200 by copies and by a large product of random matrices, so "100 %"
would be a server whose every step runs like these, with nobody waiting for anything:

- *TTFT*: the prompt alone in one step.
- *TPOT*: a decode step of as many sequences as run at once (their number follows from rate and TPOT), and the
  arithmetic of the prompts that arrive meanwhile, as far as it does not fit beside the reading of the weights.
- *Throughput*: arithmetic alone.
"""

from __future__ import annotations

from rows import Row

BYTES_PER_S, FLOP_PER_S = 4.3e12, 790e12
LAYERS, HIDDEN, KV_BYTES = 32, 4096, 131072
"""KV_BYTES: keys and values of one token in all layers."""
BODY, HEAD = 6_979_321_856, 525_336_576
"""Parameters that every token meets: matrices of the layers, and the head, which only tokens with logits meet."""


def step_s(sequences: float, context: float) -> float:
    """A decode step: all weights and the sequences' keys and values are read once."""
    read_s = (2 * (BODY + HEAD) + sequences * context * KV_BYTES) / BYTES_PER_S
    return max(read_s, 2 * (BODY + HEAD) * sequences / FLOP_PER_S)


def prompt_s(tokens: int) -> float:
    """A prompt alone."""
    attention = 2 * HIDDEN * LAYERS * tokens * tokens  # both products, half of the square
    return max(step_s(1, tokens), (2 * (BODY * tokens + HEAD) + attention) / FLOP_PER_S)


def ttft_ms(row: Row) -> float:
    """Least time to the first token."""
    return prompt_s(row.input_tokens) * 1e3


def tpot_ms(row: Row) -> float:
    """Least time per output token in a steady state; infinite if the row offers more than the hardware can do."""
    context, later = row.input_tokens + row.output_tokens / 2, row.output_tokens - 1
    found_s = step_s(1, context)
    for _ in range(200):
        sequences = max(1.0, row.rate_per_s * later * found_s)
        beside_s = max(0.0, prompt_s(row.input_tokens) - step_s(sequences, context))
        left = 1 - row.rate_per_s * beside_s
        if left <= 0:
            return float("inf")
        found_s = step_s(sequences, context) / left
    return found_s * 1e3


def tokens_per_s(row: Row) -> float:
    """Most output tokens per second."""
    prompt_flop = 2 * BODY * row.input_tokens / row.output_tokens
    return FLOP_PER_S / (2 * (BODY + HEAD) + prompt_flop)
