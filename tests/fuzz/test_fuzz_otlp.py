"""Hostile OTLP: no bytes and no text bring the receiver down, and what is refused is refused as such."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_args

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.foreign_batches import REQUESTS, every_request, every_span
from support.foreign_messages import messages
from support.fuzzing import growth
from support.receiving import METHOD_OF, Receiving, receiving
from wirespan.exporters.encoded_json import request_json
from wirespan.pipeline.component import Signal
from wirespan.pipeline.protobuf import MalformedMessage
from wirespan.receiver.otlp.decompression import decompressed
from wirespan.receiver.otlp.intake import TooLarge
from wirespan.receiver.otlp.json_request import encoded
from wirespan.receiver.otlp.settings import Compression

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
LIMIT = 100_000

_signals = st.sampled_from(SIGNALS)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(signal=_signals, data=st.data())
def test_json_of_any_request_is_the_request(signal: Signal, data: st.DataObject) -> None:
    request = data.draw(messages(REQUESTS[signal]))
    decoded = REQUESTS[signal].FromString(encoded(signal, request_json(request).encode()))
    assert str(decoded) == str(request)  # a NaN equals none


@st.composite
def _changed(draw: st.DrawFn) -> tuple[Signal, bytes]:
    """A request in JSON with something else in one place."""
    signal = draw(_signals)
    tree: Any = json.loads(request_json(every_request()[signal]))
    here = tree
    while True:
        key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if draw(st.booleans()) or not isinstance(here[key], dict | list) or not here[key]:
            here[key] = draw(_json)
            return signal, json.dumps(tree).encode("utf-8", "surrogatepass")
        here = here[key]


@given(_changed())
def test_no_json_does_worse_than_being_malformed(changed: tuple[Signal, bytes]) -> None:
    signal, text = changed
    with suppress(MalformedMessage):
        REQUESTS[signal].FromString(encoded(signal, text))


@given(_signals, st.binary(max_size=100) | _json.map(lambda tree: json.dumps(tree).encode()))
def test_no_text_does_worse_than_being_malformed(signal: Signal, text: bytes) -> None:
    with suppress(MalformedMessage):
        encoded(signal, text)


@given(st.binary(max_size=200), st.sampled_from([name for name in get_args(Compression) if name]))
def test_no_body_does_worse_than_being_malformed_or_too_large(body: bytes, encoding: str) -> None:
    compress = {"gzip": gzip.compress, "zstd": zstd.compress}.get(encoding, zlib.compress)
    for tried in (body, compress(body), compress(body)[:-1] + body):
        with suppress(MalformedMessage, TooLarge):
            assert len(decompressed(tried, encoding, LIMIT)) <= LIMIT


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiving]:
    with receiving(http_settings={"max_request_body_size": LIMIT, "read_timeout": "100ms"}) as started:
        yield started


SPANS = every_span(2).SerializeToString()
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
VALID = HEAD % len(SPANS) + SPANS


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, len(VALID)), removed=st.integers(0, 20), put=st.binary(max_size=20), rest=st.binary(max_size=50)
)
def test_no_bytes_on_a_connection_hinder_those_on_another(
    receiver: Receiving, at: int, removed: int, put: bytes, rest: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", receiver.http_port)) as hostile:
        hostile.sendall(VALID[:at] + put + VALID[at + removed :] + rest)
        assert receiver.post("/v1/traces", SPANS).status == 200


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_no_bytes_on_a_connection_of_grpc_hinder_those_on_another(receiver: Receiving, data: bytes) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    with socket.create_connection(("127.0.0.1", receiver.grpc_port)) as hostile:
        hostile.sendall(preface + data)
        assert receiver.call("traces", SPANS) == b""


BOMBS = [
    ("application/x-protobuf", gzip.compress(bytes(500_000_000), 1)),
    ("application/json", gzip.compress(b'{"resourceSpans":[' + b"{}," * 30_000_000 + b"{}]}", 1)),
    ("application/json", gzip.compress(b'{"resourceSpans":[' + b"{}," * 6_000_000 + b"{}]}", 1)),
    ("application/json", gzip.compress(b'{"resourceSpans":[' + b'{"schemaUrl":"x"},' * 480_000 + b"{}]}", 1)),
]


@pytest.mark.parametrize(("content_type", "body"), BOMBS, ids=["protobuf", "json", "many values", "most values"])
def test_a_zip_bomb_takes_no_more_memory_than_a_body_may(content_type: str, body: bytes) -> None:
    with receiving() as receiver:
        receiver.post("/v1/traces", SPANS)
        with growth() as grown:
            for _ in range(5):
                headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}
                assert receiver.post("/v1/traces", body[: 20 * 1024 * 1024], headers).status in (200, 400, 413)
            assert grown() < 300


#: of another process, whose memory is not looked at: a message that a client of gRPC has to have before it compresses it
BOMB_BY_GRPC = """
import sys, grpc
with grpc.insecure_channel("127.0.0.1:" + sys.argv[1]) as channel:
    try:
        channel.unary_unary(sys.argv[2])(bytes(300_000_000), timeout=30, compression=grpc.Compression.Gzip)
    except grpc.RpcError as error:
        print(error.code().name)
"""


def test_a_zip_bomb_by_grpc_takes_no_more_memory_than_a_message_may() -> None:
    with receiving() as receiver:
        receiver.call("traces", SPANS)
        command = [sys.executable, "-c", BOMB_BY_GRPC, str(receiver.grpc_port), METHOD_OF["traces"]]
        with growth() as grown:
            answered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
            assert answered == "RESOURCE_EXHAUSTED\n"
            assert grown() < 50
        assert receiver.call("traces", SPANS) == b""
