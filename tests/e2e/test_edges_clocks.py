"""The agent in a time namespace, as a container that was moved between machines has one: its clocks are hours away from
those that the kernel's programs read."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from support.agent import COMMAND, Agent
from support.availability import need_command, unavailable
from support.exchanges import PROGRAMS, assert_paired
from support.servers import python_server

pytestmark = [pytest.mark.requires_bpf, pytest.mark.requires_command("unshare")]

REQUESTS = 20


def test_in_a_time_namespace_of_its_own_times_and_processes_are_right(tmp_path: Path) -> None:
    if not Path("/proc/self/timens_offsets").exists():
        unavailable("this kernel has no time namespaces (CONFIG_TIME_NS)", obtainable=False)
    unshare = [need_command("unshare"), "--time", "--monotonic", "3600", "--boottime", "7200"]
    with python_server(PROGRAMS / "echo_server.py", tmp_path) as server:
        configuration = {
            "receivers": {"ebpf": {"select": {"ports": [server.port]}}},
            "exporters": {"file": {}},
            "service": {"pipelines": {"traces": {"receivers": ["ebpf"], "exporters": ["file"]}}},
        }
        with (
            Agent(configuration, tmp_path, command=[*unshare, "--fork", "--kill-child", COMMAND]) as agent,
            socket.create_connection(("127.0.0.1", server.port)) as connection,
        ):
            began = time.time_ns()
            for _ in range(REQUESTS):
                connection.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
            ended = time.time_ns()
            spans = agent.wait_for_spans(2 * REQUESTS)
            (inside,) = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            os.kill(int(inside), signal.SIGTERM)
            assert agent.process.popen.wait(10) == 0, agent.log
    assert_paired(spans, REQUESTS)
    uncertain = 1_000_000  # ns, of the bracket in which the clocks are read
    assert all(began - uncertain <= span["start"] <= span["end"] <= ended + uncertain for span in spans)
    assert {span["resource"]["service.name"] for span in spans if span["kind"] == "SERVER"} == {"echo_server"}
