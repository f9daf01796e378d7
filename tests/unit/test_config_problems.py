"""What is wrong in a configuration of the components that there are: each problem at its place, and all of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from wirespan.pipeline.component import Factory
from wirespan.service.config import load
from wirespan.service.document import ConfigurationError
from wirespan.service.registry import BUILT_IN, Registry
from wirespan.service.settings import ServiceSettings

SERVICE = "service: {pipelines: {traces: {receivers: [ebpf], exporters: [debug]}}}\n"
VALID = "receivers: {ebpf: }\nexporters: {debug: }\n" + SERVICE
#: no value of any list: neither a port nor a glob nor a route nor a network nor a regular expression
WRONG = "{("


def lists_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The paths of all fields that are lists, of models in them too."""
    for name, field in model.model_fields.items():
        for annotation in flattened(field.annotation):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from lists_in(annotation, f"{prefix}{name}.")
            elif get_origin(annotation) in (list, tuple) and get_args(annotation)[0] is not str:  # any text is right
                yield f"{prefix}{name}"


def flattened(annotation: Any) -> Iterator[Any]:
    """Of ``X | None`` X; but collections as they are."""
    if get_origin(annotation) in (None, list, tuple, dict):
        yield annotation
    else:
        yield from chain.from_iterable(flattened(argument) for argument in get_args(annotation))


def factories() -> Iterator[Factory]:
    for kind, names in BUILT_IN.items():
        for name in names:
            factory = Registry(list).find(kind, name)
            assert factory is not None
            yield factory


LISTS = [f"{factory.kind}s.{factory.name}.{path}" for factory in factories() for path in lists_in(factory.config)]
LISTS += [f"service.{path}" for path in lists_in(ServiceSettings)]


def problems(folder: Path, text: str, *assignments: str) -> list[str]:
    file = folder / "w.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as raised:
        load(file, {}, assignments)
    return [str(problem).removeprefix(f"{folder}/") for problem in raised.value.problems]


def test_there_are_lists() -> None:
    known = {"receivers.ebpf.http.routes", "receivers.ebpf.select.exclude.ports", "service.telemetry.metrics.readers"}
    assert known <= set(LISTS)


@pytest.mark.parametrize("path", LISTS)
def test_what_is_wrong_in_a_list_is_named_by_its_index(tmp_path: Path, path: str) -> None:
    found = problems(tmp_path, VALID, f"{path}=['{WRONG}', '{WRONG}']")
    found = [problem for problem in found if " is required" not in problem]
    assert [problem.startswith(f"--set: {path}[{index}]: ") for index, problem in enumerate(found)] == [True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("settle: 61s", 'settle: "61s" must be from 10ms to 60s'),
        ("settle: 1", "settle: 1 is not a duration; write a number and a unit, such as 200ms, 5s or 1m30s"),
        ("rings: {segments: 5}", "rings.segments: 5 must be a power of two from 65536 to 1073741824"),
    ],
)
def test_a_refused_value_is_named(tmp_path: Path, settings: str, message: str) -> None:
    found = problems(tmp_path, VALID.replace("ebpf: }", f"ebpf: {{{settings}}}}}"))
    assert found == [f"w.yaml:1: receivers.ebpf.{message}"]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("10.1", '"10.1" is no network like "10.0.0.0/8" or "fd00::/8"'),
        ("10.1.2.3/8", '"10.1.2.3/8" is a host in a network; did you mean "10.0.0.0/8"?'),
        ("fd00::1/8", '"fd00::1/8" is a host in a network; did you mean "fd00::/8"?'),
    ],
)
def test_what_is_no_network_is_named_with_what_was_likely_meant(tmp_path: Path, network: str, message: str) -> None:
    text = VALID.replace("ebpf: }", f"ebpf: {{assume_peer_observed: [10.0.0.0/8, '{network}', 10.0.0.1]}}}}")
    assert problems(tmp_path, text) == [f"w.yaml:1: receivers.ebpf.assume_peer_observed[1]: {message}"]


def test_a_wrong_section_hides_nothing_else(tmp_path: Path) -> None:
    text = """\
connectors: {}
receivers:
  ebpf: {settle: 1}
exporters: {fiel: }
service:
  pipelines:
    traces: {receivers: [ebpf, ebfp], exporters: [fiel], batch: 3}
  telemetry: {logs: {level: loud}}
"""
    assert problems(tmp_path, text) == [
        "w.yaml:1: connectors: unknown key; valid are exporters, extensions, processors, receivers, service",
        "w.yaml:3: receivers.ebpf.settle: 1 is not a duration; write a number and a unit, such as 200ms, 5s or 1m30s",
        'w.yaml:4: exporters.fiel: unknown type of exporter; did you mean "file"?',
        "w.yaml:7: service.pipelines.traces.batch: unknown key; valid are exporters, processors, receivers",
        'w.yaml:7: service.pipelines.traces.receivers[1]: "ebfp" is not configured under receivers; did you mean "ebpf"?',
        'w.yaml:8: service.telemetry.logs.level: "loud" is not one of debug, info, warn, error',
    ]


def test_what_is_under_a_misspelt_key_is_checked_as_what_was_meant(tmp_path: Path) -> None:
    text = """\
receiver:
  ebpf: {settl: 1s}
exporters: {debug: }
servcie:
  pipeline:
    traces:
      receivers: [ebpf]
      exporter: [debug, none]
"""
    assert problems(tmp_path, text) == [
        'w.yaml:1: receiver: unknown key; did you mean "receivers"?',
        'w.yaml:2: receivers.ebpf.settl: unknown key; did you mean "settle"?',
        'w.yaml:4: servcie: unknown key; did you mean "service"?',
        'w.yaml:5: service.pipeline: unknown key; did you mean "pipelines"?',
        'w.yaml:8: service.pipelines.traces.exporter: unknown key; did you mean "exporters"?',
        'w.yaml:8: service.pipelines.traces.exporters[1]: "none" is not configured under exporters; there are debug',
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (VALID.replace("{debug: }", "[debug]"), 'w.yaml:2: exporters: ["debug"] is not a mapping'),
        (VALID.replace("{traces: {", "{traces: [{").replace("}}}", "}]}}"), "w.yaml:3: service.pipelines.traces: "),
        (VALID.replace("[ebpf]", "ebpf"), 'w.yaml:3: service.pipelines.traces.receivers: "ebpf" is not a list'),
        (VALID.replace("[ebpf]", "[1]"), "w.yaml:3: service.pipelines.traces.receivers[0]: 1 is not text; "),
        (VALID.replace("service:", "exporter: [x]\nservice:"), "w.yaml:3: exporter: unknown key; "),
    ],
)
def test_what_follows_from_a_wrong_shape_is_not_reported_too(tmp_path: Path, text: str, problem: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith(problem)


KEYS = st.sampled_from(
    ["receivers", "receiver", "service", "pipelines", "traces", "exporters", "telemetry", "logs", "x"]
)
TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.sampled_from(["ebpf", "debug", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=16,
)


@settings(deadline=None)  # the first that is wrong imports the components that would be right
@given(st.dictionaries(KEYS, TREES), st.lists(TREES, max_size=2))
def test_any_shape_does_no_worse_than_problems(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], readers: list[Any]
) -> None:
    tree |= {"services": {"telemetry": {"metrics": {"readers": readers}}}, "x": 1}
    assert problems(tmp_path_factory.getbasetemp(), json.dumps(tree))
