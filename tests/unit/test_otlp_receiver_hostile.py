"""Clients that are slow, leave, or do not listen: each is let go of in time, and hinders nobody else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from support.foreign_batches import every_request, every_span
from support.receiving import METHOD_OF, Taking, receiving
from support.waiting import wait_until
from wirespan.pipeline.component import Outcome, Signal
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.http_server import Reply
from wirespan.receiver.otlp import intake

SPANS = every_span(3).SerializeToString()
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
IMPATIENT = {"read_timeout": "300ms", "idle_timeout": "300ms"}


@pytest.mark.parametrize("first", [b"", HEAD % 1_000], ids=["the head", "the body"])
def test_a_client_that_sends_a_byte_at_a_time_is_too_slow(first: bytes) -> None:
    with receiving(http_settings=IMPATIENT) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.http_port)) as connection:
            began = time.monotonic()
            connection.sendall(first)
            connection.settimeout(0.02)
            answer = b""
            while not answer and time.monotonic() < began + 10:
                connection.sendall(b"x")
                with suppress(TimeoutError):
                    answer = connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert receiver.refused_requests("http", "timeout") == 1
        assert receiver.post("/v1/traces", SPANS).status == 200


def test_a_client_that_reads_no_answers_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirespan.pipeline.http_server._REPLY_SECONDS", 0.3)
    with receiving() as receiver, socket.create_connection(("127.0.0.1", receiver.http_port)) as deaf:
        with monkeypatch.context() as patched:
            # As many small ones would do, after a while: more than the kernel keeps for a client.
            patched.setattr("wirespan.receiver.otlp.http_server.handle", lambda *_: Reply(200, body=bytes(50_000_000)))
            deaf.sendall(HEAD % 0)
            wait_until("it is let go of", lambda: is_reset(deaf))
        assert receiver.post("/v1/traces", SPANS).status == 200


def is_reset(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x")
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("how", ["cancels", "disconnects"])
def test_clients_of_grpc_that_leave_in_the_middle_give_their_turns_back(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "IN_HAND", 3 * 3 * 4 * 1024 * 1024)  # three at a time of each signal
    monkeypatch.setattr("wirespan.receiver.otlp.grpc_server._READ_SECONDS_IN_A_CROWD", 60.0)
    release = threading.Event()

    def never() -> Iterator[bytes]:
        release.wait(20)
        yield SPANS

    with receiving() as receiver:
        channel = grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}")
        streams = channel.stream_unary(METHOD_OF["traces"])
        silent = [streams.future(never(), timeout=20) for _ in range(6)]
        time.sleep(0.2)
        if how == "cancels":
            for call in silent:
                call.cancel()
        else:
            channel.close()
        began = time.monotonic()
        assert receiver.call("traces", SPANS) == b""
        assert time.monotonic() - began < 5
        release.set()
        channel.close()


def test_what_a_client_of_grpc_asked_for_before_it_left_is_still_handed_on() -> None:
    entered, leave = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        leave.wait(10)

    with receiving(Taking(before=wait)) as receiver:
        with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
            call = channel.unary_unary(METHOD_OF["traces"]).future(SPANS, timeout=10)
            assert entered.wait(10)
            call.cancel()
        leave.set()
        wait_until("spans accepted", lambda: receiver.count("accepted_spans", "grpc") == 3)
        assert receiver.call("traces", SPANS) == b""


class Blocking(Taking):
    """One signal waits for room, as an exporter may."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        if batch.signal == "traces":
            self.release.wait(20)
        return super().consume_encoded(batch)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_signal_that_waits_for_its_backend_does_not_hold_up_the_others(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "IN_HAND", 3 * 4 * 4 * 1024 * 1024)  # four at a time of each signal
    taking = Blocking()
    with receiving(taking, http_settings={"max_request_body_size": 100_000}) as receiver:

        def send(signal: Signal, request: bytes) -> None:
            with suppress(grpc.RpcError):
                receiver.call(signal, request) if transport == "grpc" else receiver.post(f"/v1/{signal}", request)

        waiting = [threading.Thread(target=send, args=("traces", SPANS)) for _ in range(12)]
        for thread in waiting:
            thread.start()
        time.sleep(0.3)
        for signal in ("metrics", "logs"):
            send(signal, every_request()[signal].SerializeToString())
        assert [batch.signal for batch in taking.batches] == ["metrics", "logs"]
        taking.release.set()
        for thread in waiting:
            thread.join()
