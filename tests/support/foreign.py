"""Descriptors of another process, as this process's own: pidfd_getfd(2)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_SYS_PIDFD_GETFD = 438  # x86-64
#: how many are open here at a time, below the usual limit of 1,024
_AT_ONCE = 500

_libc = ctypes.CDLL(None, use_errno=True)


def sockets_of(pid: int) -> Iterator[Sequence[int]]:
    """All its sockets, some at a time. They are the very sockets of the process; here they are closed at the next ones."""
    folder = Path(f"/proc/{pid}/fd")
    theirs = [int(entry.name) for entry in folder.iterdir() if os.readlink(entry).startswith("socket:")]
    process = os.pidfd_open(pid)
    try:
        for begin in range(0, len(theirs), _AT_ONCE):
            ours = [_copy(process, descriptor) for descriptor in theirs[begin : begin + _AT_ONCE]]
            try:
                yield ours
            finally:
                for descriptor in ours:
                    os.close(descriptor)
    finally:
        os.close(process)


def _copy(process: int, descriptor: int) -> int:
    copy: int = _libc.syscall(_SYS_PIDFD_GETFD, process, descriptor, 0)
    if copy < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return copy
