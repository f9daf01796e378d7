"""With four capabilities everything is seen, as root in a container and as a user of a service; what each is for."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.agent import COMMAND, Agent
from support.capabilities import AGENT_USER, NEEDED, as_root, as_user
from support.exchanges import PROGRAMS, assert_all_accounted, assert_paired, of_kind
from support.processes import Process, free_port
from support.servers import Listening
from wirespan.service import check

DECLARED = "declared-by-another-user"
CONFIGURATION = """
receivers: {{ebpf: {{select: {{ports: [{port}]}}}}}}
exporters: {{file: }}
service: {{pipelines: {{traces: {{receivers: [ebpf], exporters: [file]}}}}, telemetry: {{logs: {{encoding: json}}}}}}
"""

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("setpriv")]

Start = Callable[[Iterable[str]], list[str]]
each_way = pytest.mark.parametrize("start", [as_root, as_user])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Listening]:
    """An echo server of a user who is neither root nor the agent's, and who declares a service name."""
    port = free_port()
    # The capability is for the interpreter and this checkout, which may be readable by their owner only.
    prefix = as_user(["CAP_DAC_READ_SEARCH"], user=65534)
    command = [*prefix, sys.executable, PROGRAMS / "echo_server.py", str(port)]
    with Process("echo", command, tmp_path, {"OTEL_SERVICE_NAME": DECLARED}) as process:
        process.wait_for_port(port)
        yield Listening(process, port)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the agent may write."""
    folder = tmp_path / "agent"
    folder.mkdir()
    os.chown(folder, AGENT_USER, AGENT_USER)
    folder.chmod(0o777)
    return folder


def agent(server: Listening, folder: Path, prefix: list[str]) -> Agent:
    return Agent(CONFIGURATION.format(port=server.port), folder, command=[*prefix, COMMAND])


def exchange(connection: socket.socket) -> None:
    connection.sendall(b"hello")
    assert connection.recv(5, socket.MSG_WAITALL) == b"hello"


def checked(prefix: list[str]) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Whether `wirespan check` finds that wirespan can run, and what it says of each requirement."""
    result = subprocess.run([*prefix, COMMAND, "check", "--json"], capture_output=True, text=True, timeout=30)
    report = json.loads(result.stdout)
    assert report["ok"] == (result.returncode == 0)
    return report["ok"], {entry["requirement"]: entry for entry in report["checks"]}


def effective(pid: int) -> int:
    found = re.search(r"^CapEff:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 16)


@each_way
@pytest.mark.alone("that another agent is there would be a warning")
def test_four_capabilities_are_enough(start: Start, server: Listening, folder: Path) -> None:
    prefix = start(NEEDED)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as older,
        agent(server, folder, prefix) as watching,
        socket.create_connection(("127.0.0.1", server.port)) as newer,
    ):
        assert effective(watching.pid) == sum(1 << getattr(check, name) for name in NEEDED)
        for connection in (older, newer):
            exchange(connection)
        # Without waiting for their end: the kernel's iterator tells what has been quiet for a while.
        spans = watching.wait_for_spans(4)
    assert_paired(spans, 2)
    assert {span["resource"]["service.name"] for span in of_kind(spans, "SERVER")} == {DECLARED}
    assert all("process.executable.path" in span["resource"] for span in spans)
    assert assert_all_accounted(watching)["observed"] == 4
    assert '"level": "warning"' not in watching.log


@each_way
def test_check_finds_four_capabilities_enough(start: Start) -> None:
    ok, findings = checked(start(NEEDED))
    assert ok
    found = {requirement: entry["found"] for requirement, entry in findings.items() if entry["verdict"] == "ok"}
    assert found["capabilities to load programs"] == "CAP_BPF, CAP_PERFMON"
    assert found["capabilities to read other processes"] == "CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"


@each_way
@pytest.mark.parametrize("missing", ["CAP_BPF", "CAP_PERFMON"])
def test_without_one_that_programs_need_the_agent_says_which(
    start: Start, missing: str, server: Listening, folder: Path
) -> None:
    prefix = start(set(NEEDED) - {missing})
    with pytest.raises(AssertionError, match="status 1") as failure:
        agent(server, folder, prefix)
    assert f"no {missing}" in str(failure.value)
    ok, findings = checked(prefix)
    assert not ok
    assert findings["capabilities to load programs"]["found"] == f"no {missing}"


@pytest.mark.parametrize("missing", ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"])
def test_without_one_that_reading_processes_needs_a_declared_name_is_not_known(
    missing: str, server: Listening, folder: Path
) -> None:
    # As root: another user could not even read this checkout, and its interpreter, without the second.
    prefix = as_root(set(NEEDED) - {missing})
    with agent(server, folder, prefix) as watching:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            exchange(connection)
        spans = watching.wait_for_spans(2)
    (served,) = of_kind(spans, "SERVER")
    assert served["resource"]["service.name"] != DECLARED
    assert ("process.executable.path" in served["resource"]) == (missing != "CAP_SYS_PTRACE")
    ok, findings = checked(prefix)
    assert ok
    assert findings["capabilities to read other processes"]["found"] == f"no {missing}"
