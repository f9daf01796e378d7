"""The agent does not see itself, leaves nothing behind, and says when another one is there."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sink import Sink
from support import kernel_objects, servers
from support.agent import COMMAND, Agent
from support.availability import need_command
from support.capabilities import NEEDED, as_root
from support.exchanges import PROGRAMS
from support.reloading import reload
from support.servers import Listening
from support.spans import Span, from_messages
from support.waiting import wait_until

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.alone("watches the whole machine, or asks whether another agent does"),
]

#: seconds without traffic of the test
IDLE = 60 if os.environ.get("CI") == "true" else 10

ANOTHER = "Another wirespan watches this machine"


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Listening]:
    with servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server:
        yield server


def everything(exporters: dict[str, Any], *ports: int) -> dict[str, Any]:
    """A configuration that selects the whole machine, or some ports of it. Exports are OTLP, which would be skipped whoever makes
    them: so that the agent has to know its own, nothing is."""
    select = {"select": {"ports": [*ports]}} if ports else {}
    return {
        "receivers": {"ebpf": {"instrumented": "both", "settle": "200ms", **select}},
        "exporters": exporters,
        "service": {
            "pipelines": {"traces": {"receivers": ["ebpf"], "exporters": list(exporters)}},
            "telemetry": {"logs": {"encoding": "json"}},
        },
    }


def to(sink: Sink) -> dict[str, Any]:
    """By both protocols, and by name, so that it is looked up."""
    return {
        "otlp_grpc": {"endpoint": f"http://localhost:{sink.grpc_port}", "tls": {"insecure": True}},
        "otlp_http": {"endpoint": f"http://localhost:{sink.http_port}", "tls": {"insecure": True}},
    }


def exchange(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"hello")
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"


def export_something(port: int, sink: Sink) -> None:
    """So that the connections to the sink exist, and were used."""
    before = sink.request_count
    exchange(port)
    wait_until("an export by each protocol", lambda: sink.request_count >= before + 2)


@contextmanager
def running(folder: Path, sink: Sink, *ports: int, command: Sequence[str | Path] = (COMMAND,)) -> Iterator[Agent]:
    with Agent(everything(to(sink), *ports), folder, command=command) as agent:
        yield agent


def assert_not_seen(sink: Sink, server: Listening, *pids: int) -> None:
    """The sink is a thread of this process: of neither end of an export there is a span; of both ends of the exchange
    with ``server`` there are, so that the machine was watched."""
    spans: list[Span] = list(from_messages(sink.spans))
    ports = {sink.grpc_port, sink.http_port}
    assert [span for span in spans if span["attributes"]["server.port"] in ports] == []
    assert [span for span in spans if span["attributes"].get("process.pid") in pids] == []
    ends = {span["kind"] for span in spans if span["attributes"]["server.port"] == server.port}
    assert ends == {"CLIENT", "SERVER"}


@pytest.mark.waits("for exports when there is nothing to export")
def test_its_exports_are_not_seen_at_either_end(tmp_path: Path, echo: Listening) -> None:
    with Sink() as sink:
        with running(tmp_path, sink, sink.grpc_port, sink.http_port or 0, echo.port) as agent:
            export_something(echo.port, sink)
            exported = sink.request_count
            time.sleep(IDLE)
            export_something(echo.port, sink)
        assert sink.request_count >= exported + 2
        assert_not_seen(sink, echo, agent.pid)


def test_nor_are_those_of_an_agent_that_was_started_again(tmp_path: Path, echo: Listening) -> None:
    pids = []
    with Sink() as sink:
        for _ in range(2):
            with running(tmp_path, sink) as agent:
                pids.append(agent.pid)
                export_something(echo.port, sink)
                time.sleep(1)
                export_something(echo.port, sink)
        assert_not_seen(sink, echo, *pids)


@pytest.mark.requires_command("unshare")
def test_nor_are_those_of_an_agent_in_a_pid_namespace_of_its_own(tmp_path: Path, echo: Listening) -> None:
    """There its process id is another than the kernel's, and the host's /proc is not to be seen."""
    unshare = [need_command("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    with Sink() as sink:
        with Agent(everything(to(sink)), tmp_path, command=[*unshare, COMMAND]) as agent:
            (inside,) = children(agent.pid)
            export_something(echo.port, sink)
            time.sleep(2)
            export_something(echo.port, sink)
            assert "/proc shows a pid namespace of its own" in agent.log
            # unshare waits for its child, and ends with its status.
            os.kill(inside, signal.SIGTERM)
            assert agent.process.popen.wait(10) == 0, agent.log
        assert_not_seen(sink, echo, agent.pid, inside)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_nothing_stays_in_the_kernel_of_an_agent_that_was_killed(tmp_path: Path, echo: Listening) -> None:
    before = kernel_objects.programs(), kernel_objects.links()
    agent = Agent(everything({"file": {}}), tmp_path)
    try:
        programs, links = kernel_objects.programs() - before[0], kernel_objects.links() - before[1]
        assert len(programs) >= 10
        assert len(links) >= 5
    finally:
        assert agent.process.stop(signal.SIGKILL) == -signal.SIGKILL
    # Programs go when the grace period is over in which they may still run.
    wait_until("all links are gone", lambda: not links & kernel_objects.links(), timeout=2)
    wait_until("all programs are gone", lambda: not programs & kernel_objects.programs(), timeout=2)
    exchange(echo.port)


@pytest.mark.requires_command("setpriv", "unshare")
@pytest.mark.parametrize("isolated", [False, True], ids=["beside", "in-a-container"])
def test_a_second_agent_says_that_there_is_another(tmp_path: Path, echo: Listening, isolated: bool) -> None:
    container = ["unshare", "--net", "--mount", "--ipc", "--uts", *as_root(NEEDED)] if isolated else []
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    with Agent(everything({"file": {}}), first) as one:
        assert ANOTHER not in one.log
        with Agent(everything({"file": {}}), second, command=[*container, COMMAND]) as other:
            assert other.log.count(ANOTHER) == 1
            exchange(echo.port)
            for agent in (one, other):
                wait_until("both ends", lambda agent=agent: len(of_port(agent.spans(), echo.port)) == 2)
        assert ANOTHER not in one.log


def test_one_that_was_killed_is_no_other(tmp_path: Path) -> None:
    killed = Agent(everything({"file": {}}), tmp_path)
    killed.process.stop(signal.SIGKILL)
    with Agent(everything({"file": {}}), tmp_path) as agent:
        assert ANOTHER not in agent.log


def test_two_receivers_of_one_agent_are_no_others(tmp_path: Path) -> None:
    configuration = everything({"file": {}})
    configuration["receivers"] = {
        f"ebpf/{port}": {
            "select": {"ports": [port]},
            "rings": dict.fromkeys(("exchanges", "long_exchanges", "segments"), 65_536),
        }
        for port in (1, 2)
    }
    configuration["service"]["pipelines"]["traces"]["receivers"] = list(configuration["receivers"])

    def change(configuration: dict[str, Any]) -> None:
        for receiver in configuration["receivers"].values():
            receiver["settle"] = "300ms"

    with Agent(configuration, tmp_path) as agent:
        reload(agent, tmp_path, change)  # those that start have been loaded beside those that stop
        assert ANOTHER not in agent.log


def of_port(spans: Sequence[Span], port: int) -> list[Span]:
    return [span for span in spans if span["attributes"]["server.port"] == port]
