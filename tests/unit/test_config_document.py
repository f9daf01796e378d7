"""YAML text → values with positions: types, environment variables, ``--set``, and what is wrong with a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespan.service.document import ConfigurationError, Document, parse, path_text, read

#: Without what JSON writes as a pair of surrogates, which YAML does not join.
CHARACTERS = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS)
#: JSON writes up to six characters for one, and a key of YAML ends within 1,024 (YAML 1.2.2, section 7.4).
LONGEST_KEY = 170
KEYS = st.text(CHARACTERS, max_size=LONGEST_KEY)
JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def tree_of(text: str, **environment: str) -> Any:
    document = parse(text, "x.yaml", environment)
    assert document.problems == []
    return document.tree


def problems_of(text: str, **environment: str) -> list[str]:
    return [str(problem) for problem in parse(text, "x.yaml", environment).problems]


def after_set(text: str, *assignments: str) -> Document:
    document = parse(text, "x.yaml", {})
    for assignment in assignments:
        document.set(assignment, {})
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6379", 6379),
        ("-1", -1),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ('"6379"', "6379"),
        ("'true'", "true"),
    ],
)
def test_a_plain_scalar_has_its_yaml_1_2_type(text: str, value: object) -> None:
    found = tree_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["on", "yes", "10:30", "2026-11-23", "1_000", "1.2.3", "<<"])
def test_what_only_yaml_1_1_takes_for_something_else_is_text(text: str) -> None:
    assert tree_of(text) == text


@given(JSON_VALUES)
def test_json_is_yaml(tree: Any) -> None:
    document = parse(json.dumps(tree), "x.yaml", {})
    assert [problem for problem in document.problems if "${env:NAME}" not in problem.message] == []
    assert "$" in json.dumps(tree) or document.tree == tree


def test_the_longest_key_that_is_yaml_is_read() -> None:
    longest = {"é" * LONGEST_KEY: {"é" * LONGEST_KEY: "é" * 2000}}
    assert tree_of(json.dumps(longest)) == longest


@given(st.text())
def test_any_text_is_read_or_has_problems_but_never_raises(text: str) -> None:
    document = parse(text, "x.yaml", {})
    assert document.contains(()) or document.problems


def test_each_value_knows_its_line() -> None:
    document = parse("a:\n  b:\n    - x\n    - c: 1\n", "x.yaml", {})
    lines = {path_text(path): position.line for path, position in document.positions.items()}
    assert lines == {"": 1, "a": 1, "a.b": 2, "a.b[0]": 3, "a.b[1]": 4, "a.b[1].c": 4}


def test_a_duplicate_key_is_a_problem_on_its_second_line() -> None:
    assert problems_of("a: 1\nb: 2\na: 3\n") == ["x.yaml:3: a: duplicate key; it is on line 1 already"]


def test_text_that_is_no_yaml_is_reported_with_its_line() -> None:
    (problem,) = problems_of("a: 1\nb: [1, 2\nc: 3\n")
    assert problem.startswith("x.yaml:3: not valid YAML: ")


def test_a_control_character_is_reported_with_its_line() -> None:
    assert problems_of("a: 1\nb: \x00\n") == ["x.yaml:2: not valid YAML: the character U+0000 is not allowed"]


def test_a_tag_is_refused_and_constructs_nothing() -> None:
    assert problems_of("a: !!python/object/apply:os.system [id]\n") == [
        'x.yaml:1: a: the tag "tag:yaml.org,2002:python/object/apply:os.system" is not supported'
    ]


def test_an_alias_is_the_value_of_its_anchor() -> None:
    assert tree_of("a: &x {k: 1}\nb: *x\n") == {"a": {"k": 1}, "b": {"k": 1}}


def test_an_alias_of_what_it_stands_in_is_a_problem() -> None:
    assert problems_of("a: &x\n  b: *x\n") == ["x.yaml:1: a.b: is an alias of something it stands in itself"]


@pytest.mark.parametrize("text", ["[" * 60 + "]" * 60, "{a: " * 60 + "}" * 60, "[" * 9_000, "- " * 9_000 + "x"])
def test_what_is_nested_too_deeply_is_a_problem(text: str) -> None:
    (problem,) = problems_of("x:\n " + text)
    assert problem.endswith("is nested more than 50 levels deep")


def test_an_assignment_to_a_place_too_deep_is_a_problem() -> None:
    document = after_set("a: 1", "b" + ".b" * 1_000 + "=1")
    assert [str(problem) for problem in document.problems] == ["--set: b: is nested more than 50 levels deep"]


def test_a_number_too_long_to_print_is_infinite_or_text() -> None:
    assert tree_of("9" * 5_000) == float("inf")
    assert tree_of("0x" + "f" * 5_000) == "0x" + "f" * 5_000


def test_a_file_that_no_system_can_have_is_a_problem() -> None:
    assert problems_of('"${file:a\\0b}"') == ["x.yaml:1: a\0b cannot be read: embedded null byte"]


def test_aliases_of_aliases_cannot_exhaust_memory() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    document = parse("\n".join(lines), "x.yaml", {})
    assert [problem.message for problem in document.problems] == [
        "has more than 100000 values; mind aliases of aliases"
    ]
    assert len(document.positions) < 200_000


def test_a_variable_is_replaced_before_the_scalar_gets_its_type() -> None:
    assert tree_of("port: ${env:PORT}", PORT="6379") == {"port": 6379}
    assert tree_of('port: "${env:PORT}"', PORT="6379") == {"port": "6379"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://${env:HOST}:${env:PORT:-4317}/", "http://h:4317/"),
        ("${HOST}", "h"),
        ("${env:NONE:-}", None),
        ("${env:EMPTY:-x}", "x"),
        ("a$$b", "a$b"),
        ("$${env:HOST}", "${env:HOST}"),
        ("a$b", "a$b"),
    ],
)
def test_variables_defaults_and_dollars(text: str, value: object) -> None:
    assert tree_of(text, HOST="h", EMPTY="") == value


def test_a_variable_that_is_not_set_is_a_problem() -> None:
    (problem,) = problems_of("a:\n  b: ${env:NONE}\n")
    assert problem.startswith("x.yaml:2: a.b: the environment variable NONE is not set")


def test_an_unknown_reference_is_a_problem() -> None:
    (problem,) = problems_of("a: ${http:config}\n")
    assert problem.startswith('x.yaml:1: a: "${http:config}" is not ${env:NAME}, ${env:NAME:-default} or ${file:PATH}')


def test_set_replaces_a_value_and_makes_what_is_missing() -> None:
    document = after_set("a: {b: 1}\ne:\n", "a.b=[1, x]", "c.d=true", "e.f=${env:NONE:-7}")
    assert document.problems == []
    assert document.tree == {"a": {"b": [1, "x"]}, "c": {"d": True}, "e": {"f": 7}}


def test_set_fills_an_empty_document() -> None:
    assert after_set("", "a.b=1").tree == {"a": {"b": 1}}


def test_problems_below_a_set_value_are_said_to_come_from_set() -> None:
    document = after_set("a:\n  b: {c: 1}\n", "a.b={d: 2}")
    assert str(document.problem(("a", "b", "d"), "wrong")) == "--set: a.b.d: wrong"
    assert str(document.problem(("a", "b", "c"), "wrong")) == "--set: a.b.c: wrong"
    assert str(document.problem(("a", "x"), "wrong")) == "x.yaml:1: a.x: wrong"


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("a.b", '--set: "a.b" is not the PATH of PATH=VALUE, as in receivers.ebpf.select.ports=[6379]'),
        ("a..b=1", '--set: "a..b" is not the PATH of PATH=VALUE, as in receivers.ebpf.select.ports=[6379]'),
        ("a.b.c=1", "--set: a.b: is no mapping; set it as a whole"),
        ("a.b=[1", "--set: a.b: not valid YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_wrong_set_is_a_problem(assignment: str, problem: str) -> None:
    assert [str(found) for found in after_set("a: {b: 1}\n", assignment).problems] == [problem]


def test_a_missing_file_is_reported_without_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read: No such file or directory"):
        read(tmp_path / "none.yaml", {})


def test_a_file_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigurationError, match=r"latin\.yaml: is not UTF-8 text \(byte 3\)"):
        read(file, {})
