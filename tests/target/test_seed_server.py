"""The seed server: its tokens are the reference's, the official client can talk to it, and it lets go of what ended."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from tiny_llama import TARGET, post, running_server

VOCAB: list[str] = json.loads((TARGET / "reference" / "vocab.json").read_text(encoding="utf-8"))
PROMPT = [500, 600, 700, 800, 900, 1000]
BASE = {"model": "tiny-llama", "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True}


@pytest.fixture
def client(seed_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{seed_url}/v1", api_key="none", max_retries=0, timeout=30)


def greedy_reference(reference: Any, prompt: list[int], tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(reference.logits(reference.hidden(np.array([ids]))[0, -1]).argmax()))
    return ids[len(prompt) :]


def test_committed_vocabulary_is_what_build_makes(artifacts: Path) -> None:
    assert json.loads((artifacts / "vocab.json").read_text(encoding="utf-8")) == VOCAB
    assert len(VOCAB) == 8192
    assert len(set(VOCAB[3:])) == 8189


def test_whole_reply_is_the_reference_greedy_continuation(seed_url: str, reference: Any) -> None:
    status, reply = post(seed_url, BASE | {"prompt": PROMPT})
    choice = reply["choices"][0]
    assert status == 200
    assert choice["token_ids"] == greedy_reference(reference, PROMPT, 8)
    assert choice["text"] == "".join(VOCAB[i] for i in choice["token_ids"])
    assert reply["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}


def test_openai_client_streams_the_same_tokens(client: openai.OpenAI, reference: Any) -> None:
    extra = {"ignore_eos": True, "return_token_ids": True}
    stream = client.completions.create(
        model="tiny-llama", prompt=PROMPT, max_tokens=8, temperature=0, stream=True,
        stream_options={"include_usage": True}, extra_body=extra,
    )  # fmt: skip
    chunks: list[Any] = list(stream)
    ids = [i for chunk in chunks for choice in chunk.choices for i in choice.token_ids]
    assert ids == greedy_reference(reference, PROMPT, 8)
    assert "".join(c.text for chunk in chunks for c in chunk.choices) == "".join(VOCAB[i] for i in ids)
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8


def test_openai_client_chats(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    whole = client.chat.completions.create(model="tiny-llama", messages=messages, max_tokens=4, temperature=0)
    stream = client.chat.completions.create(
        model="tiny-llama", messages=messages, max_tokens=4, temperature=0, stream=True
    )
    chunks: list[Any] = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert not chunks[0].choices[0].delta.content
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert client.models.list().data[0].id == "tiny-llama"


def test_text_prompts_are_encoded_greedily(seed_url: str) -> None:
    _, reply = post(seed_url, BASE | {"prompt": "hi" + VOCAB[500] + VOCAB[4321]})
    assert reply["choices"][0]["prompt_token_ids"] == [VOCAB.index("h"), VOCAB.index("i"), 500, 4321]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_cuts_before_the_stop_string(seed_url: str, reference: Any, client: openai.OpenAI, stream: bool) -> None:
    ids = greedy_reference(reference, PROMPT, 8)
    text = "".join(VOCAB[i] for i in ids)
    # A stop string that spans two tokens, so that the first part must have been held back.
    stop = VOCAB[ids[3]][-2:] + VOCAB[ids[4]][:2]
    reply: Any = client.completions.create(
        model="tiny-llama", prompt=PROMPT, max_tokens=8, temperature=0, stop=stop, stream=stream
    )
    chunks = list(reply) if stream else [reply]
    assert "".join(c.choices[0].text for c in chunks) == text[: text.find(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_sampling_depends_on_the_seed_alone(seed_url: str) -> None:
    def draw(seed: int) -> list[int]:
        _, reply = post(seed_url, BASE | {"prompt": PROMPT, "temperature": 1.5, "seed": seed})
        return list(reply["choices"][0]["token_ids"])

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [8192]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 600}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 2}, "n"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_bad_fields_are_named(seed_url: str, change: Any, param: str) -> None:
    status, reply = post(seed_url, BASE | {"prompt": PROMPT} | change)
    assert (status, reply["error"]["param"], reply["error"]["type"]) == (400, param, "invalid_request_error")


def test_bad_bodies(seed_url: str, client: openai.OpenAI) -> None:
    assert post(seed_url, b"{")[0] == 400
    assert post(seed_url, b"[]")[0] == 400
    assert post(seed_url, {"messages": []}, "/v1/chat/completions")[0] == 400
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")


def test_a_client_that_leaves_frees_the_server(seed_url: str) -> None:
    address = urlsplit(seed_url)
    body = json.dumps(BASE | {"prompt": PROMPT, "max_tokens": 500, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
        connection.sendall(head + body)
        assert b"200 OK" in connection.recv(4096)
    # The 500 tokens would take the seed well over ten seconds, one request at a time.
    start = time.monotonic()
    status, _ = post(seed_url, BASE | {"prompt": PROMPT, "max_tokens": 2})
    assert status == 200
    assert time.monotonic() - start < 4


def test_ends_within_a_second_of_sigterm(artifacts: Path) -> None:
    with running_server(TARGET / "seed", artifacts) as (url, process):
        address = urlsplit(url)
        body = json.dumps(BASE | {"prompt": PROMPT, "max_tokens": 500, "stream": True}).encode()
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as connection:
            connection.sendall(
                f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            connection.sendall(body)
            assert connection.recv(4096)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=5) == 0
            assert time.monotonic() - start < 1.5
