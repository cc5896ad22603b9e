"""Asks the server a few questions with known answers; exit code 0 is a pass."""

import argparse
import json
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "reference"))
from model import next_id

parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True)
parser.add_argument("--output-json", type=Path)
arguments = parser.parse_args()

failures = []
for prompt in ([10, 11, 12], [500], [999, 10, 999, 10, 999, 10]):
    body = {"model": "my-model", "prompt": prompt, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    request = urllib.request.Request(
        f"{arguments.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        got = json.load(answer)["choices"][0]["token_ids"]
    tokens = list(prompt)
    for _ in range(8):
        tokens.append(next_id(tokens))
    if got != tokens[len(prompt) :]:
        failures.append(f"prompt {prompt}: expected {tokens[len(prompt) :]}, got {got}")
if arguments.output_json:
    arguments.output_json.write_text(json.dumps({"failures": failures}))
print("\n".join(failures) or "3 of 3 prompts match")
sys.exit(1 if failures else 0)
