"""The first bytes of each message are found wherever they are: in the socket's queues, or in the application's buffer
when they have left these; and they are always those of that very message."""

from __future__ import annotations

import os
import random
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore, Thread

import pytest

from support.exchanges import assert_all_exported, assert_paired, of_kind, watch
from support.spans import Span

pytestmark = pytest.mark.requires_bpf

CONNECTIONS = 8
EXCHANGES = 250
END = b"\r\n\r\n"


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        yield listener


def read_message(connection: socket.socket) -> bytes:
    """Up to the empty line; b"" at the end of the stream."""
    message = b""
    while not message.endswith(END):
        part = connection.recv(4096)
        if not part:
            return b""
        message += part
    return message


def send_in_pieces(connection: socket.socket, message: bytes, numbers: random.Random) -> None:
    """By one call or several, each of one buffer or scattered."""
    cuts = sorted(numbers.randrange(1, len(message)) for _ in range(numbers.choice((0, 0, 0, 1, 2))))
    for begin, end in zip([0, *cuts], [*cuts, len(message)], strict=True):
        piece = message[begin:end]
        if numbers.random() < 0.3:
            middle = len(piece) // 2
            connection.sendmsg([piece[:middle], piece[middle:]])
        else:
            connection.sendall(piece)


def serve(listener: socket.socket, seed: int) -> None:
    """Answers ``GET /CODE/…`` with that status, some of them late so that requests wait unread."""
    numbers = random.Random(-seed)
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            if numbers.random() < 0.2:
                time.sleep(0.002)
            request = read_message(connection)
            if not request:
                return
            code = request.split(b"/")[1]
            padding = b"X-Padding: " + b"." * numbers.randrange(2000)
            send_in_pieces(connection, b"HTTP/1.1 " + code + b" Status\r\n" + padding + END, numbers)


def ask(port: int, seed: int) -> list[tuple[str, int]]:
    """The path and the status of each exchange of a connection."""
    numbers = random.Random(seed)
    asked = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(EXCHANGES):
            code = numbers.choice((200, 201, 204, 404, 500))
            path = f"/{code}/{seed}-{number}/" + "y" * numbers.choice((0, 3, 40, 120))
            send_in_pieces(connection, f"GET {path} HTTP/1.1\r\nHost: test".encode() + END, numbers)
            answer = read_message(connection)
            assert answer.startswith(b"HTTP/1.1 %d " % code)
            asked.append((path, code))
    return asked


def path_and_status(span: Span) -> tuple[str, int]:
    attributes = span["attributes"]
    url = attributes["url.path"] if span["kind"] == "SERVER" else attributes["url.full"]
    return "/" + url.removeprefix("http://").split("/", 1)[1], attributes["http.response.status_code"]


def test_heads_are_those_of_their_exchange_however_they_are_moved(tmp_path: Path) -> None:
    with listening() as listener, watch(tmp_path, listener.getsockname()[1]) as agent:
        servers = [Thread(target=serve, args=(listener, seed)) for seed in range(CONNECTIONS)]
        for server in servers:
            server.start()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            found = pool.map(ask, [listener.getsockname()[1]] * CONNECTIONS, range(CONNECTIONS))
            asked = sorted(entry for entries in found for entry in entries)
        for server in servers:
            server.join()
        spans = agent.stop()
        assert_all_exported(agent, 2 * CONNECTIONS * EXCHANGES)
    assert_paired(spans, CONNECTIONS * EXCHANGES)
    for kind in ("SERVER", "CLIENT"):
        assert sorted(map(path_and_status, of_kind(spans, kind))) == asked
    by_id = {span["span_id"]: span for span in spans}
    for server_span in of_kind(spans, "SERVER"):
        assert path_and_status(server_span) == path_and_status(by_id[server_span["parent_span_id"]])


def test_a_response_that_no_process_had_in_its_memory_is_recognised(tmp_path: Path) -> None:
    # What is acknowledged before the hook of its send runs, nobody has the bytes of. So the client acknowledges a
    # response with its next request, and makes that when the send has returned.
    returned = Semaphore(0)

    def serve_file(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, tempfile.TemporaryFile() as file:
            file.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0" + END)
            size = file.tell()
            file.flush()
            while read_message(connection):
                os.sendfile(connection.fileno(), file.fileno(), 0, size)
                returned.release()

    with listening() as listener, watch(tmp_path, listener.getsockname()[1]) as agent:
        server = Thread(target=serve_file, args=(listener,))
        server.start()
        with socket.create_connection(listener.getsockname()) as connection:
            for _ in range(60):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
                connection.sendall(b"GET / HTTP/1.1" + END)
                read_message(connection)
                assert returned.acquire(timeout=10)
        server.join()
        spans = agent.stop()
    statuses = Counter(span["attributes"].get("http.response.status_code") for span in of_kind(spans, "SERVER"))
    # A machine that is busy enough acknowledges some all the same: by a timer, 40 ms later.
    assert statuses.keys() <= {404, None}
    assert statuses[404] >= 50
