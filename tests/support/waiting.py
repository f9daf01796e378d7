"""Waiting for what another process does: until it is so, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_INTERVAL = 0.02


def wait_until(what: str, condition: Callable[[], T], timeout: float = 10.0) -> T:
    """The first true value of ``condition()``; AssertionError saying ``what`` did not happen after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(POLL_INTERVAL)
    return value
