"""Configuration of the receiver: values that it could not work with are refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from wirespan.receiver.ebpf import FACTORY, EbpfConfig
from wirespan.receiver.selection import Select


@pytest.mark.parametrize(
    ("key", "least", "most", "outside"),
    [
        ("settle", "10ms", "60s", ["0", "9ms", "61s", f"{'9' * 400}h"]),
        ("request_timeout", "10ms", "1h", ["0s", "9999us", "3601s"]),
        ("drain_interval", "1ms", "1s", ["0", "999us", "1001ms"]),
    ],
)
def test_a_duration_has_limits_that_a_refusal_names(key: str, least: str, most: str, outside: list[str]) -> None:
    for within in (least, most):
        EbpfConfig.model_validate({key: within})
    for value in outside:
        with pytest.raises(ValidationError, match=f"must be from {least} to {most}"):
            EbpfConfig.model_validate({key: value})


def select(**keys: Any) -> Select:
    return EbpfConfig.model_validate({"select": keys}).select


def test_ports_are_numbers_and_ranges_without_the_excluded_ones() -> None:
    assert select(ports=[80, "8000-8003"], exclude={"ports": ["8001-8002"]}).watched_ports() == {80, 8000, 8003}
    without = select(exclude={"ports": [22]})
    assert not without.every_port
    assert set(range(1, 65536)) - without.watched_ports() == {22}
    assert select(pids=[1]).every_port


@pytest.mark.parametrize("port", [0, 65536, "80-79", "0-5", "65535-65536", True, 1.5, "http", "1-2-3", None, "80"])
def test_what_is_no_port_is_refused(port: object) -> None:
    with pytest.raises(
        ValidationError, match=r"neither a port nor a range like \"8000-8999\"|ports are from 1 to 65535"
    ):
        select(ports=[port])


def test_a_selection_that_leaves_no_port_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"exclude\.ports has all of them"):
        select(ports=[80], exclude={"ports": ["1-100"]})


@pytest.mark.parametrize(
    ("key", "entry", "message"),
    [
        ("executables", "nginx", 'did you mean "\\*/nginx"'),
        ("cgroups", "kubepods/*", 'did you mean "\\*/kubepods/\\*"'),
        ("executables", "/usr/bin/{a,b}", "no braces"),
        ("services", "{shop,cart}", "no braces"),
        ("services", "", "at least 1 character"),
        ("pids", 0, "greater than or equal to 1"),
        ("pids", "self", "valid integer"),
    ],
)
@pytest.mark.parametrize("wrap", [dict, lambda **keys: {"exclude": keys}], ids=["include", "exclude"])
def test_what_could_never_match_is_refused(wrap: Any, key: str, entry: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        select(**wrap(**{key: [entry]}))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"ports": [80]}, {"ports": [81, 82]}, None),
        ({"ports": [80, 81]}, {"ports": [81, 82]}, "port 81 would be observed twice"),
        ({"ports": []}, {"ports": [443]}, "port 443 would be observed twice"),
        ({"ports": [443]}, {}, "port 443 would be observed twice"),
        ({}, {}, "every port would be observed twice"),
        ({"ports": ["80-90"]}, {"exclude": {"ports": ["1-100"]}}, None),
        ({"exclude": {"ports": [1]}}, {"ports": ["1-2"]}, "port 2 would be observed twice"),
        ({"services": ["shop"]}, {"exclude": {"services": ["shop"]}}, "every port would be observed twice"),
    ],
)
def test_two_receivers_may_not_watch_the_same_port(one: Any, other: Any, expected: str | None) -> None:
    assert FACTORY.conflict is not None
    for pair in ((one, other), (other, one)):
        message = FACTORY.conflict(*(EbpfConfig.model_validate({"select": keys}) for keys in pair))
        if expected is None:
            assert message is None
        else:
            assert message is not None
            assert message.startswith(expected)
            assert "select.ports" in message
