#!/bin/sh
# Runs the target's accuracy checker against a running server: URL=http://127.0.0.1:8000 ./check.sh; exit code 0 is a pass.
# It needs the packages of requirements-check.txt, and the artifacts that serve.sh has built where the checker reads them.
set -eu
HERE="$(cd "$(dirname "$0")" && pwd)"
URL="${URL:-http://127.0.0.1:{{PORT}}}"
PYTHON={{FIND_PYTHON}}
ARTIFACTS="${ARTIFACTS:-$HERE/artifacts}"
OUTPUT="${OUTPUT:-$HERE/check.json}"
cd "$HERE"
{{COMMAND}}
echo "passed: $OUTPUT"
