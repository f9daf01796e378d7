"""The documents say what is so: keys and defaults, configurations, commands, links, messages, bounds, examples."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from support.batches import make_batch
from support.telemetry_page import metadata
from wirespan.pipeline.component import ComponentConfig, Factory, third_party_factories
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import SpanKind, StatusCode
from wirespan.receiver.ebpf import EbpfConfig
from wirespan.receiver.protocols.parser import Endpoint
from wirespan.receiver.protocols.registry import third_party_parsers
from wirespan.service import cli
from wirespan.service.config import KINDS, load
from wirespan.service.emitted import EMITTERS
from wirespan.service.graph import Graph
from wirespan.service.identity import identities
from wirespan.service.registry import BUILT_IN, Registry
from wirespan.service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(DOCS.rglob("*.md"))
SOURCES = [
    *sorted(
        path
        for folder in ("receiver", "processors", "exporters", "extensions")
        for path in (ROOT / folder).rglob("*.py")
    ),
    *sorted(path for folder in ("native", "pipeline", "service") for path in (ROOT / "wirespan" / folder).glob("*.py")),
]
#: What a fragment of a configuration is completed with.
SKELETON = {"receivers": {"ebpf": None}, "exporters": {"debug": None}}
#: Headings of docs/configuration.md whose tables together have all keys of a component.
SECTIONS = {
    "ebpf": ("Receiver `ebpf`",),
    "otlp": ("Receiver `otlp`",),
    "anomaly": ("Processor `anomaly`",),
    "memory_limiter": ("Processor `memory_limiter`",),
    "batch": ("Processor `batch`",),
    "attributes": ("Processor `attributes`",),
    "redaction": ("Processor `redaction`",),
    "k8s_attributes": ("Processor `k8s_attributes`",),
    "resource_detection": ("Processor `resource_detection`",),
    "resource": ("Processor `resource`",),
    "otlp_grpc": ("Exporters `otlp_grpc` and `otlp_http`", "Only `otlp_grpc`"),
    "otlp_http": ("Exporters `otlp_grpc` and `otlp_http`", "Only `otlp_http`"),
    "debug": ("Exporter `debug`",),
    "file": ("Exporter `file`",),
    "terminal": ("Exporter `terminal`",),
    "basicauth": ("Extension `basicauth`",),
    "bearertokenauth": ("Extension `bearertokenauth`",),
    "file_storage": ("Extension `file_storage`",),
    "health_check": ("Extension `health_check`",),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def examples(language: str) -> list[Any]:
    """Each code block of a language as a parameter with its page's name."""
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language))
    ]


def rows(section: str) -> list[list[str]]:
    """The cells of all table rows under a heading of docs/configuration.md, without the heads."""
    text = (DOCS / "configuration.md").read_text()
    content = re.split(r"^#+ ", text.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return table(content)


def table(text: str) -> list[list[str]]:
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [line.split(" | ") for line in lines if line.startswith("`") or "`" in line.split(" | ")[-1]]


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, TypeAdapter[Any], Any]]:
    """Every key below a model: its path, what validates it, and its default (``...``: it is required)."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        nested = [part for part in (field.annotation, *get_args(field.annotation)) if is_model(part)]
        if nested:
            through = {list: "[]", dict: ".ID"}.get(getattr(field.annotation, "__origin__", None), "")
            yield from leaves(nested[0], f"{path}{through}.")
        else:
            default = ... if field.is_required() else field.get_default(call_default_factory=True)
            yield path, TypeAdapter(field.rebuild_annotation()), default


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def factory(name: str) -> Factory:
    found = Registry().find(next(kind for kind in KINDS if name in BUILT_IN[kind]), name)
    assert found is not None
    return found


def assert_documented(model: type[BaseModel], documented: list[list[str]]) -> None:
    defaults = {cells[0].strip("`"): cells[2].strip("`") for cells in documented}
    keys = {path: (adapter, default) for path, adapter, default in leaves(model)}
    assert keys.keys() == defaults.keys()
    for path, (adapter, default) in keys.items():
        if default is ...:
            assert defaults[path] == "required", path
        elif default is None:
            assert defaults[path] == "–", path
        else:
            assert adapter.validate_python(yaml.safe_load(defaults[path])) == default, path


def test_every_component_has_its_section() -> None:
    assert SECTIONS.keys() == {name for names in BUILT_IN.values() for name in names}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_a_component_is_documented_with_its_default(name: str) -> None:
    documented = [row for section in SECTIONS[name] for row in rows(section)]
    assert_documented(factory(name).config, documented)


def test_every_key_of_the_service_is_documented_with_its_default() -> None:
    assert_documented(ServiceSettings, rows("Service"))


def test_every_variable_of_the_exporters_is_documented() -> None:
    sources = (ROOT / "exporters" / "otlp_settings.py").read_text() + (ROOT / "exporters" / "otlp_http.py").read_text()
    read = set(re.findall(r'variable\("(\w+)"\)', sources))
    documented = {row[0].strip("`") for row in rows("Environment variables")}
    assert {f"OTEL_EXPORTER_OTLP_{name}" for name in read} <= documented


@pytest.mark.parametrize("text", examples("yaml"))
def test_a_configuration_in_a_document_is_accepted_without_a_warning(text: str, tmp_path: Path) -> None:
    """A fragment shows the components of one kind; the other kind comes from the skeleton."""
    shown = yaml.safe_load(text)
    if "service" not in shown:
        components = {**SKELETON, **shown}
        pipeline = {kind: list(components[kind]) for kind in ("receivers", "exporters")}
        text = yaml.safe_dump({**components, "service": {"pipelines": {"traces": pipeline}}})
    path = tmp_path / "shown.yaml"
    path.write_text(text)
    assert load(path, {}).warnings == ()


@pytest.mark.parametrize("text", examples("sh"))
def test_a_command_in_a_document_exists(text: str, tmp_path: Path) -> None:
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and (words[0] == "sudo" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            del words[0]
        if words and Path(words[0]).name in CHECKED:
            CHECKED[Path(words[0]).name](words[1:])


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    target, arguments = words[0], [word.removeprefix("ARGS=") for word in words[1:]]
    assert target in targets
    if target == "run":
        check_wirespan(["run", *shlex.split(" ".join(arguments))])


def check_wirespan(words: list[str]) -> None:
    """The command takes these options, and the shipped configuration these assignments."""
    name, *arguments = words
    command = cli.main.commands[name]
    parsed = command.make_context(name, arguments, parent=click.Context(cli.main)).params
    assert load(ROOT / "config" / "default.yaml", {}, parsed.get("assignments", ()))


CHECKED = {"make": check_make, "wirespan": check_wirespan}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}, target


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {page.name for page in DOCS.glob("*.md") if f"docs/{page.name}" not in readme} == set()


def test_the_readme_says_what_the_agent_gives_up_where_it_costs_too_much() -> None:
    (limit,) = re.findall(
        r"^- [^\n]*`cpu_budget`.*?(?=^- )", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert f"{EbpfConfig().cpu_budget} cores" in limit
    assert "fewer spans" in limit
    assert "reads no payload" in limit


def messages() -> list[str]:
    """What stands in the first column of the tables of messages."""
    text = (DOCS / "troubleshooting.md").read_text().partition("## Messages")[2].partition("## Counters")[0]
    return [code for row in table(text) for code in re.findall(r"`([^`]+)`", row[0])]


@pytest.fixture(scope="module")
def strings() -> list[str]:
    """All texts in the code."""
    found = [
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return found + [path.read_text() for path in (ROOT / "scripts").iterdir()]


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_of_the_code(message: str, strings: list[str]) -> None:
    for part in message.split("…"):
        if len(part.strip()) > 1:
            assert any(part.strip() in text for text in strings), part


def test_every_warning_and_error_that_is_logged_is_explained() -> None:
    explained = (DOCS / "troubleshooting.md").read_text()
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or not call.args:
                continue
            first = call.args[0]
            if call.func.attr in ("warning", "error", "exception") and isinstance(first, ast.Constant):
                opening = re.split(r"[:%]", first.value)[0].strip()
                assert opening in explained, f"{path.name}: {first.value}"


def test_every_counter_of_what_is_dropped_is_explained() -> None:
    explained = (DOCS / "troubleshooting.md").read_text().partition("## Counters")[2]
    metrics = {name: facts for folder in EMITTERS for name, facts in metadata(folder)["metrics"].items()}
    fine = {
        "otelcol_exporter_sent_spans",
        "otelcol_exporter_sent_metric_points",
        "otelcol_exporter_sent_log_records",
        *(name for name in metrics if name.startswith("otelcol_receiver_accepted_")),
        *(name for name in metrics if name.endswith(".observed")),
    }
    fine |= {name for name in metrics if name.startswith("otelcol_process_")} | {"wirespan.connections.adopted"}
    for name in {name for name, facts in metrics.items() if facts["type"] == "sum"} - fine:
        assert f"`{name}" in explained, name
    for reason in metrics["wirespan.exchanges.dropped"]["attributes"]["reason"]:
        assert f"`wirespan.exchanges.dropped{{reason={reason}}}`" in explained


def bounds() -> list[Any]:
    """Each bound that docs/architecture.md names: its value, file and name."""
    text = (DOCS / "architecture.md").read_text().partition("## Bounds")[2]
    named = ((what, value, *re.findall(r"`([^`]+)`", where)) for what, value, where in table(text))
    return [pytest.param(int(value.replace(",", "")), ROOT / file, name, id=what) for what, value, file, name in named]


@pytest.mark.parametrize(("value", "file", "name"), bounds())
def test_a_bound_is_that_of_the_code(value: int, file: Path, name: str) -> None:
    if file.suffix == ".h":
        (found,) = re.findall(rf"^#define {name} (\d+)", file.read_text(), re.MULTILINE)
    else:
        (found,) = re.findall(rf"^{name}(?:: Final)? = ([\d_.]+)", file.read_text(), re.MULTILINE)
    assert float(found) == value


@pytest.fixture
def example_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The examples of docs/extending.md, installed as a package would be."""
    page = DOCS / "extending.md"
    modules = [re.match(r"# (\w+)\.py\n", block)[1] for block in blocks(page, "python")]  # type: ignore[index]
    for module, block in zip(modules, blocks(page, "python"), strict=True):
        (tmp_path / f"{module}.py").write_text(block)
    (toml,) = blocks(page, "toml")
    groups = tomllib.loads(toml)["project"]["entry-points"]
    information = tmp_path / "example-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{name} = {at}\n" for name, at in of.items()) for group, of in groups.items()]
    (information / "entry_points.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in modules:
        sys.modules.pop(module, None)


def test_the_example_of_a_protocol_is_found_and_tells_its_exchanges(example_package: Path) -> None:
    (parser,) = third_party_parsers()
    request, response = b"get user:42\r\n", b"SERVER_ERROR out of memory\r\n"
    assert parser.recognises(request, response)
    assert not parser.recognises(b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n")
    fragment = parser.fragment(parser.summarise(request, response), SpanKind.CLIENT, Endpoint("::1", 11211))
    assert (fragment.name, fragment.status) == ("get", StatusCode.ERROR)
    assert parser.fragment(parser.summarise(request, b"END\r\n"), SpanKind.CLIENT, Endpoint("::1", 11211)).name == "get"


def test_the_examples_of_components_run_in_a_pipeline(example_package: Path, caplog: Any) -> None:
    (text,) = blocks(DOCS / "extending.md", "yml")
    path = example_package / "example.yaml"
    path.write_text(text)
    receivers: list[Any] = []

    class Receiver:
        def __init__(self, config: ComponentConfig, context: Any, outputs: Any) -> None:
            self.context, self.consumer = context, outputs.traces
            receivers.append(self)

        def start(self) -> None: ...

        def shutdown(self, deadline: float) -> None: ...

    stand_in = Factory("receiver", "hand", ComponentConfig, Receiver)
    registry = Registry(lambda: [*third_party_factories(), stand_in])
    assignments = ["receivers={hand: }", "service.pipelines.traces.receivers=[hand]"]
    configuration, counters = load(path, {}, assignments, registry), Counters()
    graph = Graph(configuration, counters)
    graph.start()
    batch = make_batch(1000, seed=1)
    counters.add("wirespan.exchanges.observed", len(batch))
    receivers[0].consumer.consume(batch)
    graph.shutdown(time.monotonic() + 1)
    (identity,) = identities(counters, configuration)
    slow = int((batch.end - batch.start >= 10**9).sum())
    assert (identity.exported, identity.sampled_out, identity.unaccounted) == (slow, len(batch) - slow, 0)
    (logged,) = [record.counts for record in caplog.records if record.message == "Spans by name"]
    assert sum(logged.values()) == slow
    assert "fetched" in logged
