"""Why a run ends, or takes another configuration: signals, and exceptions that left a thread.

They go into a ``SimpleQueue`` because its ``put`` may be called from a signal handler, where ``Event.set`` can deadlock with the
``wait`` it interrupts.

SIGHUP means another configuration, as for daemons. But a terminal that is closed sends it, too, and then nobody is left who could
end the run: so who began on a terminal that is gone stops.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Final

logger = logging.getLogger(__name__)

#: exit statuses
OK, FAILED = 0, 1
#: no exit status
RELOAD: Final = -1
_KILLED_BY_SIGINT: Final = 128 + signal.SIGINT


@contextmanager
def reasons(queue: SimpleQueue[int]) -> Iterator[None]:
    """Put the exit status into the queue when a signal comes, or when a thread dies of an exception, and RELOAD for SIGHUP."""
    interrupts, on_terminal = 0, _has_terminal()

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            os._exit(_KILLED_BY_SIGINT)
        queue.put(OK)

    def on_hangup(number: int, frame: FrameType | None) -> None:
        queue.put(OK if on_terminal and not _has_terminal() else RELOAD)

    def on_dead_thread(dead: threading.ExceptHookArgs) -> None:
        name = dead.thread.name if dead.thread else "unknown"
        error = dead.exc_value or dead.exc_type()
        logger.error("A thread failed; stopping", exc_info=error, extra={"thread_name": name})
        queue.put(FAILED)

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, on_hangup)
    thread_hook, threading.excepthook = threading.excepthook, on_dead_thread
    try:
        yield
    finally:
        threading.excepthook = thread_hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
