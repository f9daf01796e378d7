"""Configurations that are nearly right, and hostile ones: each is taken or refused with its problems, in time, and nothing else."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.fuzzing import bounded_runs, damaged, growth
from wirespan.pipeline.component import StartError
from wirespan.pipeline.counters import Counters
from wirespan.service.config import check
from wirespan.service.document import ConfigurationError, parse
from wirespan.service.graph import Graph
from wirespan.service.printing import printed

CONFIGURATIONS = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
TREES: list[Any] = [yaml.safe_load(path.read_text()) for path in CONFIGURATIONS]
ENVIRONMENT = {"A": "x", "EMPTY": "", "NUMBER": "5", "YAML": "[1, {a: b"}

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers().map(lambda power: 10 ** (abs(power) % 4_000))
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["5s", "200ms", "localhost:4317", "http://x:1", "${env:A}", "${file:/nowhere}", "${env:YAML}", "$"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def tried(text: str, *assignments: str) -> str | None:
    """What is wrong, for people; what nothing is wrong with can be printed and made, which starts nothing."""
    try:
        document = parse(text, "any.yaml", ENVIRONMENT)
        for assignment in assignments if document.contains(()) else ():
            document.set(assignment, ENVIRONMENT)
        if not document.contains(()):
            raise ConfigurationError(document.problems)
        configuration = check(document)
        yaml.safe_load(printed(document.tree))
        Graph(configuration, Counters())
    except (ConfigurationError, StartError) as error:
        return str(error) or "refused without a word"
    return None


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each collection with each of its keys or indices."""
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


@st.composite
def _changed(draw: st.DrawFn) -> str:
    """One that comes with wirespan, with something else in a few places, or under other keys."""
    tree = copy.deepcopy(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(1, 3))):
        owner, key = draw(st.sampled_from(list(places(tree)) or [({"x": None}, "x")]))
        if draw(st.booleans()):
            owner[key] = draw(_values)
        elif isinstance(owner, dict):
            owner[draw(st.text(max_size=8))] = owner.pop(key)
        else:
            del owner[key]
    text: str = yaml.dump(tree, Dumper=yaml.SafeDumper)
    return text


def test_what_comes_with_wirespan_is_taken() -> None:
    assert [tried(path.read_text()) for path in CONFIGURATIONS] == [None] * len(CONFIGURATIONS)


@settings(max_examples=150, deadline=None)
@given(_changed())
def test_nothing_in_a_place_of_a_configuration_does_worse_than_problems(text: str) -> None:
    tried(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["receivers", "otlp", "service", "x", "0", "", "a[0]"]) | st.text(max_size=5)), _values)
def test_no_assignment_does_worse_than_problems(path: list[str], value: Any) -> None:
    text = CONFIGURATIONS[0].read_text()
    tried(text, f"{'.'.join(path)}={yaml.safe_dump(value, default_flow_style=True)}", ".".join(path))


def test_no_damage_to_a_file_does_worse_than_problems() -> None:
    for source in bounded_runs():
        text = source.choice(CONFIGURATIONS).read_bytes()
        tried(damaged(source, text).decode("utf-8", "replace"))


HOSTILE = {
    "nested lists": "receivers: " + "[" * 10_000,
    "nested mappings": "receivers: " + "{a: " * 10_000,
    "nested blocks": "".join(f"{' ' * depth}a:\n" for depth in range(2_000)),
    "just too deep": "x: " + "[" * 150 + "]" * 150,
    "a number": "receivers: " + "9" * 10_000,
    "a hexadecimal number": "receivers: 0x" + "f" * 10_000,
    "a file with a zero": 'receivers: "${file:a\\0b}"',
    "half a character": 'receivers: {"\\ud800": "\\udfff"}',
    "keys": "".join(f"k{number}: 1\n" for number in range(5_000)),
    "aliases": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]\n" for n in range(1, 50)),
    "references": "receivers: " + "${env:A:-" * 5_000,
    "types": "receivers: {" + ", ".join(f"ebp{number}: " for number in range(5_000)) + "}",
    "ids": "service: {pipelines: {traces: {receivers: [" + "otlp," * 5_000 + "]}}}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_configuration_is_refused_in_time_and_takes_little_memory(text: str) -> None:
    began = time.process_time()
    with growth() as grown:
        assert tried(text) not in (None, "refused without a word")
        assert time.process_time() - began < 20
        assert grown() < 400
