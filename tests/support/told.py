"""bpf/status.h compiled for the host: what the kernel tells of an exchange by its first bytes."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import c_uint8, c_uint32, c_uint64
from pathlib import Path
from typing import NamedTuple

from support.compiling import clang

ROOT = Path(__file__).parents[2]

#: enum protocol
UNKNOWN, RESP, TLS, HTTP2, HTTP1, DNS, POSTGRESQL, MYSQL, MEMCACHED = range(9)
#: enum status_class
NONE, INFORMATIONAL, SUCCESS, REDIRECTION, CLIENT_ERROR, SERVER_ERROR, ERROR = range(7)
TCP, UDP = 6, 17
#: captured of any message; of a request that looks like text more
HEAD, TEXT_HEAD = 64, 256


class Told(NamedTuple):
    protocol: int
    status: int


class Teller:
    """Made in a folder for what is compiled."""

    def __init__(self, folder: Path) -> None:
        path = folder / "status.so"
        flags = [
            "-g",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-function",
            f"-I{ROOT}/bpf",
            "-shared",
            "-fPIC",
        ]
        subprocess.run([clang(), *flags, f"{ROOT}/tests/host/histogram_host.c", "-o", path], check=True)
        self.library = ctypes.CDLL(str(path))

    def tell(self, request: bytes, response: bytes, protocol: int = UNKNOWN, transport: int = TCP) -> Told:
        found = self._classify(request, response, protocol, transport)
        return Told(found >> 8 & 0xFF, found & 0xFF)

    def is_farewell(self, request: bytes) -> bool:
        return bool(self._classify(request, b"", UNKNOWN, TCP) >> 16)

    def random(self, seed: int, count: int, request: bytes = b"", response: bytes = b"") -> list[int]:
        """How many of random exchanges, which begin so, are told to be of each protocol."""
        found = (c_uint64 * 9)()
        given = c_uint32(min(len(request), len(response)))
        self.library.classify_random(c_uint64(seed), c_uint64(count), request, response, given, found)
        return list(found)

    def _classify(self, request: bytes, response: bytes, protocol: int, transport: int) -> int:
        head, answer = request[:TEXT_HEAD], response[:HEAD]
        return int(
            self.library.classify(
                *(head, c_uint32(len(head)), c_uint64(len(request))),
                *(answer, c_uint32(len(answer)), c_uint64(len(response))),
                *(c_uint8(protocol), c_uint8(transport)),
            )
        )
