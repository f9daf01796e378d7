"""Gives memory that has been freed back to the system: glibc's malloc keeps it otherwise.

A request of some hundred kilobytes is built and freed many times a second, in several threads. glibc answers the first
such free by raising its thresholds for mmap and trimming, up to 32 and 64 MiB, and gives each thread an arena of its
own: a peak, such as a backend that was slow for a moment, is then kept for good. Setting a threshold also ends that
adjustment. Measured within minutes under the load of ``bench/memory.py`` on a busy machine, PSS less the rings: 64 MB,
97 MB with thresholds of 8 and 32 MiB, 128 MB without. Much lower thresholds are no gain: with 128 and 256 KiB most
arrays of a batch are mapped, and paid for by page faults, anew each time, which took a tenth of the throughput.
"""

from __future__ import annotations

import ctypes
import logging
from enum import IntEnum

logger = logging.getLogger(__name__)


class Parameter(IntEnum):
    """malloc.h of glibc; mallopt(3)."""

    M_TRIM_THRESHOLD = -1
    M_MMAP_THRESHOLD = -3
    M_ARENA_MAX = -8


_SETTINGS = {
    Parameter.M_TRIM_THRESHOLD: 1 << 20,
    Parameter.M_MMAP_THRESHOLD: 1 << 20,
    Parameter.M_ARENA_MAX: 1,
}


def return_freed_memory() -> None:
    """Tell glibc so; call it before the first thread starts. musl, whose malloc keeps little, has no mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in _SETTINGS.items():
        if not mallopt(ctypes.c_int(parameter), ctypes.c_int(value)):
            logger.warning("malloc refused a setting", extra={"parameter": parameter.name, "value": value})
