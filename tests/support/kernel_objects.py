"""Which BPF programs and links there are on the machine, by the kernel's ids, which it does not give twice."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from support.maps import libbpf


def programs() -> set[int]:
    return set(_ids("bpf_prog_get_next_id"))


def links() -> set[int]:
    return set(_ids("bpf_link_get_next_id"))


def _ids(successor: str) -> Iterator[int]:
    number = ctypes.c_uint32(0)
    while not getattr(libbpf(), successor)(number, ctypes.byref(number)):
        yield number.value
