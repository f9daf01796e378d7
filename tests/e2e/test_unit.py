"""The unit of deploy/systemd as systemd would start it, without systemd: its command, its user and capabilities, read-only
files, and a filter of system calls."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path

import pytest

from sink import Sink
from support import servers
from support.agent import COMMAND, READY
from support.availability import need_command
from support.capabilities import AGENT_USER, as_user
from support.exchanges import PROGRAMS
from support.processes import Process
from support.spans import Span, from_messages
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "wirespan.service"
#: what is asked of an understanding of it that is written here
UNDERSTOOD = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "SystemCallErrorNumber": "EPERM",
    "SystemCallArchitectures": "native",
}

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("setpriv", "systemd-analyze")]


@pytest.fixture
def unit() -> Mapping[str, str]:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What StateDirectory= makes."""
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, AGENT_USER, AGENT_USER)
    return folder


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(http_port=None) as listening:
        yield listening


def calls(name: str) -> Iterator[str]:
    """The system calls of a set, or the one."""
    if not name.startswith("@"):
        yield name
        return
    command = [need_command("systemd-analyze"), "syscall-filter", name]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    for line in map(str.strip, text.splitlines()[1:]):
        if line and not line.startswith("#"):
            yield from calls(line)


def confined(unit: Mapping[str, str], state: Path) -> list[str | Path]:
    """The words in front of a command that give it what the unit gives it."""
    assert UNDERSTOOD.items() <= unit.items()
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"]
    allowed = state.with_name("calls")
    allowed.write_text("\n".join(call for name in unit["SystemCallFilter"].split() for call in calls(name)))
    read_only = [sys.executable, PROGRAMS / "read_only.py", state]
    user = as_user(unit["AmbientCapabilities"].split())
    return [*read_only, *user, sys.executable, PROGRAMS / "confined.py", UNIT, allowed]


def test_what_the_unit_starts_exports_what_other_users_do(
    unit: Mapping[str, str], state: Path, tmp_path: Path, sink: Sink
) -> None:
    program, *arguments = unit["ExecStart"].split()
    configuration = shutil.copy(ROOT / "config" / "collector.yaml", tmp_path / "config.yaml")
    places = {program: str(COMMAND), arguments[-1]: str(configuration)}
    command = [places.get(word, word) for word in (program, *arguments)]
    environment = {"COLLECTOR_ENDPOINT": f"127.0.0.1:{sink.grpc_port}"}
    with servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server:

        def of_server() -> list[Span]:
            return [span for span in from_messages(sink.spans) if span["attributes"].get("server.port") == server.port]

        with Process("unit", [*confined(unit, state), *command], tmp_path, environment) as agent:
            agent.wait_for_log(READY)
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                for _ in range(3):
                    connection.sendall(b"hello")
                    assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
            wait_until("both ends", lambda: len(of_server()) == 6)
            assert agent.stop() == 0, agent.log
    assert {span["resource"]["service.name"] for span in of_server() if span["kind"] == "SERVER"} == {"echo_server"}
    assert sink.metrics_payloads
    assert "\twarning\t" not in agent.log, agent.log


def test_what_the_unit_closes_is_closed_here_too(unit: Mapping[str, str], state: Path) -> None:
    """Else the other test would show nothing."""
    tried = """
import ctypes, mmap, os, socket
def refused(what):
    try:
        what()
    except (OSError, PermissionError):
        return True
assert refused(lambda: open("/run/wirespan-test", "w"))
assert refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
assert refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))
assert ctypes.CDLL(None).unshare(0x10000000) == -1
assert ctypes.CDLL(None).mount(None, None, None, 0, None) == -1
open("written", "w")
"""
    command = [*confined(unit, state), sys.executable, "-c", tried]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20)
    assert result.returncode == 0, result.stderr
    assert (state / "written").stat().st_mode & 0o777 == 0o600
