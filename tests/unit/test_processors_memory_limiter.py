"""The processor ``memory_limiter``: above its limit nothing passes, and everything is told or counted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.foreign_batches import encoded, every_span
from support.otlp_batches import batch_of
from support.waiting import wait_until
from wirespan.pipeline.component import Context, Outcome
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.memory import available_bytes, resident_bytes
from wirespan.pipeline.spans import SpanBatch
from wirespan.processors import memory_limiter as module
from wirespan.processors.memory_limiter import FACTORY, MemoryLimiter

MIB = 1024 * 1024


class Behind:
    def __init__(self) -> None:
        self.spans = 0

    def consume(self, batch: SpanBatch) -> None:
        self.spans += len(batch)

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.spans += len(batch)
        return Outcome.TAKEN


class Memory:
    """What the process is said to take."""

    def __init__(self) -> None:
        self.mib = 50
        self.collected = 0

    def collect(self) -> None:
        self.collected += 1


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    found = Memory()
    monkeypatch.setattr(module, "resident_bytes", lambda: found.mib * MIB)
    monkeypatch.setattr(module.gc, "collect", found.collect)
    return found


@contextmanager
def running(counters: Counters, **given: Any) -> Iterator[tuple[MemoryLimiter, Behind]]:
    behind = Behind()
    settings = FACTORY.config.model_validate({"check_interval": "10ms", **given})
    processor = FACTORY.create(settings, Context("limiter", counters, frozenset({"traces"}), "traces"), behind)
    processor.start()
    try:
        yield processor, behind
    finally:
        processor.shutdown(time.monotonic() + 5)


def test_above_the_soft_limit_senders_are_refused_and_spans_of_exchanges_dropped_until_it_is_below(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    with running(counters, limit_mib=100, spike_limit_mib=30) as (processor, behind):
        assert processor.consume_encoded(encoded(every_span(2))) is Outcome.TAKEN
        processor.consume(batch_of(3))
        assert behind.spans == 5
        memory.mib = 71
        wait_until("it refuses", lambda: processor.consume_encoded(encoded(every_span(2))) is Outcome.BUSY)
        processor.consume(batch_of(3))
        memory.mib = 70
        wait_until("it takes", lambda: processor.consume_encoded(encoded(every_span(2))) is Outcome.TAKEN)
    sums = counters.snapshot()
    assert sums["otelcol_processor_refused_spans", (("pipeline", "traces"), ("processor", "limiter"))] >= 2
    assert sums["wirespan.exchanges.dropped", (("reason", "memory_limit"),)] == 3
    assert memory.collected == 0
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "Memory is above the soft limit. Refusing data."
    ]


def test_above_the_hard_limit_garbage_is_collected_but_not_all_the_time(memory: Memory) -> None:
    memory.mib = 101
    with running(Counters(), limit_mib=100) as (processor, _):
        assert processor.consume_encoded(encoded(every_span(2))) is Outcome.BUSY
        time.sleep(0.1)
    assert memory.collected == 1


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"limit_mib": 100}, (80, 100)),
        ({"limit_mib": 100, "spike_limit_mib": 10}, (90, 100)),
        ({"limit_percentage": 50}, (400, 500)),
        ({"limit_percentage": 50, "spike_limit_percentage": 20}, (300, 500)),
        ({"limit_mib": 100, "limit_percentage": 50}, (80, 100)),
    ],
)
def test_limits_are_of_what_is_given(given: dict[str, int], limits: tuple[int, int]) -> None:
    soft, hard = FACTORY.config.model_validate(given).limits(1_000 * MIB)
    assert (soft // MIB, hard // MIB) == limits


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "needs limit_mib or limit_percentage"),
        ({"limit_mib": 10, "spike_limit_mib": 10}, "spike_limit_mib 10 is not less than limit_mib 10"),
        ({"limit_percentage": 10, "spike_limit_percentage": 10}, "spike_limit_percentage 10 is not less"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        FACTORY.config.model_validate(given)


MEMINFO = "MemTotal:       16000000 kB\nMemFree: 1 kB\n"


def machine(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, 16_000_000 * 1024),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n"}, 1000),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "500\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
            },
            500,
        ),
        ({"proc/self/cgroup": "4:cpu,memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "700\n"}, 700),
        ({"proc/self/cgroup": "4:memory:/host/path\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "800\n"}, 800),
        (
            {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63}\n"},
            16_000_000 * 1024,
        ),
    ],
)
def test_the_memory_that_there_is_is_that_of_the_narrowest_control_group(
    files: dict[str, str], available: int, tmp_path: Path
) -> None:
    assert available_bytes(machine(tmp_path, {"proc/meminfo": MEMINFO, **files})) == available


def test_resident_memory_is_that_of_this_process() -> None:
    before, held = resident_bytes(), bytearray(100 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    assert 90 * MIB < resident_bytes() - before < 120 * MIB
