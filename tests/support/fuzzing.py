"""Runs of random tests that can be repeated, and damage to what they draw."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def bounded_runs() -> Iterator[random.Random]:
    seed = int(os.environ.get("WIRESPAN_FUZZ_SEED", time.time_ns()))
    until = time.monotonic() + float(os.environ.get("WIRESPAN_FUZZ_SECONDS", "1"))
    while True:
        print("WIRESPAN_FUZZ_SEED =", seed)
        yield random.Random(seed)
        if time.monotonic() > until:
            return
        seed += 1


def damaged(source: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice((0, 0, 0, 1, 3))):
        if changed:
            at = source.randrange(len(changed))
            changed[at : at + source.randrange(3)] = source.randbytes(source.randrange(3))
    return bytes(changed)


@contextmanager
def growth() -> Iterator[Callable[[], int]]:
    """Tells by how many MB this process was larger, at its largest in the block, than at its begin (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")  # what was largest before does not count
    before = _kilobytes("VmRSS")
    yield lambda: max(0, _kilobytes("VmHWM") - before) // 1000


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
