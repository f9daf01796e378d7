"""The verifier gives up at a million instructions, and at 512 bytes of stack: however the receiver is configured, its programs stay
far below the one, and below the other also where older kernels add up more."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from support.bpf_stack import LIMIT as STACK
from support.bpf_stack import stack_needed
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


def test_no_program_needs_more_stack_than_older_kernels_give() -> None:
    config = EbpfConfig.model_validate({"spans": {"max_per_second": 100}})
    session = KernelSession(kernel_settings(config, with_metrics=True), Counters())
    try:
        programs = session._programs.object.programs
        needed = {name: stack_needed(programs[name]) for name in programs}
    finally:
        session.close()
    assert max(needed.values()) <= STACK, needed
    assert needed["inet_sock_set_state"] > 256  # with all that it calls
