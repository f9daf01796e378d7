"""A queue that lasts: what was acknowledged arrives, whatever happens to the agent, its backend and its disk."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sink import Answer, Sink
from support import servers
from support.agent import COMMAND, Agent
from support.availability import unavailable as cannot_run
from support.exchanges import PROGRAMS, accounts
from support.processes import free_port
from support.sending import Clients
from support.waiting import wait_until

PROTOCOLS = ("grpc", "http")
#: a backend that is down is tried again soon, and no request given up
PATIENT = {"initial_interval": "100ms", "max_interval": "200ms", "max_elapsed_time": 0}


class Place:
    """Where agents run one after the other: their directories, ports and settings."""

    def __init__(self, folder: Path, protocol: str = "http", **storage: Any) -> None:
        self.folder = folder
        self.port, self.backend = free_port(), free_port()
        self.protocol = protocol
        self.queue = folder / "queue"
        self.storage = {"directory": str(self.queue), "create_directory": True, **storage}
        self.sending_queue: dict[str, Any] = {"storage": "file_storage", "queue_size": 100_000}
        self.receivers: dict[str, Any] = {"otlp": {"protocols": {protocol: {"endpoint": f"127.0.0.1:{self.port}"}}}}
        self._agents: list[Agent] = []

    def configuration(self) -> dict[str, Any]:
        exporter = f"otlp_{self.protocol}"
        settings = {
            "endpoint": f"http://127.0.0.1:{self.backend}",
            "sending_queue": self.sending_queue,
            "retry_on_failure": PATIENT,
        }
        return {
            "extensions": {"file_storage": self.storage},
            "receivers": self.receivers,
            "exporters": {exporter: settings},
            "service": {
                "extensions": ["file_storage"],
                "pipelines": {"traces": {"receivers": list(self.receivers), "exporters": [exporter]}},
                "telemetry": {"logs": {"encoding": "json"}},
            },
        }

    def agent(self) -> Agent:
        folder = self.folder / f"run-{len(self._agents)}"
        folder.mkdir()
        self._agents.append(Agent(self.configuration(), folder))
        return self._agents[-1]

    def end(self) -> None:
        for agent in self._agents:
            agent.process.stop()

    def sink(self) -> Sink:
        """The backend, while it is a context."""
        ports = (self.backend, None) if self.protocol == "grpc" else (None, self.backend)
        return Sink(*ports)

    def files(self) -> list[Path]:
        return sorted(self.queue.rglob("*.queue"))


@pytest.fixture(params=PROTOCOLS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from ended(Place(tmp_path, request.param))


@pytest.fixture
def http_place(tmp_path: Path) -> Iterator[Place]:
    yield from ended(Place(tmp_path))


def ended(place: Place) -> Iterator[Place]:
    yield place
    place.end()


def kill(agent: Agent) -> None:
    assert agent.process.stop(signal.SIGKILL) == -signal.SIGKILL


def arrivals(sink: Sink) -> Counter[bytes]:
    """How often each span has come."""
    return Counter(span.span_id for _, span in sink.spans)


def wait_for_all(clients: Clients, sink: Sink) -> None:
    """Until all has come that was acknowledged."""

    def all_came() -> bool:
        return sink.span_count >= len(clients.acknowledged) and clients.acknowledged <= arrivals(sink).keys()

    wait_until("all have come", all_came, 60)


@pytest.mark.parametrize("fsync", [False, True], ids=["no fsync", "fsync"])
def test_what_was_acknowledged_before_a_kill_arrives(place: Place, fsync: bool) -> None:
    place.storage["fsync"] = fsync
    busy = Answer(delay=0.02)
    with place.sink() as sink, Clients(place.protocol, place.port) as clients:
        sink.answers.extend([busy] * 100_000)
        for _ in range(4):
            agent, before = place.agent(), len(clients.acknowledged)
            wait_until("some are acknowledged", lambda before=before: len(clients.acknowledged) > before + 1000)
            time.sleep(random.random() / 2)
            kill(agent)
        sink.answers.clear()
        agent = place.agent()
        clients.__exit__(None, None, None)
        wait_for_all(clients, sink)
        agent.stop()
    twice = sum(arrivals(sink).values()) - len(arrivals(sink))
    assert len(clients.acknowledged) > 4000
    assert twice <= 4 * 10 * 20, "more than each consumer had in hand at each kill"
    assert place.files() == []
    (account,) = accounts(agent)
    assert (account["kept"], account["in_flight"], account["unaccounted"]) == (0, 0, 0)


def test_a_backend_that_is_down_for_long_gets_all_of_it_once(place: Place) -> None:
    with Clients(place.protocol, place.port, count=2, pause=0.005) as clients:
        for end in (Agent.stop, kill, Agent.stop):
            agent, before = place.agent(), len(clients.acknowledged)
            wait_until("some are acknowledged", lambda before=before: len(clients.acknowledged) > before + 1000)
            end(agent)
    agent = place.agent()
    with place.sink() as sink:
        wait_for_all(clients, sink)
        agent.stop()
        assert set(arrivals(sink).values()) == {1}
    (account,) = accounts(agent)
    assert (account["recovered"], account["exported"]) == (len(arrivals(sink)),) * 2


def test_a_stop_during_a_retry_keeps_the_request(place: Place) -> None:
    first = place.agent()
    with Clients(place.protocol, place.port, count=1) as clients:
        wait_until("some are acknowledged", lambda: len(clients.acknowledged) > 100)
    first.process.wait_for_log("Exporting failed. Will retry.")
    begin = time.monotonic()
    first.stop()
    assert time.monotonic() - begin < 3.0
    (account,) = accounts(first)
    assert (account["kept"], account["exported"], account["dropped"]) == (len(clients.acknowledged), 0, {})
    assert "They are kept for the next start." in first.log
    with place.sink() as sink:
        second = place.agent()
        wait_for_all(clients, sink)
        second.stop()
    (account,) = accounts(second)
    assert (account["recovered"], account["unaccounted"]) == (len(clients.acknowledged), 0)


def test_what_is_joined_survives_a_kill_too(place: Place) -> None:
    place.sending_queue["batch"] = {"min_size": 500}
    with place.sink() as sink, Clients(place.protocol, place.port) as clients:
        for _ in range(2):
            agent, before = place.agent(), len(clients.acknowledged)
            wait_until("some are acknowledged", lambda before=before: len(clients.acknowledged) > before + 1000)
            kill(agent)
        agent = place.agent()
        clients.__exit__(None, None, None)
        wait_for_all(clients, sink)
        agent.stop()
    assert sink.request_count < len(arrivals(sink)) / 100


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path], capture_output=True, text=True
    )
    if mounted.returncode:
        cannot_run(f"cannot mount: {mounted.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)  # a test that fails leaves the agent running


def test_a_full_disk_refuses_senders_and_nothing_that_was_acknowledged_is_lost(place: Place) -> None:
    with small_disk(place.queue, 3):
        agent = place.agent()
        with Clients(place.protocol, place.port, spans=100) as clients:
            wait_until("the disk is full", lambda: clients.refused > 20, 60)
            taken = len(clients.acknowledged)
            assert "The sending queue cannot be stored. Dropping spans." in agent.log
            assert "No space left on device" in agent.log
            with place.sink() as sink:
                wait_until("it goes on", lambda: len(clients.acknowledged) > taken + 2000, 60)
                clients.__exit__(None, None, None)
                wait_for_all(clients, sink)
                agent.stop()
    (account,) = accounts(agent)
    assert account["dropped"].keys() == {"enqueue_failed"}
    assert account["unaccounted"] == 0


def test_a_second_agent_on_the_same_queue_does_not_start(http_place: Place, tmp_path: Path) -> None:
    with http_place.agent() as agent:
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump(Place(tmp_path).configuration()))
        result = subprocess.run([COMMAND, "run", "--config", path], capture_output=True, text=True, timeout=20)
        assert result.returncode == 1
        assert f"is in use by another process, {agent.pid}: two agents need a directory each" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_queue_that_is_garbage_does_not_keep_the_agent_from_running(http_place: Place) -> None:
    place = http_place
    with Clients("http", place.port, count=1) as clients:
        agent = place.agent()
        wait_until("some are acknowledged", lambda: len(clients.acknowledged) > 1000)
        kill(agent)
    (file,) = place.files()
    data = file.read_bytes()
    third = len(data) // 3
    file.write_bytes(data[:third] + os.urandom(third) + data[2 * third :])
    with place.sink() as sink:
        agent = place.agent()
        wait_until("what can be read has come", lambda: sink.span_count > len(clients.acknowledged) / 2)
        agent.stop()
    assert "A part of a stored queue cannot be read. The requests in it are lost." in agent.log
    assert "Traceback" not in agent.log
    (account,) = accounts(agent)
    assert account["recovered"] == account["exported"] + account["dropped"].get("send_failed", 0)
    assert account["unaccounted"] == 0


@pytest.mark.requires_bpf
def test_spans_of_exchanges_wait_for_the_next_run_too(http_place: Place, tmp_path: Path) -> None:
    place = http_place
    with servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as echo:
        place.receivers = {"ebpf": {"select": {"ports": [echo.port]}}}
        first = place.agent()
        exchange(echo.port, 100)
        time.sleep(0.5)
        first.stop()
    (account,) = accounts(first)
    assert (account["observed"], account["kept"], account["unaccounted"]) == (200, 200, 0)
    with place.sink() as sink:
        second = place.agent()
        wait_until("all have come", lambda: sink.span_count == 200)
        second.stop()
    (account,) = accounts(second)
    assert (account["recovered"], account["exported"], account["unaccounted"]) == (200, 200, 0)


def exchange(port: int, times: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(times):
            connection.sendall(b"hello")
            assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
