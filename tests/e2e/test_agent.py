"""The agent's life on a live machine: ready soon, watching what it was told to and not itself, gone without a trace."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sink import Sink
from support import servers
from support.agent import Agent
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, watch
from support.pausing import paused
from support.servers import Listening
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

_SYS_BPF = 321  # x86-64
#: What a process may hold, by its name in fdinfo, and the command of bpf(2) that finds it by its id.
_GET_FD_BY_ID = {"prog_id": 13, "map_id": 14, "link_id": 30}


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Listening]:
    with servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server:
        yield server


def exchange(port: int) -> None:
    """On a connection of its own."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"


@pytest.mark.alone("how soon is measured")
def test_the_first_span_is_there_soon_after_the_start(tmp_path: Path, echo: Listening) -> None:
    started = time.monotonic()
    with watch(tmp_path, echo.port) as agent:
        exchange(echo.port)
        agent.wait_for_spans(2)
        # 1.5 s are the goal, which the benchmark measures; here the machine may have other work.
        assert time.monotonic() - started < 3.0


def held(pid: int) -> set[tuple[str, int]]:
    """The BPF programs, maps and links that a process holds: kind and id."""
    found = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            for line in path.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in _GET_FD_BY_ID:
                    found.add((name, int(value)))
    return found


def exists(kind: str, number: int) -> bool:
    """Whether the kernel still has the BPF object of this id; it gives no id twice until 2**31 were used."""
    attributes = (ctypes.c_uint32 * 3)(number, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(_SYS_BPF, _GET_FD_BY_ID[kind], ctypes.byref(attributes), ctypes.sizeof(attributes))
    if descriptor < 0:
        error = ctypes.get_errno()
        assert error == errno.ENOENT, errno.errorcode[error]
        return False
    os.close(descriptor)
    return True


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_attached(tmp_path: Path, echo: Listening, by: signal.Signals) -> None:
    agent = watch(tmp_path, echo.port)
    with agent.process, socket.create_connection(("127.0.0.1", echo.port)) as connection:
        # The storage of a socket that lives on must not keep the map.
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
        objects = held(agent.pid)
        assert {kind for kind, _ in objects} == set(_GET_FD_BY_ID)
        assert all(exists(*of) for of in objects)
        assert agent.process.stop(by) == (0 if by != signal.SIGKILL else -signal.SIGKILL)
        # The kernel frees them after a grace period.
        wait_until("everything is gone", lambda: not any(exists(*of) for of in objects))


def test_an_answered_exchange_on_an_open_connection_is_exported_at_the_end(tmp_path: Path, echo: Listening) -> None:
    slow = {"settle": "60s"}
    with (
        watch(tmp_path, echo.port, ebpf=slow) as agent,
        socket.create_connection(("127.0.0.1", echo.port)) as connection,
    ):
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"
        assert_paired(agent.stop(), 1)
        assert_all_exported(agent, 2)


def test_exchanges_of_connections_that_close_while_it_stops_are_exported(tmp_path: Path, echo: Listening) -> None:
    count = 500
    with watch(tmp_path, echo.port) as agent:
        connections = [socket.create_connection(("127.0.0.1", echo.port)) for _ in range(count)]
        for connection in connections:
            connection.sendall(b"hello")
            assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
        agent.process.popen.send_signal(signal.SIGTERM)
        for connection in connections:
            connection.close()
            time.sleep(0.000_5)  # spread over all that a stop consists of
        assert_paired(agent.stop(), count)
        assert_all_exported(agent, 2 * count)


def test_a_signal_right_after_a_pause_is_not_lost(tmp_path: Path, echo: Listening) -> None:
    # The kernel may then hand the signal to any thread.
    for _ in range(5):
        agent = watch(tmp_path, echo.port)
        with agent.process:
            with paused(agent.pid):
                pass
            os.kill(agent.pid, signal.SIGTERM)
            assert agent.process.popen.wait(3) == 0


def test_only_selected_ports_are_watched(tmp_path: Path, echo: Listening) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with (
        servers.python_server(PROGRAMS / "echo_server.py", folder) as other,
        watch(tmp_path, echo.port) as agent,
    ):
        exchange(other.port)
        exchange(echo.port)
        spans = agent.stop()
        assert {span["attributes"]["server.port"] for span in spans} == {echo.port}
        assert_all_exported(agent, 2)


def test_without_a_selection_the_whole_machine_is_watched_but_for_the_agent(tmp_path: Path, echo: Listening) -> None:
    with Sink() as sink:
        endpoints = {"otlp_grpc": sink.grpc_port, "otlp_http": sink.http_port}
        exporters = {
            name: {"endpoint": f"http://127.0.0.1:{port}", "tls": {"insecure": True}}
            for name, port in endpoints.items()
        }
        pipeline = {"receivers": ["ebpf"], "exporters": ["file", *exporters]}
        configuration = {
            "receivers": {"ebpf": None},
            "exporters": {"file": {}, **exporters},
            "service": {"pipelines": {"traces": pipeline}, "telemetry": {"logs": {"encoding": "json"}}},
        }
        with Agent(configuration, tmp_path) as agent:
            # Exports of the first are under way when the others come.
            for _ in range(5):
                arrived = sink.request_count
                exchange(echo.port)
                wait_until("an export", lambda arrived=arrived: sink.request_count > arrived)
            spans = agent.stop()
        ports = {span["attributes"]["server.port"] for span in spans}
        assert echo.port in ports
        assert not ports & set(endpoints.values())
        assert not [span for span in spans if span["attributes"]["process.pid"] == agent.pid]


def test_a_request_without_a_response_says_how_it_ended(tmp_path: Path, echo: Listening) -> None:
    with (
        watch(tmp_path, echo.port, ebpf={"request_timeout": "500ms"}) as agent,
        paused(echo.process.pid),
        socket.create_connection(("127.0.0.1", echo.port)) as connection,
    ):
        connection.sendall(b"hello?")
        (span,) = agent.wait_for_spans(1)
    assert (span["kind"], span["status"], span["attributes"]["error.type"]) == ("CLIENT", "ERROR", "timeout")
    assert "wirespan.response.duration" not in span["attributes"]
