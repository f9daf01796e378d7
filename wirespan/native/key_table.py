"""A bounded memory of what was looked up before: 64-bit key to number. See key_table.h for how it forgets."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref

import numpy as np
import numpy.typing as npt

from .library import Generation, KeyTableStruct, address, library

Numbers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

#: what :meth:`KeyTable.find` gives for a key that is not known
UNKNOWN = -1


class KeyTable:
    """limit: entries in each of two generations, of 24 to 48 bytes. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        self._library = library()
        bits = max(2 * limit - 1, 1).bit_length()
        self._keys = np.zeros((2, 1 << bits), np.uint64)
        self._values = np.empty((2, 1 << bits), np.uint32)
        young, old = (Generation(address(k), address(v)) for k, v in zip(self._keys, self._values, strict=True))
        self._table = KeyTableStruct(young, old, limit, 0, bits)
        self.clear()

    def find(self, keys: Keys) -> Numbers:
        """(n,), ``UNKNOWN`` where a key is not known. keys: (n,), may be a field of records."""
        numbers = np.empty(len(keys), np.int64)
        self._library.key_table_find(byref(self._table), keys.ctypes.data, keys.strides[0], len(keys), address(numbers))
        return numbers

    def add(self, keys: Keys, numbers: Numbers) -> None:
        """Remember them; numbers are below 2**32 - 1."""
        self._library.key_table_add(byref(self._table), address(keys), address(numbers), len(keys))

    def clear(self) -> None:
        """Forget everything."""
        self._library.key_table_clear(byref(self._table))

    def recall(self, keys: Keys, make: Callable[[int], int]) -> Numbers:
        """The number of each key. ``make(row)`` is asked once for each key that is not known, which then is."""
        numbers = self.find(keys)
        rows = np.flatnonzero(numbers == UNKNOWN)
        if len(rows):
            made: dict[int, int] = {}
            for row, key in zip(rows.tolist(), keys[rows].tolist(), strict=True):
                number = made.get(key)
                if number is None:
                    number = made[key] = make(row)
                numbers[row] = number
            self.add(np.array(list(made), np.uint64), np.array(list(made.values()), np.int64))
        return numbers
