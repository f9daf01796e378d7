"""What is wrong in a configuration of the components that there are: each problem at its place, and all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from wirespan.pipeline.component import Factory
from wirespan.service.config import load
from wirespan.service.document import ConfigurationError
from wirespan.service.registry import BUILT_IN, Registry
from wirespan.service.settings import ServiceSettings

SERVICE = "service: {pipelines: {traces: {receivers: [ebpf], exporters: [debug]}}}\n"
VALID = "receivers: {ebpf: }\nexporters: {debug: }\n" + SERVICE
#: no value of any list: neither a port nor a glob nor a route nor a network
WRONG = "{"


def lists_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The paths of all fields that are lists, of models in them too."""
    for name, field in model.model_fields.items():
        for annotation in flattened(field.annotation):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from lists_in(annotation, f"{prefix}{name}.")
            elif get_origin(annotation) in (list, tuple):
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
    assert [problem.startswith(f"--set: {path}[{index}]: ") for index, problem in enumerate(found)] == [True, True]


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
