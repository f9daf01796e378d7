"""The receiver in this process, where the machine runs short or the end comes too early."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.processes import free_port
from support.waiting import wait_until
from wirespan.pipeline.component import Context, Outputs
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import SpanBatch
from wirespan.receiver.ebpf import FACTORY
from wirespan.receiver.exchanges import ExchangeTranslator
from wirespan.receiver.scopes import Records

FAILED = ("wirespan.hooks.failed", (("program", "finish_quiet"),))


class Slow:
    """A consumer that takes nothing until ``go`` is set."""

    def __init__(self) -> None:
        self.asked, self.go, self.spans = threading.Event(), threading.Event(), 0

    def consume(self, batch: SpanBatch) -> None:
        self.asked.set()
        self.go.wait()
        self.spans += len(batch)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


EXCHANGE = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
        client.sendall(b"question")
        server.sendall(server.recv(100))
        client.recv(100)
"""


def exchange(port: int) -> None:
    """Seen when the connection ends. In another process: the receiver leaves out the sockets of its own."""
    subprocess.run([sys.executable, "-c", EXCHANGE, str(port)], check=True)


def test_without_descriptors_for_a_while_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    counters, consumer = Counters(), Slow()
    consumer.go.set()
    port = free_port()
    config = {"select": {"ports": [port]}, "settle": "20ms"}
    receiver = FACTORY.create(FACTORY.config.model_validate(config), Context("ebpf", counters), Outputs(consumer))
    receiver.start()
    with no_more_descriptors():
        wait_until("failures", lambda: counters.snapshot().get(FAILED, 0) > 1)
    exchange(port)
    wait_until("spans", lambda: consumer.spans == 2)
    receiver.shutdown(time.monotonic() + 5)
    warned = [record for record in caplog.records if "Quiet exchanges could not be ended" in record.message]
    assert len(warned) == 1
    assert "EMFILE" in vars(warned[0])["error"]


def test_a_batch_that_cannot_be_translated_is_dropped_and_the_next_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in the middle of a translation, after the tables were looked up; everything else is as always."""
    translations, assemble = [], ExchangeTranslator._assemble

    def second_fails(self: ExchangeTranslator, records: Records, *rest: Any) -> SpanBatch:
        translations.append(len(records))
        if len(translations) == 2:
            raise ZeroDivisionError
        return assemble(self, records, *rest)

    monkeypatch.setattr(ExchangeTranslator, "_assemble", second_fails)
    counters, consumer, port = Counters(), Slow(), free_port()
    consumer.go.set()
    config = {"select": {"ports": [port]}, "settle": "20ms", "drain_interval": "10ms", "instrumented": "both"}
    receiver = FACTORY.create(FACTORY.config.model_validate(config), Context("ebpf", counters), Outputs(consumer))
    receiver.start()
    for number in range(1, 5):
        exchange(port)
        wait_until("both ends", lambda seen=2 * number: sum(translations) >= seen)
    receiver.shutdown(time.monotonic() + 5)
    sums = counters.snapshot()
    dropped = sums["wirespan.exchanges.dropped", (("reason", "defect"),)]
    assert dropped == translations[1]
    assert consumer.spans == sum(translations) - dropped
    assert sums["wirespan.exchanges.observed", ()] == consumer.spans + dropped == 8


def test_what_still_drains_after_the_deadline_leaves_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[object] = []
    monkeypatch.setattr(threading, "excepthook", ends.append)
    consumer, descriptors = Slow(), len(os.listdir("/proc/self/fd"))
    port = free_port()
    config = {"select": {"ports": [port]}}
    receiver = FACTORY.create(FACTORY.config.model_validate(config), Context("ebpf", Counters()), Outputs(consumer))
    receiver.start()
    exchange(port)
    assert consumer.asked.wait(5)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "drain ebpf"]
    receiver.shutdown(time.monotonic() + 0.1)
    assert len(os.listdir("/proc/self/fd")) == descriptors, "nothing is left in the kernel"
    consumer.go.set()
    thread.join(5)
    assert not thread.is_alive()
    assert ends == []
