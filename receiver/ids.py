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
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ..pipeline.spans import UInt64Array

#: Published, so that agents without a configured key agree. A secret key keeps others from predicting trace ids.
DEFAULT_KEY: Final = b"wirespan exchange"[:16]
KEY_SIZE: Final = 16

Integers: TypeAlias = npt.NDArray[np.integer]

_FINAL_ROUNDS = 3
_WORDS = 5
_LAST_BLOCK = np.uint64((_WORDS * 8) << 56)
_MAPPED_LOOPBACK_MASK = np.uint64(0xFFFFFFFFFF)
_MAPPED_LOOPBACK = np.uint64(0x7FFFFF0000)  # the bytes 00 00 ff ff 7f of ::ffff:127.0.0.0/104
_V6_LOOPBACK = np.uint64(1 << 56)  # the last byte of ::1


def boot_id(proc: Path = Path("/proc")) -> int:
    """This boot's random id, its two halves folded by XOR into 64 bits."""
    whole = uuid.UUID((proc / "sys/kernel/random/boot_id").read_text().strip()).int
    return (whole >> 64) ^ (whole & (1 << 64) - 1)


class SipHash13:
    """SipHash-1-3 of n messages at once, with as many outputs as are asked for."""

    def __init__(self, key: bytes, size: int) -> None:
        """``key``: 16 bytes. ``size``: the number of messages."""
        key0, key1 = np.frombuffer(key, "<u8")
        start = (
            key0 ^ np.uint64(0x736F6D6570736575),
            key1 ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE),
            key0 ^ np.uint64(0x6C7967656E657261),
            key1 ^ np.uint64(0x7465646279746573),
        )
        self._v = tuple(np.full(size, word, np.uint64) for word in start)
        self._shifted = np.empty(size, np.uint64)

    def absorb(self, word: UInt64Array | np.uint64) -> None:
        """The next word of each message; the last one says the length, see bpf/siphash.h."""
        v0, _, _, v3 = self._v
        v3 ^= word
        self._round()
        v0 ^= word

    def output(self, index: int) -> UInt64Array:
        """Output ``index`` of each message, (n,) uint64, a new array; to be taken in order, from 0."""
        v0, v1, v2, v3 = self._v
        if index == 0:
            v2 ^= np.uint64(0xEE)
        else:
            v1 ^= np.uint64(0xEE - 0x11 * index)
        for _ in range(_FINAL_ROUNDS):
            self._round()
        result = v0 ^ v1
        result ^= v2
        result ^= v3
        return result

    def _round(self) -> None:
        v0, v1, v2, v3 = self._v
        v0 += v1
        self._rotate(v1, 13)
        v1 ^= v0
        self._rotate(v0, 32)
        v2 += v3
        self._rotate(v3, 16)
        v3 ^= v2
        v0 += v3
        self._rotate(v3, 21)
        v3 ^= v0
        v2 += v1
        self._rotate(v1, 17)
        v1 ^= v2
        self._rotate(v2, 32)

    def _rotate(self, value: UInt64Array, bits: int) -> None:
        np.right_shift(value, np.uint64(64 - bits), out=self._shifted)
        np.left_shift(value, np.uint64(bits), out=value)
        value |= self._shifted


class IdSource:
    """Computes the ids of exchanges. Stateless between calls."""

    def __init__(self, key: bytes, boot_id: int) -> None:
        """``key``: 16 bytes, the same in all agents. ``boot_id``: see :func:`boot_id`. ValueError for another size."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"the key of ids has {KEY_SIZE} bytes, not {len(key)}")
        self._key = key
        self._boot_id = np.uint64(boot_id)

    def of_exchanges(
        self,
        client_address: npt.NDArray[np.uint8],
        client_port: Integers,
        sequence: Integers,
        position: Integers,
        netns: Integers,
    ) -> tuple[UInt64Array, UInt64Array, UInt64Array]:
        """Trace ids, client span ids and server span ids of n exchanges.

        ``client_address`` is (n, 16), network order, IPv4 as ::ffff:a.b.c.d. The others are (n,): the client's port,
        the sequence number (modulo 2**32) and the 64-bit position of the request's first byte, and the inode of the
        network namespace, which counts for loopback clients only. Returns (n, 2) uint64, high half first, and twice
        (n,) uint64; none is 0.
        """
        address = np.ascontiguousarray(client_address).view("<u8")
        port_and_sequence = sequence.astype(np.uint64)
        port_and_sequence <<= np.uint64(16)
        port_and_sequence |= client_port.astype(np.uint64)
        scope = np.where(_is_loopback(address), netns.astype(np.uint64) ^ self._boot_id, np.uint64(0))
        state = SipHash13(self._key, len(address))
        for word in (address[:, 0], address[:, 1], port_and_sequence, position.astype(np.uint64), scope, _LAST_BLOCK):
            state.absorb(word)
        trace_id = np.empty((len(address), 2), np.uint64)
        trace_id[:, 1] = state.output(0)
        trace_id[:, 0] = _never_zero(state.output(1))
        return trace_id, _never_zero(state.output(2)), _never_zero(state.output(3))


def _is_loopback(address: UInt64Array) -> npt.NDArray[np.bool_]:
    """Which rows of (n, 2) address words are ::1 or ::ffff:127.0.0.0/104."""
    low = address[:, 1]
    loopback: npt.NDArray[np.bool_] = (address[:, 0] == 0) & (
        ((low & _MAPPED_LOOPBACK_MASK) == _MAPPED_LOOPBACK) | (low == _V6_LOOPBACK)
    )
    return loopback


def _never_zero(ids: UInt64Array) -> UInt64Array:
    return np.maximum(ids, np.uint64(1), out=ids)
