"""Clocks that differ, and that jump: a time namespace, as a container that was moved between machines has one, is hours away
from what the kernel's programs read; and the wall clock may be set while the agent runs.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.agent import COMMAND, Agent
from support.availability import need_command, unavailable
from support.exchanges import PROGRAMS, assert_all_exported, assert_paired, watch
from support.own_metrics import own_metrics
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


@contextmanager
def wall_clock_may_be_set() -> Iterator[None]:
    """It is right again afterwards. A virtual machine of its own says that it does not matter."""
    if os.environ.get("WIRESPAN_MAY_SET_CLOCK") != "1":
        unavailable("the wall clock of this machine is not to be set (WIRESPAN_MAY_SET_CLOCK=1)", obtainable=False)
    ahead = time.time_ns() - time.monotonic_ns()
    try:
        yield
    finally:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.monotonic_ns() + ahead)


def test_when_the_wall_clock_is_set_by_hours_spans_have_the_time_that_it_showed(tmp_path: Path) -> None:
    with (
        wall_clock_may_be_set(),
        own_metrics() as metrics,
        python_server(PROGRAMS / "echo_server.py", tmp_path) as server,
        watch(tmp_path, server.port, metrics=metrics) as agent,
        socket.create_connection(("127.0.0.1", server.port)) as connection,
    ):
        shown: list[tuple[int, int]] = []
        for hours in (0, 1, -2, 1):
            time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() + hours * 3_600_000_000_000)
            time.sleep(1)  # until the agent has looked at it
            began = time.time_ns()
            for _ in range(REQUESTS):
                connection.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
            shown.append((began, time.time_ns()))
            time.sleep(1)
        spans = agent.wait_for_spans(2 * REQUESTS * len(shown))
        agent.stop()
        assert_all_exported(agent, 2 * REQUESTS * len(shown))
    assert_paired(spans, REQUESTS * len(shown))
    uncertain = 2_000_000  # ns
    for began, ended in shown:
        within = [one for one in spans if began - uncertain <= one["start"] <= one["end"] <= ended + uncertain]
        assert len(within) == 2 * REQUESTS
    assert metrics.value("wirespan.clock.steps") == 3
