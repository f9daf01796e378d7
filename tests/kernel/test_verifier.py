"""The verifier gives up at a million instructions: however the receiver is configured, its programs stay far below."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from wirespan.pipeline.counters import Counters
from wirespan.receiver.ebpf import EbpfConfig, kernel_settings
from wirespan.receiver.kernel.session import KernelSession

pytestmark = pytest.mark.requires_bpf

LIMIT = 1_000_000

SELECT: tuple[dict[str, Any], ...] = ({}, {"ports": [1], "services": ["nobody"]})
SPANS: tuple[dict[str, Any], ...] = ({}, {"probability": 0.5}, {"max_per_second": 100})


@pytest.mark.parametrize(
    ("payload", "select", "spans", "metrics"), [*product(("heads", "none"), SELECT, SPANS, (False, True))]
)
def test_every_program_is_accepted_with_room_to_spare(
    payload: str, select: dict[str, Any], spans: dict[str, Any], metrics: bool
) -> None:
    config = EbpfConfig.model_validate({"payload": payload, "select": select, "spans": spans})
    session = KernelSession(kernel_settings(config, with_metrics=metrics), Counters())
    try:
        programs = session._programs
        assert not programs.reports
        verified = {name: programs.object.programs[name].statistics().verified_instructions for name in programs.links}
    finally:
        session.close()
    assert verified.keys() >= {"sock_send_length", "sock_recv_length"}
    assert max(verified.values()) < LIMIT / 2, verified
