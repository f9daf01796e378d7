"""sendmmsg and recvmmsg, which the socket module lacks. x86-64."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

MSG_WAITFORONE: Final = 0x10000
ROOM: Final = 2048

_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
    )


class Messages:
    """Room for so many messages, used again at every call."""

    def __init__(self, count: int) -> None:
        self._data = [ctypes.create_string_buffer(ROOM) for _ in range(count)]
        self._names = [ctypes.create_string_buffer(28) for _ in range(count)]
        self._vectors = (_Vector * count)()
        self._messages = (_Message * count)()
        for index, message in enumerate(self._messages):
            message.vectors = ctypes.addressof(self._vectors[index])
            message.vector_count = 1
            self._vectors[index].base = ctypes.addressof(self._data[index])

    def receive(self, server: socket.socket) -> list[tuple[bytes, bytes]]:
        """At least one datagram, and the raw address of the sender of each."""
        for message, name, vector in zip(self._messages, self._names, self._vectors, strict=True):
            message.name, message.name_length, vector.length = ctypes.addressof(name), len(name), ROOM
        count = self._call(_libc.recvmmsg, server, len(self._data), MSG_WAITFORONE, None)
        return [
            (self._data[i].raw[: self._messages[i].length], self._names[i].raw[: self._messages[i].name_length])
            for i in range(count)
        ]

    def send(self, client: socket.socket, datagrams: Sequence[tuple[bytes, bytes]]) -> None:
        """All of them, in one call; an empty address on a connected socket."""
        for index, (data, name) in enumerate(datagrams):
            self._data[index].raw = data
            self._vectors[index].length = len(data)
            if name:
                self._names[index].raw = name
            self._messages[index].name = ctypes.addressof(self._names[index]) if name else None
            self._messages[index].name_length = len(name)
        sent = self._call(_libc.sendmmsg, client, len(datagrams), 0)
        assert sent == len(datagrams), sent

    def _call(self, function: Any, on: socket.socket, count: int, *arguments: Any) -> int:
        done = int(function(on.fileno(), ctypes.byref(self._messages), ctypes.c_uint(count), *arguments))
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return done


def raw_address(address: str, port: int) -> bytes:
    """As the kernel has it: struct sockaddr_in or sockaddr_in6."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    head = struct.pack("=H", family) + struct.pack("!H", port)
    return head + packed + bytes(8) if len(packed) == 4 else head + bytes(4) + packed + bytes(4)
