"""What turns do not delimit: a server that speaks first, pushes, and requests sent without waiting. Counted exactly, and no
exchange is mixed up by it."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from support import servers
from support.exchanges import assert_all_exported, assert_paired, of_kind, watch
from support.own_metrics import own_metrics
from support.spans import Span

pytestmark = pytest.mark.requires_bpf


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    def accept() -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=accept)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def pipelined(spans: list[Span]) -> list[bool]:
    return [span["attributes"].get("wirespan.exchange.pipelined", False) for span in spans]


def test_a_greeting_is_a_push_at_either_end_and_no_exchange(tmp_path: Path) -> None:
    """As SMTP, MySQL and SSH do."""

    def serve(accepted: socket.socket) -> None:
        accepted.sendall(b"220 mail.test ESMTP\r\n")
        while line := accepted.recv(100):
            accepted.sendall(b"250 " + line)

    with own_metrics() as metrics, serving(serve) as port, watch(tmp_path, port, metrics=metrics) as agent:
        with connect(port) as connection:
            assert connection.recv(100).startswith(b"220")
            for number in range(20):
                connection.sendall(b"NOOP %d\r\n" % number)
                assert connection.recv(100).startswith(b"250")
        spans = agent.stop()
        assert_all_exported(agent, 40)
    assert_paired(spans, 20)
    assert metrics.value("wirespan.messages", kind="push") == 2
    assert not any(pipelined(spans))


def test_frames_of_a_web_socket_that_nobody_asked_for_are_pushes(tmp_path: Path) -> None:
    """After 101 the server sends at intervals, and answers in between."""
    pushes, settle = 10, 0.1
    asked = Event()

    def serve(accepted: socket.socket) -> None:
        assert b"Upgrade: websocket" in accepted.recv(1000)
        accepted.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        asked.wait()
        for number in range(pushes):
            time.sleep(4 * settle)
            accepted.sendall(b"\x81\x05hello")
            request = accepted.recv(100)
            assert request[6:] == b"%d" % number
            accepted.sendall(b"\x81\x01%d" % number)
            time.sleep(4 * settle)

    with own_metrics() as metrics, serving(serve) as port:
        agent = watch(tmp_path, port, metrics=metrics, ebpf={"settle": f"{settle}s"})
        with agent, connect(port) as connection:
            key = base64.b64encode(os.urandom(16))
            connection.sendall(b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 101")
            time.sleep(4 * settle)
            asked.set()
            for number in range(pushes):
                assert connection.recv(7, socket.MSG_WAITALL) == b"\x81\x05hello"
                connection.sendall(b"\x82\x85\0\0\0\0%d" % number)
                assert connection.recv(3, socket.MSG_WAITALL) == b"\x81\x01%d" % number
            assert not connection.recv(1)
            spans = agent.stop()
    assert_paired(spans, 1 + pushes)
    assert sorted(span["name"] for span in of_kind(spans, "CLIENT")) == ["GET"] + [f"TCP {port}"] * pushes
    # The kernel cannot tell a push from a response that goes on after a silence.
    counted = [metrics.value("wirespan.messages", kind=kind) for kind in ("push", "continued")]
    assert sum(counted) == 2 * pushes


def test_messages_of_redis_subscriptions_are_pushes(tmp_path: Path) -> None:
    messages = 30
    with (
        own_metrics() as metrics,
        servers.redis(tmp_path) as redis,
        watch(tmp_path, redis.port, metrics=metrics) as agent,
    ):
        with connect(redis.port) as subscriber, connect(redis.port) as publisher:
            subscriber.sendall(b"SUBSCRIBE news\r\n")
            assert subscriber.recv(100).startswith(b"*3\r\n$9\r\nsubscribe")
            time.sleep(2.5)  # until the confirmation is complete
            for number in range(messages):
                publisher.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$2\r\n%02d\r\n" % number)
                assert publisher.recv(100) == b":1\r\n"
                assert subscriber.recv(100).endswith(b"%02d\r\n" % number)
        spans = agent.stop()
    assert_paired(spans, 1 + messages)
    assert sorted({span["name"] for span in spans}) == ["PUBLISH", "SUBSCRIBE"]
    counted = [metrics.value("wirespan.messages", kind=kind) for kind in ("push", "continued")]
    assert sum(counted) == 2 * messages


def test_requests_that_waited_behind_an_unanswered_one_are_marked_at_the_server(tmp_path: Path) -> None:
    """Of a protocol that no parser knows: the server reads one at a time. To the client they are one turn."""
    size, batches, together = 16, 20, 3
    sent = Event()

    def serve(accepted: socket.socket) -> None:
        for _ in range(batches):
            sent.wait()
            sent.clear()
            for _ in range(together):
                accepted.sendall(accepted.recv(size, socket.MSG_WAITALL))

    with serving(serve) as port, watch(tmp_path, port) as agent:
        with connect(port) as connection:
            for _ in range(batches):
                for number in range(together):
                    connection.sendall(bytes([number]) * size)
                sent.set()
                assert len(connection.recv(together * size, socket.MSG_WAITALL)) == together * size
        spans = agent.stop()
    server_spans = of_kind(spans, "SERVER")
    assert len(server_spans) == batches * together
    assert all(pipelined(server_spans))


def test_requests_that_wait_for_their_answers_are_never_marked(tmp_path: Path) -> None:
    """In one piece, in several that arrive one by one, and with a server that is late to read."""
    numbers = range(200)

    def serve(accepted: socket.socket) -> None:
        for number in numbers:
            if number % 3 == 0:
                time.sleep(0.001)
            size = int.from_bytes(accepted.recv(4, socket.MSG_WAITALL), "big")
            accepted.sendall(accepted.recv(size, socket.MSG_WAITALL))

    with serving(serve) as port, watch(tmp_path, port) as agent:
        with connect(port) as connection:
            for number in numbers:
                size = 1 + 37 * number
                connection.sendall(size.to_bytes(4, "big"))
                for part in range(0, size, 1000):
                    connection.sendall(bytes(min(1000, size - part)))
                assert len(connection.recv(size, socket.MSG_WAITALL)) == size
        spans = agent.stop()
    assert_paired(spans, len(numbers))
    assert not any(pipelined(spans))


def test_messages_become_spans_of_both_ends_if_that_is_asked_for(tmp_path: Path) -> None:
    """A greeting, an exchange, and pushes in the silence behind it: each of the server's messages is one span that produces
    it and one, its child, that consumes it."""
    pushes, settle = 8, 0.1
    greeting, news = b"220 ready\r\n", b"news" * 100

    def serve(accepted: socket.socket) -> None:
        accepted.sendall(greeting)
        assert accepted.recv(100) == b"SUBSCRIBE\r\n"
        accepted.sendall(b"250 ok\r\n")
        for _ in range(pushes):
            time.sleep(5 * settle)
            for part in (news[:100], news[100:]):  # one message
                accepted.sendall(part)
        time.sleep(5 * settle)

    with serving(serve) as port, watch(tmp_path, port, ebpf={"settle": f"{settle}s", "messages": "span"}) as agent:
        asked = time.time_ns()
        with connect(port) as connection:
            assert connection.recv(len(greeting), socket.MSG_WAITALL) == greeting
            connection.sendall(b"SUBSCRIBE\r\n")
            assert connection.recv(8, socket.MSG_WAITALL) == b"250 ok\r\n"
            for _ in range(pushes):
                assert connection.recv(len(news), socket.MSG_WAITALL) == news
            assert not connection.recv(1)
        spans = agent.stop()
        assert_all_exported(agent, 2 * (1 + 1 + pushes))
    assert_paired([span for span in spans if span["kind"] in ("SERVER", "CLIENT")], 1)
    produced, consumed = of_kind(spans, "PRODUCER"), of_kind(spans, "CONSUMER")
    assert len(produced) == len(consumed) == 1 + pushes
    assert len({span["trace_id"] for span in spans}) == 2 + pushes
    sizes = [len(greeting)] + [len(news)] * pushes
    for producer, consumer, size in zip(produced, consumed, sizes, strict=True):
        assert (consumer["trace_id"], consumer["parent_span_id"]) == (producer["trace_id"], producer["span_id"])
        assert producer["parent_span_id"] == ""
        assert asked <= producer["start"] <= consumer["start"] <= consumer["end"]
        for span in (producer, consumer):
            assert span["name"] == f"TCP {port} push"
            assert span["status"] == "UNSET"
            assert span["attributes"]["wirespan.message.kind"] == "push"
            assert span["attributes"]["wirespan.response.size"] == size
            assert "wirespan.response.duration" in span["attributes"]
            left_out = {f"wirespan.{part}" for part in ("request.size", "request.duration", "processing.duration")}
            assert not left_out & span["attributes"].keys()
        assert "wirespan.queue.duration" in consumer["attributes"]
        assert "wirespan.queue.duration" not in producer["attributes"]
