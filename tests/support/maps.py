"""What an agent keeps in the kernel, looked at from outside."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

#: include/uapi/linux/bpf.h
_SK_STORAGE, _RINGBUF = 24, 27
_NAME_LENGTH = 16


class _MapInfo(ctypes.Structure):
    """The beginning of struct bpf_map_info."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * _NAME_LENGTH),
    )


@cache
def libbpf() -> ctypes.CDLL:
    return ctypes.CDLL("libbpf.so.1", use_errno=True)


def _socket_maps(name: str) -> Iterator[tuple[int, int]]:
    """A descriptor of each agent's map of that name, which the caller closes, and the size of its values."""
    number = ctypes.c_uint32(0)
    while not libbpf().bpf_map_get_next_id(number, ctypes.byref(number)):
        descriptor = libbpf().bpf_map_get_fd_by_id(number)
        info, size = _MapInfo(), ctypes.c_uint32(ctypes.sizeof(_MapInfo))
        if descriptor < 0:
            continue  # gone meanwhile
        libbpf().bpf_obj_get_info_by_fd(descriptor, ctypes.byref(info), ctypes.byref(size))
        if (info.type, info.name) == (_SK_STORAGE, name.encode()):
            yield descriptor, info.value_size
        else:
            os.close(descriptor)


def stored_sockets(descriptors: Sequence[int], name: str = "connections") -> int:
    """How many of these sockets of this process an agent keeps state of, in its map of that name."""
    found = 0
    for map_descriptor, size in _socket_maps(name):
        value = ctypes.create_string_buffer(size)
        for descriptor in descriptors:
            key = ctypes.c_int(descriptor)
            found += libbpf().bpf_map_lookup_elem(map_descriptor, ctypes.byref(key), value) == 0
        os.close(map_descriptor)
    return found


def charged_bytes(pid: int) -> int:
    """What the maps of an agent take in the kernel, without its ring buffers and without what is kept at sockets."""
    found = {}
    for information in Path(f"/proc/{pid}/fdinfo").iterdir():
        lines = (line.partition(":") for line in information.read_text().splitlines())
        fields = {name: value.strip() for name, _, value in lines}
        if "map_type" in fields and int(fields["map_type"]) != _RINGBUF:
            found[fields["map_id"]] = int(fields["memlock"])
    return sum(found.values())
