"""A port where more fails than usual is alarmed, and has spans of what fails and of what does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import servers
from support.exchanges import PROGRAMS
from wirespan.pipeline.component import Context, Outputs
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import SpanBatch, StatusCode
from wirespan.receiver import alarms
from wirespan.receiver.ebpf import FACTORY, EbpfConfig

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("redis-server")]


class Watching:
    """A receiver in this process, and how many of the spans that it hands on are errors."""

    def __init__(self, port: int, per_second: float) -> None:
        self.counters, self.spans = Counters(), Counter[bool]()
        config = {"select": {"ports": [port]}, "spans": {"max_per_second": per_second}, "settle": "20ms"}
        context = Context("ebpf", self.counters)
        self.receiver = FACTORY.create(EbpfConfig.model_validate(config), context, Outputs(self))

    def consume(self, batch: SpanBatch) -> None:
        for row in range(len(batch)):
            said = [column.table.fragments[column.ids[row]].status for column in batch.fragments]
            self.spans[StatusCode.ERROR in said] += 1

    @property
    def alarmed(self) -> int:
        return self.counters.gauges()["wirespan.edges.alarmed", ()]


@contextmanager
def asking(port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, PROGRAMS / "redis_client.py", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        yield client


def ask(client: subprocess.Popen[str], seconds: float, *commands: str) -> int:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(f"{seconds} {' '.join(commands)}\n")
    client.stdin.flush()
    return int(client.stdout.readline())


def test_a_port_that_begins_to_fail_is_alarmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "WINDOW", 0.5)
    with servers.redis(tmp_path) as server, asking(server.port) as client:
        watching = Watching(server.port, 40)
        watching.receiver.start()
        try:
            ask(client, 10, "PING")
            assert (watching.alarmed, watching.counters.snapshot().get(ALARMS, 0)) == (0, 0)
            watching.spans.clear()
            asked = ask(client, 6, "PING", "NONSENSE")
            assert (watching.alarmed, watching.counters.snapshot().get(ALARMS, 0)) == (1, 1)
        finally:
            watching.receiver.shutdown(time.monotonic() + 5)
    assert asked > 200
    assert min(watching.spans[False], watching.spans[True]) >= 6 * 40 / 8


ALARMS = "wirespan.edges.alarms", (("reason", "errors"),)
