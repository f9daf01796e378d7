"""Gives memory that has been freed back to the system: glibc's malloc keeps it otherwise.

A request of some hundred kilobytes is built and freed many times a second, in several threads. glibc answers the first
such free by raising its thresholds for mmap and trimming, up to 32 and 64 MiB, and gives each thread an arena of its
own: a peak, such as a backend that was slow for a moment, is then kept for good. Setting a threshold also ends that
adjustment. Measured under the load of ``bench/memory.py``, PSS less the rings: 71 MB, and 100 MB without.
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
    Parameter.M_TRIM_THRESHOLD: 128 << 10,
    Parameter.M_MMAP_THRESHOLD: 256 << 10,
    Parameter.M_ARENA_MAX: 2,
}


def return_freed_memory() -> None:
    """Tell glibc so; call it before the first thread starts. musl, whose malloc keeps little, has no mallopt."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in _SETTINGS.items():
        if not mallopt(ctypes.c_int(parameter), ctypes.c_int(value)):
            logger.warning("malloc refused a setting", extra={"parameter": parameter.name, "value": value})
