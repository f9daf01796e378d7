"""SIGHUP to a real agent under load: every exchange is still seen once, and every request that was acknowledged arrives once."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sink import Sink
from support import servers
from support.agent import Agent
from support.counting import generate, redis_calls
from support.exchanges import accounts, assert_all_accounted, count_kinds, watch
from support.own_metrics import own_metrics
from support.processes import free_port
from support.receiving import METHOD_OF
from support.reloading import reload
from support.waiting import wait_until

#: what may end while the counts of an account that begins or ends are read, at 20,000 exchanges a second
AT_A_MOMENT = 10


def programs(agent: Agent) -> set[str]:
    """The ids of the kernel's programs that the agent holds."""
    found = set()
    for file in Path(f"/proc/{agent.pid}/fdinfo").iterdir():
        try:
            lines = file.read_text().splitlines()
        except FileNotFoundError:  # closed meanwhile
            continue
        found |= {line for line in lines if line.startswith("prog_id")}
    return found


@contextmanager
def busy(port: int) -> Iterator[None]:
    """redis-benchmark again and again; the last one has ended at the end of the block."""
    stopped = Event()

    def ask() -> None:
        while not stopped.is_set():
            generate("redis-benchmark", "-p", port, "-n", 4_000, "-c", 20, "-t", "set", "-q")

    asking = Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stopped.set()
        asking.join()


@pytest.mark.requires_bpf
@pytest.mark.requires_command("redis-server", "redis-benchmark")
def test_the_kernel_is_watched_without_a_gap_while_pipelines_change(tmp_path: Path) -> None:
    second, third = tmp_path / "second.jsonl", tmp_path / "third.jsonl"

    def add(configuration: dict[str, Any]) -> None:
        configuration["exporters"]["file/second"] = {"path": str(second)}
        configuration["processors"] = {"batch": None}
        pipeline = configuration["service"]["pipelines"]["traces"]
        pipeline["exporters"], pipeline["processors"] = ["file", "file/second"], ["batch"]

    def change(configuration: dict[str, Any]) -> None:
        configuration["exporters"]["file/second"] = {"path": str(third)}

    def remove(configuration: dict[str, Any]) -> None:
        pipeline = configuration["service"]["pipelines"]["traces"]
        pipeline["exporters"], pipeline["processors"] = ["file"], []

    with servers.redis(tmp_path) as server, watch(tmp_path, server.port) as agent:
        before = programs(agent)
        with busy(server.port):
            for turn in (add, change, remove):
                time.sleep(0.5)
                reload(agent, tmp_path, turn)
            time.sleep(0.5)
        assert programs(agent) == before != set()
        assert agent.process.stop() == 0, agent.log
        calls = sum(redis_calls(server.port).values())
        account = [account for account in accounts(agent) if account["exporter"] == "file"][-1]
        assert (account["sum"], account["unaccounted"]) == (f"{2 * calls} observed = {2 * calls} exported", 0)
        assert count_kinds(tmp_path / "spans.jsonl") == {"SERVER": calls, "CLIENT": calls}
        parts = [count_kinds(file)["SERVER"] for file in (second, third)]
        assert all(0 < part < calls for part in parts)
        assert sum(parts) < calls
        (ended,) = [account for account in accounts(agent) if account["exporter"] == "file/second"]
        assert abs(ended["unaccounted"]) < AT_A_MOMENT


@pytest.mark.requires_bpf
@pytest.mark.requires_command("redis-server", "redis-benchmark")
def test_a_receiver_whose_section_changes_says_how_long_it_saw_nothing(tmp_path: Path) -> None:
    def change(configuration: dict[str, Any]) -> None:
        configuration["receivers"]["ebpf"]["settle"] = "500ms"

    with (
        own_metrics() as metrics,
        servers.redis(tmp_path) as server,
        watch(tmp_path, server.port, metrics=metrics) as agent,
    ):
        began = time.monotonic()
        before = programs(agent)
        with busy(server.port):
            time.sleep(0.5)
            reload(agent, tmp_path, change)
            took = time.monotonic() - began
            assert not before & programs(agent)
            restarted = count_kinds(tmp_path / "spans.jsonl")["SERVER"]
            wait_until("more", lambda: count_kinds(tmp_path / "spans.jsonl")["SERVER"] > restarted + 5_000)
        assert agent.process.stop() == 0, agent.log
        calls = sum(redis_calls(server.port).values())
    account = assert_all_accounted(agent)
    assert account["exported"] <= 2 * calls
    assert 0 < metrics.seconds("wirespan.receiver.gap", receiver="ebpf") < took


@pytest.mark.requires_bpf
def test_a_mistake_and_a_port_in_use_change_nothing(tmp_path: Path) -> None:
    def misspell(configuration: dict[str, Any]) -> None:
        configuration["service"]["pipelines"]["traces"]["exporters"] = ["fiel"]

    def collide(configuration: dict[str, Any]) -> None:
        pipelines = {"traces": {"receivers": ["ebpf", "otlp"], "exporters": ["file"]}}
        configuration["receivers"]["otlp"] = {"protocols": {"http": {"endpoint": f"127.0.0.1:{sink.http_port}"}}}
        configuration["service"]["pipelines"] = pipelines

    with Sink() as sink, watch(tmp_path, free_port()) as agent:
        before = programs(agent)
        reload(agent, tmp_path, misspell, "The configuration is not valid. Nothing was changed.")
        assert 'is not configured under exporters; did you mean \\"file\\"?' in agent.log
        reload(agent, tmp_path, collide, "The new configuration cannot run. Going back to the one before.")
        assert f"cannot listen on 127.0.0.1:{sink.http_port}" in agent.log
        assert programs(agent) == before


class Sender(Thread):
    """Sends spans, each with an id of its own, until it is told to stop; those that were acknowledged count."""

    def __init__(self, which: int, grpc_port: int, http_port: int) -> None:
        super().__init__()
        self._which, self._grpc_port, self._http_port = which, grpc_port, http_port
        self.stopped, self.acknowledged = Event(), 0

    def run(self) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{self._grpc_port}") as channel:
            call = channel.unary_unary(METHOD_OF["traces"])
            connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=20)
            while not self.stopped.is_set():
                body = self._request()
                if self._which % 2:
                    call(body, timeout=20)
                else:
                    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
                    response = connection.getresponse()
                    assert (response.status, response.read()) == (200, b"")
                self.acknowledged += 1

    def _request(self) -> bytes:
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id, span.name = self._which.to_bytes(16, "big"), f"{self._which} {self.acknowledged}"
        span.span_id = (self.acknowledged + 1).to_bytes(8, "big")
        return request.SerializeToString()


def test_what_was_acknowledged_arrives_once_while_everything_behind_changes(tmp_path: Path) -> None:
    with Sink() as sink:
        grpc_port, http_port = free_port(), free_port()
        endpoints = {"grpc": {"endpoint": f"127.0.0.1:{grpc_port}"}, "http": {"endpoint": f"127.0.0.1:{http_port}"}}
        exporters = {
            "otlp_grpc": {"endpoint": f"http://127.0.0.1:{sink.grpc_port}"},
            "otlp_http": {"endpoint": f"http://127.0.0.1:{sink.http_port}"},
        }
        configuration = {
            "receivers": {"otlp": {"protocols": endpoints}},
            "processors": {"batch": {"timeout": "50ms"}},
            "exporters": exporters,
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_grpc"]}},
                "telemetry": {"metrics": {"level": "none"}, "logs": {"encoding": "json"}},
            },
        }

        def pipeline(**parts: list[str]) -> Callable[[dict[str, Any]], None]:
            def change(configuration: dict[str, Any]) -> None:
                configuration["service"]["pipelines"]["traces"].update(parts)

            return change

        def queue(configuration: dict[str, Any]) -> None:
            configuration["exporters"]["otlp_grpc"]["sending_queue"] = {"num_consumers": 3}

        with Agent(configuration, tmp_path) as agent:
            senders = [Sender(which, grpc_port, http_port) for which in range(4)]
            for sender in senders:
                sender.start()
            for turn in (
                pipeline(processors=["batch"]),
                queue,
                pipeline(exporters=["otlp_http"]),
                pipeline(processors=[]),
                pipeline(exporters=["otlp_grpc"]),
            ):
                time.sleep(0.4)
                reload(agent, tmp_path, turn)
            time.sleep(0.4)
            for sender in senders:
                sender.stopped.set()
                sender.join()
        arrived = Counter(span.name for _, span in sink.spans)
        sent = {f"{sender._which} {number}" for sender in senders for number in range(sender.acknowledged)}
        assert all(sender.acknowledged > 50 for sender in senders)
        assert arrived == Counter(sent)
        assert [account["unaccounted"] for account in accounts(agent)] == [0] * len(accounts(agent))


def test_what_waits_in_a_queue_stays_there_if_its_exporter_is_the_same(tmp_path: Path) -> None:
    """The backend is down while the pipeline changes."""
    backend, http_port = free_port(), free_port()
    retry = {"initial_interval": "200ms", "max_interval": "200ms"}
    configuration = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{http_port}"}}}},
        "processors": {"batch": None},
        "exporters": {
            "otlp_http": {"endpoint": f"http://127.0.0.1:{backend}", "retry_on_failure": retry},
            "debug": {"verbosity": "basic"},
        },
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"encoding": "json"}},
        },
    }

    def change(configuration: dict[str, Any]) -> None:
        configuration["service"]["pipelines"]["traces"].update(processors=["batch"], exporters=["otlp_http", "debug"])

    with Agent(configuration, tmp_path) as agent:
        sender = Sender(0, 0, http_port)
        sender.start()
        wait_until("spans", lambda: sender.acknowledged >= 20)
        reload(agent, tmp_path, change)
        sender.stopped.set()
        sender.join()
        with Sink(http_port=backend, grpc_port=None) as sink:
            wait_until("all of them", lambda: len(sink.spans) >= sender.acknowledged)
            assert len({span.span_id for _, span in sink.spans}) == len(sink.spans) == sender.acknowledged
