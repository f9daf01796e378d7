"""Maps of a BPF object, by system calls; rings are read through memory instead, see ring.py."""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .library import BpfError, Pointer, library, possible_cpus

#: enum bpf_map_type: hash, array, LRU hash
_PER_CPU = (5, 6, 10)


class Map(Pointer):
    """A map of an object, usable until that is closed. Keys and values are bytes of exactly the map's sizes."""

    def __init__(self, pointer: int) -> None:
        self.name: str = library().get("bpf_map__name", pointer).decode()
        super().__init__(pointer, f"map {self.name}")
        self.key_size = int(library().get("bpf_map__key_size", pointer))
        self.value_size = int(library().get("bpf_map__value_size", pointer))
        self._per_cpu_type = library().get("bpf_map__type", pointer) in _PER_CPU
        self.copies = possible_cpus() if self._per_cpu_type else 1  # of each value

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
        """The values of a per-CPU map, one for each possible CPU, shape (CPUs,); None if there is no such key. Here and below
        another map is as one of a machine with one CPU."""
        return self._per_cpu(self._lookup(key, self._stride(dtype) * self.copies), dtype)

    def take_per_cpu(self, key: bytes, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
        """The same, and the key is removed in the same moment (of hash maps since Linux 5.14)."""
        return self._per_cpu(self._take(key, self._stride(dtype) * self.copies), dtype)

    def items_per_cpu(self, dtype: npt.DTypeLike, room: int) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """All of a per-CPU hash map or array, a part at a time: keys, (n, key_size) bytes, and values, (n, CPUs). A key that is added
        or removed meanwhile may be met or not; no other one is missed, or met twice.

        room: bytes for the values of one part; more are taken where the map needs it. Both arrays are used again.
        """
        stride, cpus = self._stride(dtype), self.copies
        count = max(16, room // (stride * cpus))
        position, following = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
        begun = at_end = False
        while not at_end:
            keys = np.empty((count, self.key_size), np.uint8)
            values = np.empty((count, cpus, stride), np.uint8)
            found = ctypes.c_uint32(count)
            try:
                library().call(
                    f"read map {self.name}",
                    "bpf_map_lookup_batch",
                    *(self.fd, position if begun else None, following),
                    *(keys.ctypes.data, values.ctypes.data, ctypes.byref(found), None),
                )
            except BpfError as error:
                if error.errno == errno.ENOSPC:  # more keys with one hash than there is room for
                    count *= 2
                    continue
                if error.errno != errno.ENOENT:
                    raise
                at_end = True
            position, following, begun = following, position, True
            n = found.value
            yield keys[:n], np.ndarray((n, cpus), dtype, values, strides=(stride * cpus, stride))

    def sums_per_cpu(self) -> npt.NDArray[np.uint64]:
        """Of a per-CPU array of u64, each sum over the CPUs, shape (max_entries,)."""
        sums = np.zeros(self.max_entries, np.uint64)
        for keys, values in self.items_per_cpu("<u8", self.max_entries * 8 * self.copies):
            sums[keys.view("<u4")[:, 0]] = values.sum(axis=1)
        return sums

    def _stride(self, dtype: npt.DTypeLike) -> int:
        element = np.dtype(dtype)
        if element.itemsize != self.value_size:
            hint = f"its values have {self.value_size} bytes"
            raise BpfError(f"read map {self.name} as {element}", errno.EINVAL, hint=hint)
        # The kernel aligns each CPU's value.
        return (self.value_size + 7) // 8 * 8 if self._per_cpu_type else self.value_size

    def _per_cpu(self, data: bytes | None, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
        if data is None:
            return None
        return np.ndarray((self.copies,), dtype, data, strides=(self._stride(dtype),)).copy()

    def mapped(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """All of an array that is BPF_F_MMAPABLE, (entries * elements of an entry,); mapped as long as the array is."""
        size = self.max_entries * self.value_size
        return np.frombuffer(
            mmap.mmap(self.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE), dtype, size // np.dtype(dtype).itemsize
        )

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key, new or not. BpfError E2BIG when the map is full."""
        self._operate("update", "bpf_map__update_elem", key, len(key), value, len(value), 0)

    def delete(self, key: bytes) -> bool:
        """Remove a key; whether it was there."""
        return self._found("delete from", "bpf_map__delete_elem", key, len(key), 0)

    def _lookup(self, key: bytes, size: int) -> bytes | None:
        value = ctypes.create_string_buffer(size)
        return value.raw if self._found("look up in", "bpf_map__lookup_elem", key, len(key), value, size, 0) else None

    def _take(self, key: bytes, size: int) -> bytes | None:
        value = ctypes.create_string_buffer(size)
        taken = self._found("take from", "bpf_map__lookup_and_delete_elem", key, len(key), value, size, 0)
        return value.raw if taken else None

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
