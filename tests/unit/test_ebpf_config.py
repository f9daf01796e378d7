"""Configuration of the receiver: values that it could not work with are refused before anything is loaded."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from wirespan.receiver.ebpf import FACTORY, EbpfConfig


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


@pytest.mark.parametrize(
    ("ports", "others", "conflict"),
    [
        ([80], [81, 82], None),
        ([80, 81], [81, 82], "port 81 would be observed twice"),
        ([], [443], "port 443 would be observed twice"),
        ([443], [], "port 443 would be observed twice"),
        ([], [], "every port would be observed twice"),
    ],
)
def test_two_receivers_may_not_watch_the_same_port(ports: list[int], others: list[int], conflict: str | None) -> None:
    one, other = (EbpfConfig.model_validate({"select": {"ports": selected}}) for selected in (ports, others))
    assert FACTORY.conflict is not None
    message = FACTORY.conflict(one, other)
    if conflict is None:
        assert message is None
    else:
        assert message is not None
        assert message.startswith(conflict)
        assert "select.ports" in message
