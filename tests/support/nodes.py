"""Starting servers of a test in a network namespace: what a process starts there, listens and connects there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.namespaces import Node

_CLONE_NEWNET = 0x40000000


@contextmanager
def inside(node: Node) -> Iterator[None]:
    """This thread, and the processes that it starts in the block, are in the node's network namespace."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _enter_namespace(Path("/run/netns", node.namespace))
        try:
            yield
        finally:
            _set_namespace(own)
    finally:
        os.close(own)


def _enter_namespace(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _set_namespace(descriptor)
    finally:
        os.close(descriptor)


def _set_namespace(descriptor: int) -> None:
    """os.setns, which Python has since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
