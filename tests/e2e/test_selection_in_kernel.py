"""Of a process that is left out the first exchanges come up, and then the kernel knows: no more of them use the rings."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import servers
from support.asking import Client, answering, control_group, move
from support.availability import need_command
from support.waiting import wait_until
from wirespan.pipeline.component import Context, Outputs
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import SpanBatch, SpanKind
from wirespan.receiver import process_selection
from wirespan.receiver.ebpf import FACTORY, EbpfConfig, EbpfReceiver

pytestmark = pytest.mark.requires_bpf

FIRST, LATER = 7, 2_000


class Watching:
    """A receiver in this process, what it counts, and how many spans of each kind it hands on."""

    def __init__(self, **ebpf: object) -> None:
        self.counters = Counters()
        self.kinds = {SpanKind.SERVER: 0, SpanKind.CLIENT: 0}
        config = EbpfConfig.model_validate(
            {"settle": "20ms", "drain_interval": "20ms", "spans": {"probability": 1}, **ebpf}
        )
        self.receiver: EbpfReceiver = FACTORY.create(config, Context("ebpf", self.counters), Outputs(self))

    def consume(self, batch: SpanBatch) -> None:
        for kind in self.kinds:
            self.kinds[kind] += int((batch.kind == kind).sum())

    def excluded(self, reason: str) -> int:
        return self.counters.snapshot().get(("wirespan.exchanges.excluded", (("reason", reason),)), 0)

    def total(self, name: str) -> int:
        return sum(value for (key, _), value in self.counters.snapshot().items() if key == name)

    def wait_for_excluded(self, count: int) -> None:
        wait_until(f"{count} are left out", lambda: self.total("wirespan.exchanges.excluded") == count)


@contextmanager
def watching(**ebpf: object) -> Iterator[Watching]:
    found = Watching(**ebpf)
    found.receiver.start()
    try:
        yield found
    finally:
        found.receiver.shutdown(time.monotonic() + 5)


def test_later_exchanges_use_no_room_in_the_rings(tmp_path: Path) -> None:
    with answering(tmp_path, "noisy") as server, Client(server.port) as client:
        select = {"ports": [server.port], "exclude": {"services": ["noisy", "asking"]}}
        with watching(select=select) as found:
            client.ask(1, FIRST)
            found.wait_for_excluded(2 * FIRST)
            new, known = found.excluded("new"), found.excluded("known")
            assert new > 0
            client.ask(0, LATER)
            found.wait_for_excluded(2 * (FIRST + LATER))
        assert (found.excluded("new"), found.excluded("known")) == (new, known + 2 * LATER)
        assert found.total("wirespan.exchanges.observed") == 2 * (FIRST + LATER)
        assert set(found.kinds.values()) == {0}


def test_a_client_that_the_kernel_leaves_out_is_no_parent(tmp_path: Path) -> None:
    """See also the tests of what has not been told to the kernel yet, in test_selection.py."""
    parents: list[int] = []

    class Parents(Watching):
        def consume(self, batch: SpanBatch) -> None:
            super().consume(batch)
            parents.extend(batch.parent_span_id.tolist())

    with answering(tmp_path, "served") as server, Client(server.port) as client:
        found = Parents(select={"ports": [server.port], "services": ["served"]})
        found.receiver.start()
        client.ask(1, FIRST)
        found.wait_for_excluded(FIRST)
        client.ask(3, LATER)
        found.wait_for_excluded(FIRST + 3 * LATER)
        found.receiver.shutdown(time.monotonic() + 5)
    assert found.kinds == {SpanKind.SERVER: FIRST + 3 * LATER, SpanKind.CLIENT: 0}
    assert set(parents) == {0}


@pytest.mark.requires_command("redis-server", "redis-benchmark")
@pytest.mark.alone("how soon the kernel knows who is left out depends on who else wants the processors")
def test_segments_of_a_process_that_is_left_out_stop(tmp_path: Path) -> None:
    """redis-benchmark pipelines; it is selected, the server is not."""
    with servers.redis(tmp_path) as redis:
        words = [need_command("redis-benchmark"), "-p", str(redis.port), "-c", "4", "-P", "16", "-t", "get", "-q"]
        with watching(select={"ports": [redis.port], "exclude": {"pids": [redis.process.pid]}}) as found:
            subprocess.run([*words, "-n", "160"], check=True, capture_output=True, timeout=60)
            wait_until("the server is known", lambda: found.excluded("new"))
            came = found.total("wirespan.exchanges.observed") - found.excluded("known")
            subprocess.run([*words, "-n", "16000"], check=True, capture_output=True, timeout=60)
            wait_until("all are seen", lambda: found.kinds[SpanKind.CLIENT] >= 16_160)
        assert found.kinds[SpanKind.SERVER] == 0
        assert 16_160 <= found.kinds[SpanKind.CLIENT] <= 16_180
        assert found.total("wirespan.segments.excluded") >= 2_000
        assert found.total("wirespan.exchanges.observed") - found.excluded("known") - came <= 16_010
        ends = found.total("wirespan.exchanges.excluded") + found.kinds[SpanKind.CLIENT]
        assert found.total("wirespan.exchanges.observed") == ends


def test_a_process_that_moves_to_another_control_group_is_looked_at_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_selection, "CGROUPS_HOLD", 0.2)
    with (
        control_group("v2", "wirespan-moving") as group,
        answering(tmp_path, "moving") as server,
        Client(server.port) as client,
        watching(select={"ports": [server.port], "cgroups": ["*/wirespan-moving"]}) as found,
    ):
        client.ask(1, FIRST)
        found.wait_for_excluded(2 * FIRST)
        move(server.process.pid, group)
        time.sleep(0.5)
        client.ask(0, FIRST)
        wait_until("its spans", lambda: found.kinds[SpanKind.SERVER] == FIRST)


def test_what_the_kernel_is_told_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process each; those that the kernel has forgotten come up, and are left out, again."""
    monkeypatch.setattr(process_selection, "VERDICTS_KEPT", 2)
    with answering(tmp_path, "served") as server, watching(select={"ports": [server.port], "pids": [1]}) as found:
        for number in range(1, 7):
            new = found.excluded("new")
            with Client(server.port) as client:
                client.ask(1, FIRST)
            found.wait_for_excluded(number * 2 * FIRST)
            assert found.excluded("new") > new
        assert set(found.kinds.values()) == {0}


def test_of_a_client_that_has_ended_before_the_drain_nobody_can_tell_its_service(tmp_path: Path) -> None:
    with answering(tmp_path, "served") as server:
        select = {"ports": [server.port], "exclude": {"services": ["another"]}}
        with watching(select=select, drain_interval="1s", settle="10ms") as found:
            with Client(server.port) as client:
                client.ask(1, FIRST)
            wait_until("the server's spans", lambda: found.kinds[SpanKind.SERVER] == FIRST)
        assert found.kinds[SpanKind.CLIENT] == 0
        assert (found.excluded("unresolved"), found.total("wirespan.exchanges.excluded")) == (FIRST, FIRST)
