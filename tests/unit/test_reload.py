"""Another configuration takes the place of the one that runs: what goes on, what is restarted, and that nothing is lost."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Annotated, Any

import pytest

from support.processes import free_port
from support.waiting import wait_until
from wirespan.pipeline.component import (
    ComponentConfig,
    Context,
    ExtensionOf,
    Factory,
    Outcome,
    Signal,
    StartError,
)
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.service import service as service_module
from wirespan.service import telemetry as telemetry_module
from wirespan.service.config import load
from wirespan.service.registry import Registry
from wirespan.service.service import CannotGoOn, Service
from wirespan.service.telemetry import Telemetry

BATCH = EncodedBatch("traces", b"", 1)
BOTH: frozenset[Signal] = frozenset({"traces", "logs"})


class Settings(ComponentConfig):
    """version: to differ in. uses: an extension."""

    version: int = 1
    refuses: bool = False
    uses: Annotated[str, ExtensionOf(object)] | None = None


@dataclass
class Part:
    """A component; a processor holds back what it gets until it is stopped, an exporter notes it."""

    kind: str
    settings: Settings
    context: Context
    bed: Bed
    behind: Any = None
    held: int = 0
    lock: Lock = field(default_factory=Lock)  # guards held
    running: bool = False

    def prepare(self) -> None:
        self.bed.events.append(f"prepare {self.context.id} {self.settings.version}")

    def start(self) -> None:
        if self.settings.refuses and self.bed.refusing:
            raise StartError("it refuses")
        self.bed.events.append(f"start {self.context.id} {self.settings.version}")
        self.running = True
        if self.kind == "exporter":
            self.context.counters.gauge("queue", lambda: self.settings.version, exporter=self.context.id)

    def ready(self) -> None:
        self.bed.events.append("ready")

    def not_ready(self) -> None:
        self.bed.events.append("not ready")

    def consume_encoded(self, batch: EncodedBatch) -> Outcome:
        self.bed.gate.wait(5)
        assert self.running, f"{self.context.id} got a batch when it did not run"
        if self.kind == "processor":
            with self.lock:
                self.held += len(batch)
            return Outcome.TAKEN
        self.context.counters.add("otelcol_exporter_sent_spans", len(batch), exporter=self.context.id)
        return Outcome.TAKEN

    def shutdown(self, deadline: float) -> None:
        for _ in range(self.held):
            self.behind.consume_encoded(BATCH)
        self.held = 0
        self.running = False
        self.bed.events.append(f"stop {self.context.id} {self.settings.version}")

    def send(self) -> None:
        output = self.behind.traces or self.behind.logs
        self.context.counters.add("otelcol_receiver_accepted_spans", 1, receiver=self.context.id, transport="http")
        assert output.consume_encoded(BATCH) is Outcome.TAKEN


@dataclass
class Bed:
    """Runs configurations of such components. refusing: whether those that are to refuse do. gate: closed, exporters wait."""

    folder: Path
    counters: Counters = field(default_factory=Counters)
    events: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    refusing: bool = True
    gate: Event = field(default_factory=Event)
    levels: list[str] = field(default_factory=list)

    def read(self, text: str) -> Any:
        def create(kind: str) -> Callable[..., Part]:
            def make(settings: Settings, context: Context, behind: Any = None) -> Part:
                part = Part(kind, settings, context, self, behind)
                self.parts.append(part)
                return part

            return make

        if not hasattr(self, "registry"):
            kinds = {"receiver": "source", "processor": "hold", "exporter": "sink", "extension": "helper"}
            factories = [
                Factory(kind, name, Settings, create(kind), signals=BOTH, encoded_spans=True, offers=(object,))  # type: ignore[arg-type]
                for kind, name in kinds.items()
            ]
            self.registry = Registry(lambda: factories)
        file = self.folder / "w.yaml"
        file.write_text(text)
        return load(file, {}, ("service.telemetry.metrics.level=none",), self.registry)

    def start(self, text: str) -> Service:
        self.gate.set()
        configuration = self.read(text)
        telemetry = Telemetry(self.counters)
        telemetry.follow(configuration.telemetry)
        service = Service(configuration, self.counters, telemetry)
        service.start()
        self.events.clear()
        return service

    def reload(self, service: Service, text: str) -> str:
        self.events.clear()
        return service.reload(lambda: self.read(text))

    def changes(self) -> list[str]:
        """What was started and stopped."""
        return [event for event in self.events if event.startswith(("start", "stop"))]

    def sent(self, exporter: str) -> int:
        return self.counters.snapshot().get(("otelcol_exporter_sent_spans", (("exporter", exporter),)), 0)

    def the(self, id_: str) -> Part:
        (running,) = [part for part in self.parts if part.context.id == id_ and part.running]
        return running


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    levels: list[str] = []
    monkeypatch.setattr(telemetry_module, "log_to_stderr", lambda settings: levels.append(settings.level))
    return Bed(tmp_path, levels=levels)


def configured(
    exporters: str = "[sink]",
    processors: str = "[]",
    sink: str = "",
    hold: str = "",
    source: str = "",
    helper: str = "",
    further: str = "",
) -> str:
    return (
        f"receivers: {{source: {source}}}\nprocessors: {{hold: {hold}}}\nexporters: {{sink: {sink}, sink/b: }}\n"
        f"extensions: {{helper: {helper}}}\n"
        "service:\n  extensions: [helper]\n"
        f"  pipelines: {{traces: {{receivers: [source], processors: {processors}, exporters: {exporters}}}{further}}}\n"
    )


def test_what_means_the_same_changes_nothing(bed: Bed) -> None:
    service = bed.start(configured())
    assert bed.reload(service, configured().replace("sink/b: }", "sink/b: {version: 7}, sink/c: }")) == "unchanged"
    assert bed.events == []


def test_a_mistake_changes_nothing_and_is_told(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    service = bed.start(configured())
    assert bed.reload(service, configured(exporters="[sunk]", sink="{version: many}")) == "invalid"
    assert bed.events == []
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert told[0].endswith('exporters.sink.version: "many" is not a whole number')
    assert '"sunk" is not configured under exporters; did you mean "sink"?' in told[1]
    assert told[2] == "The configuration is not valid. Nothing was changed."
    bed.the("source").send()
    assert bed.sent("sink") == 1


def test_what_is_the_same_runs_on_beside_what_is_new(bed: Bed) -> None:
    service = bed.start(configured())
    source = bed.the("source")
    assert bed.reload(service, configured(exporters="[sink, sink/b]")) == "replaced"
    assert bed.events == ["prepare sink/b 1", "not ready", "start sink/b 1", "ready"]
    source.send()
    assert (bed.sent("sink"), bed.sent("sink/b")) == (1, 1)


@pytest.mark.parametrize(
    ("change", "events"),
    [
        ({"processors": "[hold]"}, ["start hold 1"]),
        ({"sink": "{version: 2}"}, ["stop sink 1", "start sink 2"]),
        ({"exporters": "[sink/b]"}, ["stop sink 1", "start sink/b 1"]),
        ({"source": "{version: 2}"}, ["stop source 1", "start source 2"]),
        (
            {"helper": "{version: 2}"},
            ["stop helper 1", "start helper 2"],
        ),
        (
            {"further": ", logs: {receivers: [source], exporters: [sink/b]}"},
            ["stop source 1", "start sink/b 1", "start source 1"],
        ),
        (
            {"source": "{version: 2}", "sink": "{version: 2}"},
            ["stop source 1", "stop sink 1", "start sink 2", "start source 2"],
        ),
    ],
    ids=["processor", "exporter", "another", "receiver", "extension", "signal", "both"],
)
def test_what_is_no_more_stops_before_what_is_new_starts(bed: Bed, change: dict[str, str], events: list[str]) -> None:
    service = bed.start(configured())
    bed.the("source").send()
    assert bed.reload(service, configured(**change)) == "replaced"
    assert bed.changes() == events
    bed.the("source").send()
    service.shutdown(time.monotonic() + 1)
    assert bed.sent("sink") + bed.sent("sink/b") == 2


def test_who_cannot_even_be_prepared_changes_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(self: Part) -> None:
        raise StartError("the kernel said no")

    service = bed.start(configured())
    monkeypatch.setattr(Part, "prepare", prepare)
    assert bed.reload(service, configured(sink="{version: 2}")) == "failed"
    assert bed.changes() == ["stop sink 2"]
    bed.the("source").send()
    assert bed.sent("sink") == 1


def test_who_uses_an_extension_is_restarted_with_it(bed: Bed) -> None:
    service = bed.start(configured(sink="{uses: helper}"))
    assert bed.reload(service, configured(sink="{uses: helper}", helper="{version: 2}")) == "replaced"
    stops = ["stop sink 1", "stop helper 1", "start helper 2", "start sink 1"]
    assert bed.changes() == stops


def test_what_a_processor_holds_is_flushed_to_where_it_was_to_go(bed: Bed) -> None:
    service = bed.start(configured(processors="[hold]"))
    for _ in range(5):
        bed.the("source").send()
    assert bed.sent("sink") == 0
    assert bed.reload(service, configured(processors="[hold]", exporters="[sink/b]")) == "replaced"
    assert (bed.sent("sink"), bed.sent("sink/b")) == (5, 0)
    bed.the("source").send()
    service.shutdown(time.monotonic() + 1)
    assert (bed.sent("sink"), bed.sent("sink/b")) == (5, 1)


@contextmanager
def flowing(bed: Bed) -> Iterator[Callable[[], int]]:
    """Four threads of the receiver send all the time; how many batches, once they are through."""
    stopped, counts, source = Event(), [0] * 4, bed.the("source")

    def send(which: int) -> None:
        while not stopped.is_set():
            source.send()
            counts[which] += 1

    threads = [Thread(target=send, args=(which,)) for which in range(4)]

    def total() -> int:
        stopped.set()
        for thread in threads:
            thread.join()
        return sum(counts)

    for thread in threads:
        thread.start()
    try:
        yield total
    finally:
        stopped.set()


def test_nothing_is_lost_or_doubled_while_data_flows(bed: Bed) -> None:
    service = bed.start(configured())
    variants = [
        configured(processors="[hold]"),
        configured(processors="[hold]", sink="{version: 2}"),
        configured(processors="[hold]", hold="{version: 2}", sink="{version: 2}"),
        configured(sink="{version: 3}"),
    ]
    with flowing(bed) as total:
        for turn in range(12):
            assert bed.reload(service, variants[turn % 4]) == "replaced"
            time.sleep(0.01)
        sent = total()
    service.shutdown(time.monotonic() + 5)
    assert bed.sent("sink") == sent > 100
    (identity,) = service.identities()
    assert (identity.observed, identity.exported, identity.unaccounted) == (sent, sent, 0)


def test_who_cannot_start_makes_room_for_what_was_before(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    service = bed.start(configured(sink="{version: 2}"))
    source = bed.the("source")
    refusing = configured(processors="[hold]", exporters="[sink, sink/c]", sink="{version: 3}")
    refusing = refusing.replace("sink/b: }", "sink/b: , sink/c: {refuses: true}}")
    with flowing(bed) as total:
        time.sleep(0.01)
        assert bed.reload(service, refusing) == "failed"
        time.sleep(0.01)
        sent = total()
    events = bed.changes()
    tried = ["stop sink 2", "start sink 3", "stop sink 3"]
    prepared = ["stop sink 3", "stop sink/c 1", "stop hold 1"]  # what does not run any more is told to stop, too
    assert events == [*tried, *prepared, "start sink 2"]
    assert source.running
    assert bed.sent("sink") == sent
    assert "The new configuration cannot run. Going back to the one before." in caplog.text
    assert service.configuration.components["exporter"]["sink"].config == Settings(version=2)
    assert bed.reload(service, configured(sink="{version: 2}")) == "unchanged"


def test_if_nothing_can_run_any_more_that_is_said(bed: Bed) -> None:
    bed.refusing = False
    service = bed.start(configured(sink="{refuses: true}"))
    bed.refusing = True
    with pytest.raises(CannotGoOn, match="sink cannot start: it refuses"):
        bed.reload(service, configured(sink="{refuses: true, version: 2}"))


def test_what_finds_no_room_in_time_keeps_everything_as_it_is(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "PAUSE_SECONDS", 0.1)
    service = bed.start(configured())
    bed.gate.clear()
    sender = Thread(target=bed.the("source").send)
    sender.start()
    wait_until("a batch that waits", lambda: threading.active_count() > 1 and sender.is_alive())
    time.sleep(0.05)
    assert bed.reload(service, configured(sink="{version: 2}")) == "failed"
    assert bed.events == ["prepare sink 2", "stop sink 2"]
    bed.gate.set()
    sender.join()
    bed.the("source").send()
    assert bed.sent("sink") == 2
    assert bed.counters.gauges()["queue", (("exporter", "sink"),)] == 1


def test_gauges_go_with_what_they_are_of_and_sums_stay(bed: Bed) -> None:
    service = bed.start(configured())
    bed.the("source").context.counters.source(lambda: {("kernel", ()): 5})
    bed.the("source").send()
    bed.reload(service, configured(exporters="[sink/b]", source="{version: 2}"))
    bed.the("source").context.counters.source(lambda: {("kernel", ()): 2})
    gauges = bed.counters.gauges()
    assert ("queue", (("exporter", "sink"),)) not in gauges
    assert gauges["queue", (("exporter", "sink/b"),)] == 1
    assert bed.sent("sink") == 1
    assert bed.counters.snapshot()["kernel", ()] == 7


def test_a_gap_of_a_receiver_and_what_became_of_reloads_are_counted(bed: Bed) -> None:
    service = bed.start(configured())
    bed.reload(service, configured(sink="{version: 2}"))
    assert bed.counters.durations().keys() & {("wirespan.receiver.gap", (("receiver", "source"),))} == set()
    bed.reload(service, configured(source="{version: 2}", sink="{version: 2}"))
    bed.reload(service, configured(source="{version: 2}", sink="{version: 2}"))
    assert 0 < bed.counters.durations()["wirespan.receiver.gap", (("receiver", "source"),)] < 1
    sums = bed.counters.snapshot()
    assert {key[1]: value for key, value in sums.items() if key[0] == "wirespan.reloads"} == {
        (("result", "replaced"),): 2,
        (("result", "unchanged"),): 1,
    }


def test_an_exporter_is_accounted_for_since_it_is_fed_as_it_is(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    service = bed.start(configured())
    bed.the("source").send()
    bed.the("source").send()
    with caplog.at_level(logging.INFO):
        bed.reload(service, configured(exporters="[sink, sink/b]"))
    assert "exchanges" not in [record.getMessage() for record in caplog.records]
    bed.the("source").send()
    assert [(one.exporter, one.observed, one.unaccounted) for one in service.identities()] == [
        ("sink", 3, 0),
        ("sink/b", 1, 0),
    ]
    with caplog.at_level(logging.INFO):
        bed.reload(service, configured(exporters="[sink/b]"))
    (ended,) = [record for record in caplog.records if record.getMessage() == "exchanges"]
    assert (vars(ended)["exporter"], vars(ended)["sum"]) == ("sink", "3 observed = 3 exported")


def scrapes(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status == 200
    except OSError:
        return False


def test_own_telemetry_follows_or_stays(bed: Bed) -> None:
    first, second = free_port(), free_port()

    def pulled(port: int, level: str = "info") -> str:
        reader = f"{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}"
        telemetry = f"  telemetry: {{logs: {{level: {level}}}, metrics: {{level: normal, readers: [{reader}]}}}}\n"
        return configured() + telemetry

    def reload(text: str) -> str:
        file = bed.folder / "w.yaml"
        file.write_text(text)
        return service.reload(lambda: load(file, {}, (), bed.registry))

    service = bed.start(configured())
    assert reload(pulled(first)) == "replaced"
    assert scrapes(first)
    assert reload(pulled(second, "debug")) == "replaced"
    assert (scrapes(first), scrapes(second)) == (False, True)
    assert bed.levels == ["info", "debug"]
    assert bed.events == ["not ready", "ready"] * 2
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        assert reload(pulled(taken)) == "failed"
    assert scrapes(second)
    assert bed.levels == ["info", "debug", "info", "debug"]
