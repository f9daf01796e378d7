"""Whole runs in processes of their own: ready, signals, failures, exit statuses, and what the log says.

This file is also the program that the tests run: it knows a receiver that makes spans up and an exporter that counts
them, each with the ways to fail that a test asks for.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wirespan.pipeline.component import ComponentConfig, Context, Factory, Outputs, StartError
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, ResourceTable, SpanBatch, StatusCode
from wirespan.service import lifecycle
from wirespan.service.config import Configuration, load
from wirespan.service.lifecycle import READY, run
from wirespan.service.registry import Registry

CONFIGURATION = """\
receivers: {source: %s}
exporters: {count: %s}
service:
  telemetry: {logs: {encoding: json, level: debug}}
  pipelines: {traces: {receivers: [source], exporters: [count]}}
"""


class SourceSettings(ComponentConfig):
    spans: int = 10
    sampled_out: int = 0
    dropped: int = 0
    refuses: bool = False
    broken_start: bool = False
    thread_dies: bool = False
    slow_stop: float = 0


class Source:
    """Sends one batch from a thread of its own."""

    def __init__(self, config: SourceSettings, context: Context, outputs: Outputs) -> None:
        self._config = config
        self._counters = context.counters
        assert outputs.traces is not None
        self._consumer = outputs.traces
        self._thread = threading.Thread(target=self._work, name="source")

    def facts(self) -> dict[str, int]:
        return {"processes": 7}

    def start(self) -> None:
        if self._config.refuses:
            raise StartError("the kernel said no")
        if self._config.broken_start:
            raise ZeroDivisionError
        self._thread.start()

    def _work(self) -> None:
        if self._config.thread_dies:
            raise LookupError("lost")
        config, counters = self._config, self._counters
        counters.add("wirespan.exchanges.observed", config.spans + config.sampled_out + config.dropped)
        counters.add("wirespan.exchanges.sampled_out", config.sampled_out)
        counters.add("wirespan.exchanges.dropped", config.dropped, reason="ring_full")
        self._consumer.consume(batch_of(config.spans))

    def shutdown(self, deadline: float) -> None:
        self._thread.join()
        time.sleep(self._config.slow_stop)


class CountSettings(ComponentConfig):
    lost: int = 0
    stop_error: bool = False


class Count:
    """Keeps spans until it is told to flush."""

    def __init__(self, config: CountSettings, context: Context) -> None:
        self._config = config
        self._id = context.id
        self._counters = context.counters
        self._kept = 0

    def facts(self) -> dict[str, str]:
        return {"exports_to": "nowhere"}

    def start(self) -> None:
        pass

    def consume(self, batch: SpanBatch) -> None:
        self._kept += len(batch)

    def shutdown(self, deadline: float) -> None:
        self._counters.add("otelcol_exporter_sent_spans", self._kept - self._config.lost, exporter=self._id)
        self._counters.add("otelcol_exporter_send_failed_spans", self._config.lost, exporter=self._id)
        if self._config.stop_error:
            raise OSError("disk full")


def batch_of(size: int) -> SpanBatch:
    ids = np.arange(1, size + 1, dtype=np.uint64)
    resources, fragments = ResourceTable(), FragmentTable()
    resources.intern({"service.name": "shop"})
    fragments.intern(Fragment("GET"))
    fragments.intern(Fragment("GET", status=StatusCode.ERROR))
    return SpanBatch(
        trace_id=np.ones((size, 2), np.uint64),
        span_id=ids,
        parent_span_id=ids,
        start=ids,
        end=ids,
        kind=np.ones(size, np.uint8),
        resource=np.zeros(size, np.int64),
        resources=resources,
        fragments=(FragmentColumn(fragments, np.arange(size) % 2),),
    )


FACTORIES = [
    Factory("receiver", "source", SourceSettings, Source),
    Factory("exporter", "count", CountSettings, Count),
]


class Running:
    """A run in a process, and its log as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []

    def until(self, message: str) -> dict[str, Any]:
        """Read the log up to an entry with this message."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))
            if self.log[-1]["msg"] == message:
                return self.log[-1]
        raise AssertionError(f"no {message!r} in {self.log}")

    def end(self) -> int:
        """The exit status; the rest of the log is read, and every line of it has to be an entry."""
        assert self.process.stderr is not None
        self.log += [json.loads(line) for line in self.process.stderr]
        return self.process.wait(10)

    def entry(self, message: str) -> dict[str, Any]:
        (found,) = [entry for entry in self.log if entry["msg"] == message]
        return found


@contextmanager
def running(folder: Path, source: str = "", count: str = "", summary_seconds: float = 60) -> Iterator[Running]:
    """summary_seconds: what the program takes for a minute."""
    file = folder / "w.yaml"
    file.write_text(CONFIGURATION % (source, count), encoding="utf-8")
    command = [sys.executable, __file__, str(file), str(summary_seconds)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as agent:
        agent.until(READY)
        agent.process.send_signal(number)
        assert agent.end() == 0
    exchanges = agent.entry("exchanges")
    assert (exchanges["observed"], exchanges["exported"], exchanges["unaccounted"]) == (10, 10, 0)


def test_ready_is_said_after_everything_has_started(tmp_path: Path) -> None:
    with running(tmp_path) as agent:
        agent.until(READY)
    started = [entry["component"] for entry in agent.log if entry["msg"] == "Started"]
    assert started == ["count", "source"]


def test_a_line_of_facts_follows_ready(tmp_path: Path) -> None:
    with running(tmp_path) as agent:
        agent.until("Watching")
    ready, facts = agent.log[-2:]
    assert ready["msg"] == READY
    assert (facts["level"], facts["processes"], facts["exports_to"]) == ("info", 7, "nowhere")


def test_every_minute_a_line_sums_up_what_was_seen(tmp_path: Path) -> None:
    with running(tmp_path, "{spans: 70}", summary_seconds=0.6) as agent:
        first, second = agent.until("The last minute"), agent.until("The last minute")
    seen = {key: first[key] for key in ("level", "spans", "errors", "services")}
    assert seen == {"level": "info", "spans": 70, "errors": 35, "services": "shop 70"}
    assert 0 < first["per_second"] <= 70
    assert (second["spans"], second["errors"]) == (0, 0)
    assert "services" not in second


def test_the_last_line_accounts_for_every_exchange(tmp_path: Path) -> None:
    with running(tmp_path, "{spans: 70, sampled_out: 20, dropped: 10}", "{lost: 5}") as agent:
        agent.until(READY)
        agent.process.terminate()
        agent.end()
    exchanges = agent.entry("exchanges")
    wanted = {
        "exporter": "count",
        "sum": "100 observed = 65 exported + 20 sampled_out + 10 dropped by ring_full + 5 dropped by send_failed",
        "observed": 100,
        "exported": 65,
        "sampled_out": 20,
        "excluded": 0,
        "dropped": {"ring_full": 10, "send_failed": 5},
        "in_flight": 0,
        "unaccounted": 0,
        "coverage": 0.85,
    }
    assert {key: exchanges[key] for key in wanted} == wanted
    assert agent.log[-1] is exchanges


def test_a_receiver_that_cannot_start_is_explained_with_status_1_and_no_traceback(tmp_path: Path) -> None:
    with running(tmp_path, "{refuses: true}") as agent:
        assert agent.end() == 1
    entry = agent.entry("the receiver source cannot start: the kernel said no")
    assert entry["level"] == "error"
    assert not any("stacktrace" in entry for entry in agent.log)
    assert not {READY, "exchanges"} & {entry["msg"] for entry in agent.log}  # there were none to account for


def test_a_bug_at_start_ends_with_status_1_and_everything_stopped(tmp_path: Path) -> None:
    with running(tmp_path, "{broken_start: true}", "{stop_error: true}") as agent:
        assert agent.end() == 1
    assert "ZeroDivisionError" in agent.entry("wirespan failed; this is a bug in it")["stacktrace"]
    assert "disk full" in agent.entry("A component failed to stop")["stacktrace"]  # the exporter was told to flush


def test_a_receivers_dead_thread_ends_the_run_with_status_1(tmp_path: Path) -> None:
    with running(tmp_path, "{thread_dies: true}") as agent:
        assert agent.end() == 1
    failure = agent.entry("A thread failed; stopping")
    assert failure["thread_name"] == "source"
    assert "LookupError: lost" in failure["stacktrace"]
    assert agent.entry("exchanges")["unaccounted"] == 0


def test_an_exporter_that_fails_to_flush_makes_the_status_1(tmp_path: Path) -> None:
    with running(tmp_path, "", "{stop_error: true}") as agent:
        agent.until(READY)
        agent.process.terminate()
        assert agent.end() == 1
    assert "disk full" in agent.entry("A component failed to stop")["stacktrace"]


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "{slow_stop: 30}") as agent:
        agent.until(READY)
        agent.process.send_signal(signal.SIGINT)
        agent.until("Shutting down")
        asked = time.monotonic()
        agent.process.send_signal(signal.SIGINT)
        assert agent.end() == 130
        assert time.monotonic() - asked < 2


def test_a_component_that_overruns_the_deadline_does_not_keep_the_process(tmp_path: Path) -> None:
    with running(tmp_path, "{slow_stop: 30}") as agent:
        agent.until(READY)
        agent.process.terminate()
        asked = time.monotonic()
        assert agent.end() == 1
        assert time.monotonic() - asked < 10
    assert agent.log[-1]["msg"] == "A component did not stop in time; ending without it"


def test_a_hangup_reads_the_configuration_again(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    with running(tmp_path) as agent:
        agent.until("Watching")
        agent.process.send_signal(signal.SIGHUP)
        assert agent.until("The configuration says what it did before. Nothing was changed.")["level"] == "info"
        file.write_text(CONFIGURATION % ("", "{lost: few}"))
        agent.process.send_signal(signal.SIGHUP)
        assert agent.until("The configuration is not valid. Nothing was changed.")["level"] == "error"
        assert agent.log[-2]["msg"] == f'{file}:2: exporters.count.lost: "few" is not a whole number'
        file.write_text(CONFIGURATION % ("", "{lost: 1}"))
        agent.process.send_signal(signal.SIGHUP)
        replaced = agent.until("The configuration was replaced")
        assert (replaced["restarted"], replaced["kept"]) == (["exporter count"], ["receiver source"])
        agent.until("Watching")
        agent.process.terminate()
        assert agent.end() == 0
    exchanges = agent.entry("exchanges")
    assert (exchanges["observed"], exchanges["exported"], exchanges["unaccounted"]) == (10, 9, 0)


def test_a_run_ends_with_the_terminal_that_it_began_on(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(CONFIGURATION % ("", ""), encoding="utf-8")
    ours, its = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    command = [sys.executable, __file__, str(file), "60"]
    with subprocess.Popen(
        command, stdin=its, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=take_terminal
    ) as process:
        agent = Running(process)
        try:
            os.close(its)
            agent.until("Watching")
            process.send_signal(signal.SIGHUP)  # the terminal is still there
            agent.until("The configuration says what it did before. Nothing was changed.")
            os.close(ours)
            agent.until("Shutting down")
            assert agent.end() == 0
        finally:
            process.kill()


def test_a_hangup_that_was_ignored_stays_so(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does for what it starts
    try:
        with running(tmp_path) as agent:
            agent.until("Watching")
            agent.process.send_signal(signal.SIGHUP)
            agent.process.terminate()
            assert agent.end() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not any("SIGHUP" in entry["msg"] for entry in agent.log)


if __name__ == "__main__":
    configuration_file, registry = Path(sys.argv[1]), Registry(lambda: FACTORIES)
    lifecycle._SUMMARY_SECONDS = float(sys.argv[2])

    def read() -> Configuration:
        return load(configuration_file, os.environ, (), registry)

    sys.exit(run(read(), str(configuration_file), read=read))
