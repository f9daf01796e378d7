"""However an application calls the kernel to move its bytes: the exchanges are the same, exact in sizes and counts."""

from __future__ import annotations

import ctypes
import errno
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from support.connected import assert_exchanged, connected
from support.exchanges import of_kind

pytestmark = pytest.mark.requires_bpf

# include/linux/socket.h and include/uapi/asm-generic/socket.h: what Python has no names for
SO_ZEROCOPY = 60
MSG_ZEROCOPY = 0x4000000
TCP_ZEROCOPY_RECEIVE = 35

#: Of the exchanges of a connection: what can be read in one piece, and what cannot.
SIZES = [(60, 40), (200_000, 50), (70, 300_000), (80, 90)]
LIBC = ctypes.CDLL(None, use_errno=True)


def send_in_two(connection: socket.socket, message: bytes) -> None:
    half = len(message) // 2
    connection.sendall(message[:half])
    time.sleep(0.02)
    connection.sendall(message[half:])


def request(number: int, size: int) -> bytes:
    return f"GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode().ljust(size, b".")


def converse(
    client: socket.socket, server: socket.socket, read: Callable[[socket.socket, int], None],
    send: Callable[[socket.socket, bytes], None] = send_in_two,
) -> None:  # fmt: skip
    """Exchanges of SIZES. read: all of a message of so many bytes."""

    def serve() -> None:
        for request_size, response_size in SIZES:
            read(server, request_size)
            send(server, bytes(response_size))

    serving = Thread(target=serve, daemon=True)
    serving.start()
    for number, (request_size, response_size) in enumerate(SIZES):
        send(client, request(number, request_size))
        read(client, response_size)
    serving.join(10)
    assert not serving.is_alive()


def peek_first(connection: socket.socket, size: int) -> None:
    """Each byte is looked at twice or more before it is read."""
    while size:
        assert connection.recv(size, socket.MSG_PEEK)
        size -= len(connection.recv(len(connection.recv(1000, socket.MSG_PEEK))))


def nothing_first(connection: socket.socket, size: int) -> None:
    """Before each read one of 0 bytes, while some are queued. Python's recv(0) makes no call."""
    while size:
        assert connection.recv(1, socket.MSG_PEEK)
        assert LIBC.recv(connection.fileno(), None, 0, 0) == 0
        size -= len(connection.recv(min(size, 1000)))


def wait_for_all(connection: socket.socket, size: int) -> None:
    assert len(connection.recv(size, socket.MSG_WAITALL)) == size


def never_wait(connection: socket.socket, size: int) -> None:
    """Until there is nothing left to read, each time."""
    while size:
        select.select([connection], [], [], 5)
        with suppress(BlockingIOError):
            while True:
                part = connection.recv(1000, socket.MSG_DONTWAIT)
                assert part
                size -= len(part)


def wait_for_some(connection: socket.socket, size: int) -> None:
    """Bytes arrive without anyone being told, up to SO_RCVLOWAT."""
    while size:
        lowest = min(size, 1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, lowest)
        select.select([connection], [], [], 5)
        part = connection.recv(size, socket.MSG_DONTWAIT)
        assert len(part) >= lowest
        size -= len(part)


def scatter(connection: socket.socket, size: int) -> None:
    """Into many more buffers than are looked at."""
    while size:
        buffers = [bytearray(min(size, 600) // 20) for _ in range(19)] + [bytearray(min(size, 600) // 20 or 1)]
        size -= connection.recvmsg_into(buffers)[0]


def throw_away(connection: socket.socket, size: int) -> None:
    """What the buffer holds is not what was received."""
    buffer = ctypes.create_string_buffer(request(999, size), size)
    while size:
        taken = LIBC.recv(connection.fileno(), buffer, size, socket.MSG_TRUNC)
        assert taken > 0
        size -= taken


class ZerocopyReceive(ctypes.Structure):
    """struct tcp_zerocopy_receive of include/uapi/linux/tcp.h."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("recv_skip_hint", ctypes.c_uint32),
        ("inq", ctypes.c_uint32),
        ("err", ctypes.c_int32),
        ("copybuf_address", ctypes.c_uint64),
        ("copybuf_len", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("msg_control", ctypes.c_uint64),
        ("msg_controllen", ctypes.c_uint64),
        ("msg_flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


def by_an_option(connection: socket.socket, size: int) -> None:
    """getsockopt(TCP_ZEROCOPY_RECEIVE), which copies what is no whole page, and runs no hook."""
    buffer = ctypes.create_string_buffer(1 << 20)
    while size:
        select.select([connection], [], [], 5)
        asked = ZerocopyReceive(copybuf_address=ctypes.addressof(buffer), copybuf_len=len(buffer))
        length = ctypes.c_uint32(ctypes.sizeof(asked))
        option = connection.fileno(), socket.IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE
        assert LIBC.getsockopt(*option, ctypes.byref(asked), ctypes.byref(length)) == 0
        assert asked.copybuf_len > 0
        size -= asked.copybuf_len


@pytest.mark.parametrize(
    "read", [peek_first, nothing_first, wait_for_all, never_wait, wait_for_some, scatter, throw_away, by_an_option]
)
def test_however_it_is_read_it_is_one_exchange(tmp_path: Path, read: Callable[[socket.socket, int], None]) -> None:
    with connected(tmp_path) as (agent, client, server):
        converse(client, server, read)
        spans = assert_exchanged(agent, SIZES)
    paths = [span["attributes"].get("url.path") for span in of_kind(spans, "SERVER")]
    if read in (throw_away, by_an_option):  # no process ever had what follows the first read, or no hook told of it
        assert not set(paths) - {"/0", "/1", "/2", "/3", None}
    else:
        assert paths == ["/0", "/1", "/2", "/3"]


def gather(connection: socket.socket, message: bytes) -> None:
    """From many more buffers than are looked at; the beginning is in the first 12, byte by byte."""
    buffers = [message[at : at + 1] for at in range(12)] + [message[12:]]
    sent = connection.sendmsg(buffers)
    connection.sendall(message[sent:])


def without_copy(connection: socket.socket, message: bytes) -> None:
    """MSG_ZEROCOPY, and then what the error queue says about it: 0 bytes, with FIN neither sent nor received."""
    connection.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    sends = at = 0
    while at < len(message):
        at += connection.send(message[at:], MSG_ZEROCOPY)
        sends += 1
    while sends:
        polling = select.poll()
        polling.register(connection, 0)  # POLLERR
        assert polling.poll(5000)
        data, ancillary, *_ = connection.recvmsg(0, 512, socket.MSG_ERRQUEUE)
        assert data == b""
        (notice,) = ancillary
        # struct sock_extended_err: the first and the last send that it tells of
        first, last = (int.from_bytes(notice[2][at : at + 4], "little") for at in (8, 12))
        sends -= last - first + 1


@pytest.mark.parametrize("send", [gather, without_copy])
def test_however_it_is_sent_it_is_one_exchange(tmp_path: Path, send: Callable[[socket.socket, bytes], None]) -> None:
    with connected(tmp_path) as (agent, client, server):
        converse(client, server, wait_for_all, send)
        spans = assert_exchanged(agent, SIZES)
    assert [span["attributes"]["url.path"] for span in of_kind(spans, "SERVER")] == ["/0", "/1", "/2", "/3"]


def test_what_is_read_after_the_end_of_the_stream_has_arrived_is_answered(tmp_path: Path) -> None:
    with connected(tmp_path) as (agent, client, server):
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        server.sendall(b"the answer")
        server.close()
        time.sleep(0.05)
        assert LIBC.recv(client.fileno(), None, 0, 0) == 0
        for part in (b"the", b" answer", b"", b""):
            time.sleep(0.02)
            assert client.recv(len(part) or 100) == part
        assert_exchanged(agent, [(8, 10)])


def test_interrupted_calls(tmp_path: Path) -> None:
    """A receive that is interrupted moves nothing; a send that is has moved a part of its bytes."""
    size = 30_000_000
    interrupted = 0

    def count(*_: object) -> None:
        nonlocal interrupted
        interrupted += 1

    def answer_slowly(server: socket.socket) -> None:
        time.sleep(0.2)
        wait_for_all(server, size)
        time.sleep(0.2)
        server.sendall(b"answer")

    before = signal.signal(signal.SIGALRM, count)
    try:
        with connected(tmp_path) as (agent, client, server):
            serving = Thread(target=answer_slowly, args=(server,), daemon=True)
            serving.start()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            message = bytes(size)
            sent = LIBC.send(client.fileno(), message, size, 0)
            assert 0 < sent < size
            client.sendall(message[sent:])
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert LIBC.recv(client.fileno(), ctypes.create_string_buffer(100), 100, 0) == -1
            assert ctypes.get_errno() == errno.EINTR
            assert client.recv(100) == b"answer"
            serving.join(10)
            assert_exchanged(agent, [(size, 6)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted == 2


@pytest.mark.parametrize("take", ["inline", "read", "left"])
def test_urgent_data_in_the_middle_of_a_request(tmp_path: Path, take: str) -> None:
    """The urgent byte counts as one of the request's, whether it is read in its place, on its own or never."""
    with connected(tmp_path) as (agent, client, server):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, take == "inline")
        for number in range(5):
            client.sendall(b"ques")
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"tion" + b"." * number)
            wanted = (b"ques!tion" if take == "inline" else b"question") + b"." * number
            got = b""
            while len(got) < len(wanted):
                got += server.recv(100)
                if take == "read" and got == b"ques":
                    assert server.recv(1, socket.MSG_OOB) == b"!"
            assert got == wanted
            server.sendall(b"answer")
            wait_for_all(client, 6)
        assert_exchanged(agent, [(9 + number, 6) for number in range(5)])
