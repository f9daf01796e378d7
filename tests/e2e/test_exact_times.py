"""Times are the kernel's: they agree with what a server and a client measure themselves, whatever happens between."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from support import servers
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, of_kind, watch
from support.pausing import paused
from support.servers import Listening
from support.spans import Span
from support.waiting import wait_until

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.alone("times are to be those of the server, which waits for no processor"),
]

EXCHANGES = 200
LARGE = 200 << 20
LARGE_SECONDS = 2.0


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Listening]:
    with servers.python_server(PROGRAMS / "working_server.py", tmp_path) as server:
        yield server


class Work(NamedTuple):
    """What both ends know of an exchange by the clock that they share, in nanoseconds."""

    asked: int  #: the client's send has returned
    began: int
    ended: int

    @property
    def worked(self) -> float:
        """Seconds."""
        return (self.ended - self.began) / 1e9

    def least_processing(self, kind: str) -> float:
        """What processing is never less than, in seconds. A client's begins when its send ends: the server's wait for
        a processor is part of it, but not what the server may have done in the moment before the send returned."""
        return self.worked if kind == "SERVER" else (self.ended - self.asked) / 1e9


def work(connection: socket.socket, milliseconds: int) -> Work:
    """One exchange."""
    connection.sendall((milliseconds * 1000).to_bytes(4, "big"))
    return answer(connection, asked=time.monotonic_ns())


def answer(connection: socket.socket, asked: int) -> Work:
    times = connection.recv(16, socket.MSG_WAITALL)
    return Work(asked, int.from_bytes(times[:8], "big"), int.from_bytes(times[8:], "big"))


def seconds(span: Span, part: str) -> float:
    duration: float = span["attributes"][f"wirespan.{part}.duration"]
    return duration


@pytest.mark.parametrize(("milliseconds", "connections"), [(1, 1), (5, 1), (50, 5)])
def test_processing_is_what_the_server_worked(
    tmp_path: Path, working: Listening, milliseconds: int, connections: int
) -> None:
    def ask() -> tuple[int, list[Work]]:
        with socket.create_connection(("127.0.0.1", working.port)) as connection:
            port: int = connection.getsockname()[1]
            return port, [work(connection, milliseconds) for _ in range(EXCHANGES // connections)]

    with watch(tmp_path, working.port) as agent, ThreadPoolExecutor(connections) as pool:
        truth = dict(future.result() for future in [pool.submit(ask) for _ in range(connections)])
        spans = agent.stop()
    assert_paired(spans, EXCHANGES)
    for kind in ("SERVER", "CLIENT"):
        processing = processing_and_truth(truth, spans, kind)
        assert all(duration >= work.least_processing(kind) for duration, work in processing), kind
        excess = [duration - max(work.worked, work.least_processing(kind)) for duration, work in processing]
        assert statistics.median(excess) < 0.000_3, kind
        assert sorted(excess)[EXCHANGES * 99 // 100] < 0.002, kind


def processing_and_truth(truth: dict[int, list[Work]], spans: list[Span], kind: str) -> list[tuple[float, Work]]:
    """The processing duration of each span of the kind, and what is true of its exchange. truth: by client port."""
    found: list[tuple[float, Work]] = []
    for port, works in truth.items():
        of_port = [span for span in of_kind(spans, kind) if span["attributes"]["client.port"] == port]
        found += zip([seconds(span, "processing") for span in of_port], works, strict=True)
    return found


def test_a_request_that_waits_for_a_stopped_server_is_queue_time(tmp_path: Path, working: Listening) -> None:
    with (
        watch(tmp_path, working.port) as agent,
        socket.create_connection(("127.0.0.1", working.port)) as connection,
    ):
        work(connection, 1)  # the server has accepted
        with paused(working.process.pid):
            connection.sendall((1000).to_bytes(4, "big"))
            asked = time.monotonic_ns()
            time.sleep(0.2)
            waited = (time.monotonic_ns() - asked) / 1e9
        worked = answer(connection, asked).worked
        connection.close()
        spans = agent.stop()
    server, client = of_kind(spans, "SERVER")[1], of_kind(spans, "CLIENT")[1]
    assert waited <= seconds(server, "queue") < waited + 0.05
    assert worked <= seconds(server, "processing") < 0.05
    assert seconds(client, "processing") >= waited + worked
    assert server["end"] - server["start"] >= (waited + worked) * 1e9
    assert_all_exported(agent, 4)


@pytest.mark.parametrize("way", ["sendfile", "write"])
def test_a_large_response_to_a_slow_reader_lasts_as_long_as_it_takes(tmp_path: Path, way: str) -> None:
    with (
        servers.python_server(PROGRAMS / "large_server.py", tmp_path, str(LARGE), way) as server,
        watch(tmp_path, server.port) as agent,
    ):
        asked = time.time_ns()
        first, last = read_slowly(server.port)
        wait_until("the server's own times", lambda: server.process.log)
        truth = json.loads(server.process.log)
        spans = agent.stop()
    assert truth["sent"] == LARGE
    assert_paired(spans, 1)
    assert_all_exported(agent, 2)
    server_span, client_span = of_kind(spans, "SERVER")[0], of_kind(spans, "CLIENT")[0]
    close = 5_000_000  # ns; what scheduling may add
    for span, began, ended in ((server_span, truth["began"], truth["ended"]), (client_span, first, last)):
        assert span["attributes"]["wirespan.response.size"] == LARGE
        assert asked - close <= span["start"] <= truth["began"]
        assert abs(span["end"] - ended) < close, span["kind"]
        assert abs(seconds(span, "response") * 1e9 - (ended - began)) < close, span["kind"]
    assert last - first > 0.9 * LARGE_SECONDS * 1e9


def read_slowly(port: int) -> tuple[int, int]:
    """Ask, and take LARGE_SECONDS to read the response. When the first and the last read returned, ns since the
    epoch."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"?")
        size = len(connection.recv(1))
        first = last = time.time_ns()
        while size < LARGE:
            due = size / LARGE * LARGE_SECONDS - (last - first) / 1e9
            time.sleep(max(0.0, due))
            size += len(connection.recv(1 << 20))
            last = time.time_ns()
        return first, last


def test_an_exchange_on_a_connection_that_stays_open_is_a_span_soon(tmp_path: Path, working: Listening) -> None:
    with (
        watch(tmp_path, working.port) as agent,
        socket.create_connection(("127.0.0.1", working.port)) as connection,
    ):
        work(connection, 5)
        answered = time.time_ns()
        spans = agent.wait_for_spans(2, timeout=2.5)
        assert {span["kind"] for span in spans} == {"SERVER", "CLIENT"}
        assert all(span["end"] <= answered for span in spans), "the end is that of the last byte, not of the wait"
        work(connection, 5)
        connection.close()
        spans = agent.stop()
    assert_paired(spans, 2)
    assert_all_exported(agent, 4)
