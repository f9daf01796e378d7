"""Beyond its budget of CPU the agent does not watch the control group that costs it most; what the others do stays exact."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.agent import Agent
from support.asking import control_group, in_group
from support.counting import attributes_of, counting
from support.exchanges import PROGRAMS, assert_all_accounted, of_kind
from support.metrics import read_metrics
from support.own_metrics import own_metrics
from support.processes import Process, free_port
from support.waiting import wait_until

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.alone("it is about who takes the processors"),
]

LEFT, BACK = "Not watching a control group any more.", "Watching a control group again."


@contextmanager
def server(folder: Path, group: Path, name: str) -> Iterator[int]:
    """The port of a server in this group."""
    port = free_port()
    words = [sys.executable, PROGRAMS / "pid_server.py", str(port), "alone"]
    with Process(name, in_group(group, words), folder, {"OTEL_SERVICE_NAME": name}) as process:
        process.wait_for_port(port)
        yield port


def steady(group: Path, port: int, rate: int) -> subprocess.Popen[bytes]:
    words = in_group(group, [sys.executable, PROGRAMS / "steady_client.py", str(port), str(rate)])
    return subprocess.Popen(words, env={**os.environ, "OTEL_SERVICE_NAME": "busy"})


def ping(client: socket.socket) -> None:
    client.sendall(b"who?")
    assert len(client.recv(4)) == 4


def said(agent: Agent, text: str) -> Sequence[dict[str, Any]]:
    entries = [json.loads(line) for line in agent.log.splitlines() if line.startswith("{")]
    return [entry for entry in entries if text in entry["msg"]]


def coverage_of_resource(folder: Path, service: str) -> set[float]:
    """What was ever said of it as a whole, not of an edge."""
    return {
        point.as_double
        for request in read_metrics(folder / "metrics.jsonl")
        for group in request.resource_metrics
        if attributes_of(group.resource.attributes)["service.name"] == service
        for scope in group.scope_metrics
        for metric in scope.metrics
        if metric.name == "wirespan.coverage"
        for point in metric.gauge.data_points
        if not point.attributes
    }


class Asking:
    """Pings of the quiet server, every 10 ms, until what is waited for is so."""

    def __init__(self, client: socket.socket) -> None:
        self.client, self.asked = client, 0

    def until(self, what: str, condition: Any, timeout: float) -> None:
        def ask() -> bool:
            ping(self.client)
            self.asked += 1
            return bool(condition())

        wait_until(what, ask, timeout)


def test_the_busy_group_is_not_watched_and_the_quiet_one_stays_exact(tmp_path: Path) -> None:
    with (
        control_group("v2", "wirespan-busy") as busy,
        control_group("v2", "wirespan-quiet") as quiet,
        server(tmp_path, busy, "busy") as busy_port,
        server(tmp_path, quiet, "quiet") as quiet_port,
        own_metrics() as metrics,
        counting(tmp_path, busy_port, quiet_port, cpu_budget=0.03, metrics={"interval": "1s"}, own=metrics) as agent,
        socket.create_connection(("127.0.0.1", quiet_port)) as client,
        socket.create_connection(("127.0.0.1", busy_port)) as other,
    ):
        asking = Asking(client)
        load = steady(busy, busy_port, 2_000)
        try:
            asking.until("the busy group is left out", lambda: LEFT in agent.log, 60)
            left = time.time_ns()
            end = time.monotonic() + 8
            asking.until("it is not seen", lambda: time.monotonic() > end, 20)
        finally:
            load.terminate()
            load.wait()
        asking.until("it is watched again", lambda: BACK in agent.log, 60)
        back = time.time_ns()
        for _ in range(100):
            ping(other)
        assert agent.process.stop() == 0, agent.log
    assert_all_accounted(agent)
    (entry,) = said(agent, LEFT)
    assert (entry["cgroup"], entry["service"]) == ("/wirespan-busy", "busy")
    assert entry["cores"] > entry["cpu_budget"] == 0.03
    assert [entry["cgroup"] for entry in said(agent, BACK)] == ["/wirespan-busy"]
    spans = agent.spans()
    of_quiet = [span for span in spans if span["attributes"]["server.port"] == quiet_port]
    assert [len(of_kind(of_quiet, kind)) for kind in ("SERVER", "CLIENT")] == [asking.asked] * 2
    of_busy = [span for span in spans if span["attributes"]["server.port"] == busy_port]
    unseen = [span for span in of_busy if left + 10**9 < span["start"] < back]
    assert not [span for span in unseen if span["kind"] == "SERVER"]
    assert len(of_kind([span for span in of_busy if span["start"] > back], "SERVER")) == 100
    assert metrics.value("wirespan.cgroups.passed_over", cgroup="/wirespan-busy") > 10_000
    assert metrics.value("wirespan.degradation") in (1, 2)
    assert coverage_of_resource(tmp_path, "busy") == {0.0}
    assert coverage_of_resource(tmp_path, "quiet") == set()
