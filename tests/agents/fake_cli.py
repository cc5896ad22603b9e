"""A coding CLI of a few lines that speaks codex's JSONL, so that what runs CLIs can be tested without one."""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = '''#!{python} -I
import json, os, re, subprocess, sys, time, urllib.error, urllib.request

if "--version" in sys.argv:
    print("codex-cli {version}")
    raise SystemExit

settings = open(os.path.expanduser("~/.codex/config.toml")).read()
base_url = re.search('^base_url = "(.*)"', settings, re.M)[1]
task = sys.stdin.read()

def tell(kind, **more):
    print(json.dumps({{"type": kind, **more}}), flush=True)

def say(text):
    tell("item.completed", item={{"id": "1", "type": "agent_message", "text": text}})

def done(read=200, written=14):
    tell("turn.completed", usage={{"input_tokens": read, "cached_input_tokens": 120, "output_tokens": written}})

def ask(text=""):
    """Status, and what came."""
    body = json.dumps({{"input": [{{"type": "message", "role": "user", "content": text or task}}]}}).encode()
    headers = {{"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["VIBESERVE_PLACEHOLDER"]}}
    request = urllib.request.Request(base_url + "/responses", body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)

def edit(value):
    text = open("engine.toml").read()
    open("engine.toml", "w").write(re.sub("(?m)^value = .*", "value = %s" % value, text))

{work}
'''

GOOD = """
ask()
say("I look at it.")
ask(json.dumps(dict(os.environ)) + settings)
edit(3.5)
say("Shorter delay.")
done()
"""
STUBBORN = """
while True:
    status, text = ask()
    if status == 200:
        break
    time.sleep(0.01)
"""


def fake_cli(folder: Path, work: str, version: str = "9.9.9") -> Path:
    """An executable in `folder` that does `work`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "codex"
    program.write_text(_PROGRAM.format(python=sys.executable, version=version, work=work))
    program.chmod(0o755)
    return program
