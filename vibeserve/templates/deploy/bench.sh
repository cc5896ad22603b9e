#!/bin/sh
# Measures a running server again under the loads of the search: URL=http://127.0.0.1:8000 ./bench.sh
# Results go to $OUT (default: bench/). First with VibeServe's client, beside what the search measured; then, where `vllm` and a
# tokenizer are there (TOKENIZER=folder or name), with `vllm bench serve`.
set -eu
HERE="$(cd "$(dirname "$0")" && pwd)"
URL="${URL:-http://127.0.0.1:{{PORT}}}"
OUT="${OUT:-$HERE/bench}"
MODEL="${MODEL:-{{MODEL}}}"
SEED="${SEED:-$(date +%s)}"   # prompts are new each time: a prefix cache must not know them
PYTHON={{FIND_PYTHON}}
mkdir -p "$OUT"
{{OURS}}
if command -v vllm >/dev/null && [ -n "${TOKENIZER:-}" ]; then
{{THEIRS}}
else
  echo "skipped \`vllm bench serve\`: it needs vllm (pip install vllm) and TOKENIZER=<the model's tokenizer>" >&2
fi
[ -n "$(ls "$OUT")" ] || { echo "nothing was measured" >&2; exit 1; }
