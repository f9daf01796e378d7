"""An end for the process if components do not stop by their deadline."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from .reasons import FAILED

logger = logging.getLogger(__name__)

#: How much longer than its deadline a component may take before the process ends without it.
_OVERTIME_SECONDS: Final = 1.0


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """Inside of the block components stop, which have so much time."""
    watchdog = threading.Timer(seconds + _OVERTIME_SECONDS, _give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _give_up() -> None:
    logger.error("A component did not stop in time; ending without it")
    logging.shutdown()
    os._exit(FAILED)
