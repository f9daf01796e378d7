"""Extensions: what configurations may say of them, when they run, and how components find them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import pytest
from pydantic import Field

from wirespan.pipeline.component import ComponentConfig, Context, ExtensionOf, Factory, StartError
from wirespan.pipeline.counters import Counters
from wirespan.service.config import Configuration, load
from wirespan.service.document import ConfigurationError
from wirespan.service.graph import Graph
from wirespan.service.registry import Registry


@runtime_checkable
class Storage(Protocol):
    def store(self) -> str: ...


@runtime_checkable
class Authenticator(Protocol):
    def authenticate(self) -> str: ...


class Nothing(ComponentConfig):
    pass


class Queue(ComponentConfig):
    storage: Annotated[str, ExtensionOf(Storage)] | None = None


class SinkSettings(ComponentConfig):
    queue: Queue = Queue()
    queues: list[Queue] = Field(default_factory=list)
    auth: Annotated[str, ExtensionOf(Authenticator)] | None = None
    fails: bool = False


class Logged:
    """A component that says what happens to it. log: of all, in order."""

    log: list[str] = []  # noqa: RUF012  # emptied for each test

    def __init__(self, settings: Any, context: Context, outputs: Any = None) -> None:
        self.settings, self.context = settings, context

    def start(self) -> None:
        self.log.append(f"start {self.context.id}")

    def shutdown(self, deadline: float) -> None:
        self.log.append(f"stop {self.context.id}")


class Sink(Logged):
    def start(self) -> None:
        if self.settings.fails:
            raise StartError("it fails")
        storage = self.settings.queue.storage
        found = self.context.extension(storage, Storage).store() if storage else "nothing"
        self.log.append(f"start {self.context.id} with {found}")

    def consume(self, batch: Any) -> None: ...


class Disk(Logged):
    def store(self) -> str:
        return self.context.id


class Watcher(Logged):
    def ready(self) -> None:
        self.log.append("ready")

    def not_ready(self) -> None:
        self.log.append("not ready")


FACTORIES = [
    Factory("receiver", "probe", Nothing, Logged),
    Factory("exporter", "sink", SinkSettings, Sink),
    Factory("extension", "disk", Nothing, Disk, offers=(Storage,)),
    Factory("extension", "watcher", Nothing, Watcher),
]


@pytest.fixture(autouse=True)
def log() -> list[str]:
    Logged.log.clear()
    return Logged.log


def loaded(folder: Path, extensions: str, running: str, sink: str = "") -> Configuration:
    file = folder / "w.yaml"
    file.write_text(
        f"extensions: {extensions}\n"
        "receivers: {probe: }\n"
        f"exporters: {{sink: {sink}}}\n"
        f"service:\n  extensions: {running}\n"
        "  pipelines: {traces: {receivers: [probe], exporters: [sink]}}\n"
    )
    return load(file, {}, (), Registry(lambda: FACTORIES))


def problems(folder: Path, extensions: str, running: str, sink: str = "") -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        loaded(folder, extensions, running, sink)
    return [str(problem).removeprefix(f"{folder}/w.yaml:") for problem in raised.value.problems]


def test_extensions_start_first_in_their_order_and_stop_last(tmp_path: Path, log: list[str]) -> None:
    graph = Graph(loaded(tmp_path, "{disk: , watcher: }", "[watcher, disk]"), Counters())
    graph.start()
    assert log == ["start watcher", "start disk", "start sink with nothing", "start probe", "ready"]
    log.clear()
    assert graph.shutdown(time.monotonic() + 1)
    assert log == ["not ready", "stop probe", "stop sink", "stop disk", "stop watcher"]


def test_an_extension_is_not_told_that_all_is_ready_if_it_is_not(tmp_path: Path, log: list[str]) -> None:
    graph = Graph(loaded(tmp_path, "{watcher: }", "[watcher]", "{fails: true}"), Counters())
    with pytest.raises(StartError, match="the exporter sink cannot start: it fails"):
        graph.start()
    graph.shutdown(time.monotonic() + 1)
    assert log == ["start watcher", "not ready", "stop watcher"]


def test_a_component_finds_the_extension_that_its_configuration_names(tmp_path: Path, log: list[str]) -> None:
    Graph(
        loaded(tmp_path, "{disk/a: , disk/b: }", "[disk/a, disk/b]", "{queue: {storage: disk/b}}"), Counters()
    ).start()
    assert "start sink with disk/b" in log


def test_an_extension_that_does_not_run_or_offers_something_else_is_told_so(tmp_path: Path) -> None:
    context = Context("sink", Counters(), extensions={"watcher": Watcher(Nothing(), Context("watcher", Counters()))})
    with pytest.raises(StartError, match=r'no extension "disk" runs; add it to extensions and to service\.extensions'):
        context.extension("disk", Storage)
    with pytest.raises(StartError, match='the extension "watcher" offers no Storage'):
        context.extension("watcher", Storage)


@pytest.mark.parametrize(
    ("extensions", "running", "sink", "problem"),
    [
        ("{disc: }", "[]", "", '1: extensions.disc: unknown type of extension; did you mean "disk"?'),
        ("{disk: {a: 1}}", "[disk]", "", "1: extensions.disk.a: unknown key; valid are none"),
        (
            "{disk/a: }",
            "[disk/b]",
            "",
            '5: service.extensions[0]: "disk/b" is not configured under extensions; did you mean "disk/a"?',
        ),
        ("{disk: }", "[disk, disk]", "", '5: service.extensions[1]: "disk" is listed twice'),
        (
            "{disk/a: }",
            "[disk/a]",
            "{queue: {storage: disk/b}}",
            '3: exporters.sink.queue.storage: "disk/b" is not configured under extensions; did you mean "disk/a"?',
        ),
        (
            "{disk: }",
            "[]",
            "{queues: [{storage: disk}]}",
            '3: exporters.sink.queues[0].storage: "disk" does not run; add it to service.extensions',
        ),
        (
            "{disk: , watcher: }",
            "[disk, watcher]",
            "{queue: {storage: watcher}}",
            '3: exporters.sink.queue.storage: "watcher" offers no Storage; extensions that do: disk',
        ),
        (
            "{disk: }",
            "[disk]",
            "{auth: disk}",
            '3: exporters.sink.auth: "disk" offers no Authenticator; extensions that do: none',
        ),
    ],
)
def test_what_is_wrong_with_extensions_is_said(
    extensions: str, running: str, sink: str, problem: str, tmp_path: Path
) -> None:
    assert problems(tmp_path, extensions, running, sink) == [problem]


def test_what_does_not_run_may_name_any_extension(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "", "[]", ", sink/unused: {queue: {storage: disk}}")
    assert [str(warning).partition(" ")[2] for warning in configuration.warnings] == [
        "exporters.sink/unused: is in no pipeline, so it is not started"
    ]


def test_an_extension_that_is_not_listed_is_warned_of(tmp_path: Path, log: list[str]) -> None:
    configuration = loaded(tmp_path, "{disk: }", "[]")
    (warning,) = configuration.warnings
    assert str(warning).endswith("w.yaml:1: extensions.disk: is not in service.extensions, so it is not started")
    Graph(configuration, Counters()).start()
    assert "start disk" not in log
