"""`wirespan status`: what a running agent says, to whom, and how that looks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import click
import pytest
from click.testing import CliRunner

from support.processes import free_port
from support.waiting import wait_until
from wirespan.pipeline.counters import Counters
from wirespan.service import status_socket
from wirespan.service.cli import main
from wirespan.service.config import load
from wirespan.service.service import Service
from wirespan.service.status import Status
from wirespan.service.status_socket import NotAnswered, StatusSocket, ask, running_agents
from wirespan.service.status_text import status_text
from wirespan.service.telemetry import Telemetry

CONFIGURATION = """\
receivers: {otlp: {protocols: {http: }}}
processors: {batch: }
exporters: {otlp_http: {headers: {authorization: "Bearer abc"}}, debug: }
extensions: {health_check: }
service:
  extensions: [health_check]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_http]}
    logs: {receivers: [otlp], exporters: [debug]}
"""


@pytest.fixture
def counters() -> Counters:
    counters = Counters()
    counters.add("otelcol_receiver_accepted_spans", 1_200, receiver="otlp", transport="http")
    counters.add("otelcol_processor_incoming_items", 1_200, processor="batch", **{"otel.signal": "traces"})
    counters.add("otelcol_processor_outgoing_items", 1_100, processor="batch", **{"otel.signal": "traces"})
    counters.add("otelcol_exporter_sent_spans", 1_000, exporter="otlp_http")
    counters.add("otelcol_exporter_send_failed_spans", 40, exporter="otlp_http")
    counters.gauge("otelcol_exporter_queue_size", lambda: 3, exporter="otlp_http")
    counters.gauge("otelcol_exporter_queue_capacity", lambda: 1_000, exporter="otlp_http")
    counters.gauge("wirespan.exporter.in_flight_spans", lambda: 60, exporter="otlp_http")
    counters.gauge("wirespan.processor.in_flight_items", lambda: 100, processor="batch", pipeline="traces")
    return counters


@pytest.fixture
def status(tmp_path: Path, counters: Counters) -> Status:
    file = tmp_path / "w.yaml"
    file.write_text(CONFIGURATION)
    return Status(Service(load(file, {}), counters, Telemetry(counters)), "w.yaml", counters)


@pytest.fixture
def said(status: Status, counters: Counters) -> dict[str, Any]:
    """Within the second in which somebody asks, 50 more are sent."""

    def wait(seconds: float) -> None:
        counters.add("otelcol_exporter_sent_spans", 50, exporter="otlp_http")
        counters.gauge("wirespan.exporter.in_flight_spans", lambda: 10, exporter="otlp_http")
        time.sleep(0.01)

    status.state = "running"
    return {**json.loads(json.dumps(status.read(wait))), "uid": 0}


def test_everything_is_said(said: dict[str, Any]) -> None:
    assert (said["state"], said["pid"], said["extensions"]) == ("running", os.getpid(), ["health_check"])
    assert said["pipelines"][0] == {
        "id": "traces",
        "signal": "traces",
        "receivers": ["otlp"],
        "processors": ["batch"],
        "exporters": ["otlp_http"],
    }
    (identity,) = said["exchanges"]
    assert identity["sum"] == "1200 observed = 1050 exported + 40 dropped by send_failed + 110 in_flight"
    sent = next(one for one in said["sums"] if one["name"] == "otelcol_exporter_sent_spans")
    assert (sent["attributes"], sent["value"]) == ({"exporter": "otlp_http"}, 1_050)
    assert sent["per_second"] > 1_000
    assert {"name": "otelcol_exporter_queue_size", "attributes": {"exporter": "otlp_http"}, "value": 3} in said[
        "gauges"
    ]
    assert said["cost"]["memory_bytes"] > 10_000_000
    assert "Bearer" not in json.dumps(said)
    assert "[REDACTED]" in said["configuration"]["text"]


def test_tables_show_it(said: dict[str, Any]) -> None:
    text = click.unstyle(status_text(said))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][2:4] == ["running", "pid"]
    assert ["traces", "otlp", "batch", "otlp_http"] in lines
    assert ["logs", "otlp", "none", "debug"] in lines
    assert ["otlp", "spans", "1,200", "0.0", "0"] in lines
    assert ["batch", "traces", "1,200", "0.0", "1,100"] in lines
    assert any(line[:3] == ["otlp_http", "spans", "1,050"] and line[-2:] == ["40", "–"] for line in lines)
    assert ["otlp_http", "3", "1,000"] in lines
    assert any("1200 observed = 1050 exported" in line for line in text.splitlines())
    assert "CONFIGURATION" not in text
    assert "authorization: '[REDACTED]'" in status_text(said, configuration=True)


def test_a_name_cannot_write_on_the_terminal(said: dict[str, Any]) -> None:
    said["pipelines"][0]["id"] = "traces/\x1b[2J\r\x9b"
    assert not [written for written in ("\x1b[2J", "\r", "\x9b") if written in status_text(said)]


@pytest.fixture
def served() -> Iterator[StatusSocket]:
    socket_ = StatusSocket(lambda wait: {"answer": "é" * 200_000})
    yield socket_
    socket_.stop()


def test_an_agent_is_found_and_answers(served: StatusSocket) -> None:
    assert ask(running_agents()[os.getpid()]) == {"answer": "é" * 200_000, "uid": os.geteuid()}


def test_an_agent_is_gone_when_it_has_stopped() -> None:
    StatusSocket(lambda wait: {}).stop()
    assert os.getpid() not in running_agents()


def test_another_user_is_told_nothing(served: StatusSocket) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    code = (
        "import os, sys, socket; os.setgroups([]); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        "s.connect('\\0' + sys.argv[1]); print(len(s.recv(9)))"
    )
    name = running_agents()[os.getpid()]
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_an_agent_of_another_user_is_believed_by_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    served = StatusSocket(lambda wait: {})
    monkeypatch.setattr(status_socket, "_uid_of", lambda connected: 12_345 if connected.getpeername() else os.geteuid())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ask(running_agents()[os.getpid()]) == {"uid": 12_345}
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    with pytest.raises(NotAnswered, match="as another user"):
        ask(running_agents()[os.getpid()])
    served.stop()


def test_a_client_that_does_not_read_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_socket, "_CLIENT_SECONDS", 0.2)
    served = StatusSocket(lambda wait: {"x": "x" * 10_000_000})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{running_agents()[os.getpid()]}")
        assert len(ask(running_agents()[os.getpid()])["x"]) == 10_000_000
    served.stop()


def test_a_defect_costs_an_answer_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def fail(wait: object) -> None:
        raise ZeroDivisionError

    served = StatusSocket(fail)
    for _ in range(2):
        with pytest.raises(NotAnswered):
            ask(running_agents()[os.getpid()])
    served.stop()
    assert [record.getMessage() for record in caplog.records] == ["The status could not be told"] * 2


def test_the_end_does_not_wait_for_who_asks() -> None:
    asked = Event()

    def read(wait: Any) -> dict[str, bool]:
        asked.set()
        return {"ended": wait(60)}

    served, answers = StatusSocket(read), []
    client = Thread(target=lambda: answers.append(ask(running_agents()[os.getpid()])))
    client.start()
    asked.wait(5)
    began = time.monotonic()
    served.stop()
    assert time.monotonic() - began < 1
    client.join()
    assert answers == [{"ended": True, "uid": os.geteuid()}]


def test_the_command_says_that_no_agent_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_socket, "running_agents", dict)
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stderr) == (1, "Error: no agent runs here\n")


def test_the_command_asks_which_of_several_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_socket, "running_agents", lambda: {7: "a", 5: "b"})
    result = CliRunner().invoke(main, ["status"])
    assert (result.exit_code, result.stderr) == (1, "Error: several agents run; choose by --pid one of 5, 7\n")
    assert "no agent runs here with the pid 6" in CliRunner().invoke(main, ["status", "--pid", "6"]).stderr


def test_a_real_agent_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(CONFIGURATION)
    command = Path(sys.executable).with_name("wirespan")
    ports = ("receivers.otlp.protocols.http", "extensions.health_check")
    settings = [f"--set={path}.endpoint=127.0.0.1:{free_port()}" for path in ports]
    settings.append("--set=service.telemetry.metrics.level=none")
    with subprocess.Popen([command, "run", "--config", file, *settings], stderr=subprocess.DEVNULL) as agent:
        try:
            asked = [command, "status", "--json", "--pid", str(agent.pid)]

            def answer() -> Any:
                done = subprocess.run(asked, capture_output=True, text=True, check=False)
                return done.returncode == 0 and json.loads(done.stdout)["state"] == "running" and done.stdout

            said = json.loads(wait_until("an agent that runs", answer))
            assert said["pid"] == agent.pid
            assert [pipeline["id"] for pipeline in said["pipelines"]] == ["traces", "logs"]
            asked = [command, "status", "--pid", str(agent.pid)]
            assert "PIPELINE" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        finally:
            agent.terminate()
