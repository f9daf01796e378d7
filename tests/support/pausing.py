"""A process that does nothing for a while, as one that is paused or starved."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.waiting import wait_until


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """No thread of it runs in the block. SIGSTOP alone is not enough: until each has come to its halt it may still read
    from its sockets."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(f"process {pid} is stopped", lambda: _states(pid) == {"T"})
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    """Of its threads, see proc(5): the field behind the command, which is in parentheses."""
    return {path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}
