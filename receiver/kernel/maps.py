"""Maps of a BPF object, by system calls; rings are read through memory instead, see ring.py."""

from __future__ import annotations

import ctypes
import errno
from typing import Any

import numpy as np
import numpy.typing as npt

from .library import BpfError, Pointer, library, possible_cpus


class Map(Pointer):
    """A map of an object, usable until that is closed. Keys and values are bytes of exactly the map's sizes."""

    def __init__(self, pointer: int) -> None:
        self.name: str = library().get("bpf_map__name", pointer).decode()
        super().__init__(pointer, f"map {self.name}")
        self.key_size = int(library().get("bpf_map__key_size", pointer))
        self.value_size = int(library().get("bpf_map__value_size", pointer))

    @property
    def fd(self) -> int:
        """The descriptor of the created map; BpfError before the load."""
        return library().call(f"use map {self.name} before it is created", "bpf_map__fd", self.pointer)

    @property
    def max_entries(self) -> int:
        """Entries at most; of a ring buffer, its bytes."""
        return int(library().get("bpf_map__max_entries", self.pointer))

    def set_max_entries(self, count: int) -> None:
        """Only before the load. A ring buffer takes a power of two of pages, in bytes."""
        library().call(f"resize map {self.name} to {count}", "bpf_map__set_max_entries", self.pointer, count)

    def lookup(self, key: bytes) -> bytes | None:
        """The value, None if there is no such key. Of a per-CPU map: BpfError."""
        return self._lookup(key, self.value_size)

    def lookup_per_cpu(self, key: bytes, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
        """The values of a per-CPU map, one for each possible CPU, shape (CPUs,); None if there is no such key."""
        element = np.dtype(dtype)
        if element.itemsize != self.value_size:
            hint = f"its values have {self.value_size} bytes"
            raise BpfError(f"read map {self.name} as {element}", errno.EINVAL, hint=hint)
        stride = (self.value_size + 7) // 8 * 8  # the kernel aligns each CPU's value
        data = self._lookup(key, stride * possible_cpus())
        return None if data is None else np.ndarray((possible_cpus(),), element, data, strides=(stride,)).copy()

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key, new or not. BpfError E2BIG when the map is full."""
        self._operate("update", "bpf_map__update_elem", key, len(key), value, len(value), 0)

    def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        return self._found("delete from", "bpf_map__delete_elem", key, len(key), 0)

    def _lookup(self, key: bytes, size: int) -> bytes | None:
        value = ctypes.create_string_buffer(size)
        return value.raw if self._found("look up in", "bpf_map__lookup_elem", key, len(key), value, size, 0) else None

    def _found(self, verb: str, function: str, *arguments: Any) -> bool:
        try:
            self._operate(verb, function, *arguments)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def _operate(self, verb: str, function: str, *arguments: Any) -> None:
        # These functions of libbpf compare the sizes given with the map's, so nothing is read beyond the bytes.
        library().call(f"{verb} map {self.name}", function, self.pointer, *arguments)
