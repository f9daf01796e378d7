"""The state machine of bpf/exchange.h, compiled for the host and driven event by event."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from support.compiling import clang
from wirespan.receiver.kernel.btf import Btf
from wirespan.receiver.kernel.libbpf import BpfObject

ROOT = Path(__file__).parents[2]
CLIENT, SERVER = 1, 2
SENT, RECEIVED = 0, 1
IDLE, JOINED, REQUEST, RESPONSE = 0, 1, 2, 3
CLOSED, TIMEOUT = 1, 3
SEND_START_UNKNOWN, PIPELINED = 2, 4
TIMED_BY_PACKET = 1
SECOND = 1_000_000_000

#: a reply and a command of Redis
NIL = b"$-1\r\n"
GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"


def compiled(folder: Path) -> Machine:
    """The state machine as a shared object in this folder, with the dtypes of its structs."""
    library, layout = folder / "exchange.so", folder / "layout.o"
    flags = [clang(), "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/bpf"]
    subprocess.run([*flags, "-shared", "-fPIC", f"{ROOT}/tests/host/exchange_host.c", "-o", library], check=True)
    subprocess.run([*flags, "-target", "bpf", "-c", f"{ROOT}/tests/host/layout.c", "-o", layout], check=True)
    return Machine(ctypes.CDLL(str(library)), BpfObject.open(layout).btf)


class Machine:
    """The compiled library and the dtypes of its structs."""

    def __init__(self, library: ctypes.CDLL, btf: Btf) -> None:
        self.library = library
        self.turns = btf.dtype("turns")
        self.output = btf.dtype("output")
        self.counters = btf.enum("counter")
        assert self.turns.itemsize == library.turns_size()
        assert self.output.itemsize == library.output_size()
        library.command_size.restype = ctypes.c_uint64

    def socket(self, role: int, sent: int = 0, received: int = 0, joined: bool = False) -> Socket:
        """joined: in the middle of an exchange."""
        socket = Socket(self, role, sent, received)
        if joined:
            socket.turns["phase"] = JOINED
        return socket


class Socket:
    """A TCP socket as the hooks see it: the kernel's sequence numbers, and the state machine beside them."""

    def __init__(self, machine: Machine, role: int, sent: int, received: int) -> None:
        self.machine = machine
        self.now = 1000
        self.base = [0xFFFFFFF0, 0x12345678]  # the first wraps at once
        self.moved = [sent, received]
        self.outputs: list[Any] = []
        self.turns = np.zeros(1, machine.turns)
        machine.library.turns_init(
            self._turns(), role, *map(ctypes.c_uint32, self.base), ctypes.c_uint64(sent), ctypes.c_uint64(received)
        )

    def _turns(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.turns.ctypes.data)

    def _call(self, function: str, *arguments: Any) -> Any:
        out = np.zeros(1, self.machine.output)
        getattr(self.machine.library, function)(self._turns(), *arguments, ctypes.c_void_p(out.ctypes.data))
        self.outputs.append(out[0])
        return out[0]

    def tick(self, ns: int = 10) -> ctypes.c_uint64:
        self.now += ns
        return ctypes.c_uint64(self.now)

    # the steps of which I/Os are made
    def enter(self) -> None:
        self.machine.library.send_began(self._turns(), self.tick())

    def move(self, direction: int, size: int) -> None:
        self.moved[direction] += size

    def hook(self, direction: int, payload: bytes, size: int | None = None) -> Any:
        return self._call(
            "io_returned", ctypes.c_uint8(direction), self.tick(), payload,
            ctypes.c_uint64(len(payload) if size is None else size), ctypes.c_uint32(len(payload)), self.sequence(),
        )  # fmt: skip

    def sequence(self) -> Any:
        """The kernel's sequence numbers behind the last byte that moved, by direction."""
        return (ctypes.c_uint32 * 2)(
            *((base + moved) & 0xFFFFFFFF for base, moved in zip(self.base, self.moved, strict=True))
        )

    # whole I/Os
    def send(self, payload: bytes, size: int | None = None) -> Any:
        self.enter()
        self.move(SENT, len(payload) if size is None else size)
        return self.hook(SENT, payload, size)

    def receive(self, payload: bytes, size: int | None = None) -> Any:
        self.move(RECEIVED, len(payload) if size is None else size)
        return self.hook(RECEIVED, payload, size)

    def counted(self, counter: str) -> int:
        """How much the last event counted."""
        return int(self.outputs[-1]["counts"][self.machine.counters[f"COUNT_{counter}"]])

    def arrive(self, received_to: int) -> Any:
        return self._call("arrived", ctypes.c_uint64(self.moved[RECEIVED]), ctypes.c_uint64(received_to), self.tick())

    def end(self, outcome: int = CLOSED) -> Any:
        return self._call("ended", ctypes.c_uint8(outcome), self.tick(), self.sequence())

    def quiet(self, after: int, unread: bool = False) -> Any:
        self.now += after
        return self._call(
            "quiet", self.tick(0), ctypes.c_uint64(SECOND), ctypes.c_uint64(30 * SECOND), ctypes.c_int(unread),
            self.sequence(),
        )  # fmt: skip

    @property
    def phase(self) -> int:
        return int(self.turns["phase"][0])

    @property
    def exchanges(self) -> list[Any]:
        return [out["exchange"] for out in self.outputs if out["finished"]]


def heads(exchange: Any) -> tuple[bytes, bytes]:
    request = exchange["request_head"].tobytes()[: int(exchange["request_captured"])]
    return request, exchange["response_head"].tobytes()[: int(exchange["response_captured"])]


def sizes(exchange: Any) -> tuple[int, int]:
    return int(exchange["request_size"]), int(exchange["response_size"])
