"""Trace and span ids that both ends of a connection compute alone.

An exchange is named by where its request begins in the client's byte stream, which both ends know: the client's
address and port, the TCP sequence number and the 64-bit position. All ids are outputs of one keyed hash of it,
SipHash-1-3 over five little-endian 64-bit words:

    0, 1  client address, 16 bytes in network order, IPv4 as ::ffff:a.b.c.d
    2     client port in bits 0 to 15, sequence number of the request's first byte in bits 16 to 47
    3     position of the request's first byte
    4     loopback clients: inode of the network namespace XOR the boot id; others: 0

Loopback addresses mean something else in every network namespace of every machine, hence word 4.

The trace id's low half is output 0 and its high half output 1, so its low 56 bits are uniform, as consistent
probability sampling wants them, and the kernel needs one output to decide. The client's and the server's span ids
are outputs 2 and 3. bpf/siphash.h defines the outputs and computes the same.

An id of 0 is invalid (W3C Trace Context 3.2.2). A high half or a span id that comes out as 0, which has the odds of
2**-64, becomes 1; the low half is never touched, because the kernel decided by it.
"""

from __future__ import annotations

import uuid
from ctypes import byref
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..native.library import addresses, library, records_of
from ..pipeline.spans import UInt64Array

#: Published, so that agents without a configured key agree. A secret key keeps others from predicting trace ids.
DEFAULT_KEY: Final = b"wirespan exchange"[:16]
KEY_SIZE: Final = 16


def boot_id(proc: Path = Path("/proc")) -> int:
    """This boot's random id, its two halves folded by XOR into 64 bits."""
    whole = uuid.UUID((proc / "sys/kernel/random/boot_id").read_text().strip()).int
    return (whole >> 64) ^ (whole & (1 << 64) - 1)


class IdSource:
    """Computes the ids of exchanges. Stateless between calls."""

    def __init__(self, key: bytes, boot_id: int) -> None:
        """``key``: 16 bytes, the same in all agents. ``boot_id``: see :func:`boot_id`. ValueError for another size."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"the key of ids has {KEY_SIZE} bytes, not {len(key)}")
        self._key = np.frombuffer(key, np.uint64)
        self._boot_id = boot_id

    def of_records(self, records: npt.NDArray[np.void]) -> tuple[UInt64Array, UInt64Array, UInt64Array]:
        """Trace ids, client span ids and server span ids of n records of the kernel.

        Returns (n, 2) uint64, high half first, and twice (n,) uint64; none is 0.
        """
        trace_id = np.empty((len(records), 2), np.uint64)
        client, server = np.empty(len(records), np.uint64), np.empty(len(records), np.uint64)
        library().exchange_ids(
            byref(records_of(records)), *addresses(self._key), self._boot_id, *addresses(trace_id, client, server)
        )
        return trace_id, client, server
