"""Which processes trace themselves, learned from what they do, and what becomes of each side of an exchange."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wirespan.receiver import instrumentation, waiting
from wirespan.receiver.instrumentation import Instrumentation, Mode, Sides, Verdict
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import object_path
from wirespan.receiver.process import ImageKey
from wirespan.receiver.sampling import Sampling
from wirespan.receiver.trace_context import Context, TraceContexts, trace_states
from wirespan.receiver.waiting import IMPATIENT, Patience, Waiting

CLIENT, SERVER = 1, 2
APP, PROXY, BACKEND = 100, 200, 300
TRACED = Context.FOUND | Context.SAMPLED
PATIENT = Patience(True, True)

with BpfObject.open(object_path()) as programs:
    DTYPE = programs.btf.dtype("exchange")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """Shows exchanges, one side at a time, to an Instrumentation whose clock is set by hand."""

    def __init__(self, mode: Mode = "skip") -> None:
        self.clock = Clock()
        self.learning = Instrumentation(mode, 1.0, self.clock)

    def side(
        self,
        role: int,
        pid: int,
        context: int = 0,
        *,
        exchange: int = 1,
        header: int = 1,
        peer: int = 0,
        patience: Patience = PATIENT,
        started: int = 1,
    ) -> str:
        """What becomes of it: ``instrumented``, ``telemetry``, ``waits``, ``child`` of our client span, or ``emitted``."""
        records = np.zeros(1, DTYPE)
        records["process"]["tgid"], records["process"]["start_time"] = pid, started
        records["connection"]["peer_tgid"] = peer
        on_server = np.array([role == SERVER])
        observed = np.array([bool(peer)])
        sides = Sides(records, on_server, observed, np.array([pid]), np.array([exchange], np.uint64))
        ids, parents = np.array([[1, header]], np.uint64), np.array([header], np.uint64)
        flags = np.array([context], np.uint8)
        verdict = self.learning.judge(sides, TraceContexts(flags, ids, parents, int(bool(context)), 0, 0), patience)
        return outcome(verdict, role == SERVER and bool(peer))

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds


def outcome(verdict: Verdict | None, may_be_child: bool) -> str:
    if verdict is None:
        return "child" if may_be_child else "emitted"
    for name in ("instrumented", "telemetry", "waits"):
        if getattr(verdict, name)[0]:
            return name
    return "child" if may_be_child and verdict.client_emitted[0] else "emitted"


def test_without_any_trace_nothing_is_judged() -> None:
    machine = Machine()
    assert machine.side(CLIENT, APP) == "emitted"
    assert machine.side(SERVER, BACKEND, peer=APP) == "child"


def test_a_process_that_exports_spans_is_left_out_at_both_sides_and_its_exports_at_both_ends() -> None:
    machine = Machine()
    assert machine.side(CLIENT, APP, Context.OTLP_TRACES) == "telemetry"
    assert machine.side(SERVER, BACKEND, Context.OTLP_TRACES, peer=APP) == "telemetry"
    assert machine.side(CLIENT, APP) == machine.side(SERVER, APP) == "instrumented"


def test_what_an_exporting_process_calls_without_a_header_is_a_root() -> None:
    machine = Machine()
    machine.side(CLIENT, APP, Context.OTLP_TRACES)
    assert machine.side(SERVER, BACKEND, peer=APP) == "emitted"


def test_exports_of_metrics_and_logs_make_no_process_instrumented() -> None:
    machine = Machine()
    assert machine.side(CLIENT, APP, Context.OTLP_OTHER) == "telemetry"
    assert machine.side(CLIENT, APP) == "emitted"


@pytest.mark.parametrize("order", [(CLIENT, SERVER), (SERVER, CLIENT)])
def test_a_collector_that_hands_spans_on_is_not_instrumented(order: tuple[int, int]) -> None:
    machine = Machine()
    for role in order:
        assert machine.side(role, PROXY, Context.OTLP_TRACES) == "telemetry"
    assert machine.side(CLIENT, PROXY) == "emitted"


def test_requests_with_headers_of_its_own_make_a_client_instrumented_after_a_while() -> None:
    machine = Machine()
    assert machine.side(CLIENT, APP, TRACED) == "waits"
    assert machine.side(SERVER, BACKEND, TRACED, peer=APP) == "waits"
    machine.wait(machine.learning.patience + 0.1)
    assert machine.side(CLIENT, APP, TRACED) == "instrumented"
    assert machine.side(CLIENT, APP) == "emitted"  # without a header its SDK has no span
    machine.wait(10)
    assert machine.side(SERVER, BACKEND, TRACED, peer=APP) == "emitted"


@pytest.mark.parametrize("inner_first", [True, False])
def test_a_process_that_passes_a_header_on_is_a_proxy_at_once(inner_first: bool) -> None:
    machine = Machine()
    inner, outer = (CLIENT, 1), (SERVER, 2)
    for role, exchange in (inner, outer) if inner_first else (outer, inner):
        machine.side(role, PROXY, TRACED, exchange=exchange)
    assert machine.side(CLIENT, PROXY, TRACED, exchange=1) == "emitted"
    assert machine.side(SERVER, PROXY, TRACED, exchange=2) == "emitted"
    assert machine.side(SERVER, BACKEND, TRACED, peer=PROXY) == "waits"
    machine.wait(10)
    assert machine.side(SERVER, BACKEND, TRACED, peer=PROXY) == "child"


def test_a_process_that_calls_itself_passes_nothing_on() -> None:
    machine = Machine()
    for role in (CLIENT, SERVER):
        machine.side(role, APP, TRACED, exchange=1, peer=APP if role == SERVER else 0)
    machine.wait(10)
    assert machine.side(CLIENT, APP, TRACED, exchange=2, header=2) == "instrumented"


def test_a_late_proof_of_passing_on_wins() -> None:
    machine = Machine()
    machine.side(CLIENT, PROXY, TRACED, exchange=1)
    machine.wait(10)
    assert machine.side(CLIENT, PROXY, TRACED, exchange=3, header=3) == "instrumented"
    machine.side(SERVER, PROXY, TRACED, exchange=2)
    assert machine.side(CLIENT, PROXY, TRACED, exchange=4, header=4) == "emitted"


def test_who_declares_an_exporter_waits_for_its_first_export() -> None:
    machine = Machine()
    machine.learning.meet(image(APP), True)
    assert machine.side(SERVER, APP) == "waits"
    machine.side(CLIENT, APP, Context.OTLP_TRACES)
    assert machine.side(SERVER, APP) == "instrumented"


def test_who_declares_an_exporter_and_never_exports_is_waited_for_once() -> None:
    machine = Machine()
    machine.learning.meet(image(APP), True)
    machine.wait(20)
    assert machine.side(SERVER, APP) == "emitted"
    assert machine.side(SERVER, APP, TRACED) == "emitted"


@pytest.mark.parametrize("exports", [True, False])
def test_who_is_met_once_more_is_not_tried_once_more(exports: bool) -> None:
    machine = Machine()
    machine.learning.meet(image(APP), True)
    if exports:
        machine.side(CLIENT, APP, Context.OTLP_TRACES)
    machine.wait(20)
    for _ in range(2):
        machine.learning.meet(image(APP), True)
        assert machine.side(SERVER, APP) == ("instrumented" if exports else "emitted")
        machine.wait(20)


def test_another_process_of_that_number_is_another_one() -> None:
    machine = Machine()
    machine.side(CLIENT, APP, Context.OTLP_TRACES, started=1)
    machine.learning.meet(image(APP, started=2), False)
    assert machine.side(SERVER, APP, started=2) == "emitted"
    machine.side(CLIENT, APP, Context.OTLP_TRACES, started=2)
    machine.side(SERVER, APP, Context.OTLP_TRACES, started=1)  # a late record of the former one
    assert machine.side(SERVER, APP, started=2) == "instrumented"


def test_an_unsampled_header_makes_nobody_instrumented() -> None:
    machine = Machine()
    assert machine.side(CLIENT, APP, Context.FOUND) == "emitted"
    assert machine.side(SERVER, BACKEND, Context.FOUND, peer=APP) == "child"


def test_a_client_on_another_machine_is_taken_for_the_one_that_the_header_names() -> None:
    machine = Machine()
    machine.wait(0)
    assert machine.side(SERVER, BACKEND, TRACED, patience=IMPATIENT) == "emitted"


def test_both_leaves_nothing_out_and_waits_for_nothing() -> None:
    machine = Machine("both")
    machine.learning.meet(image(APP), True)
    assert machine.side(CLIENT, APP, TRACED) == "emitted"
    assert machine.side(SERVER, BACKEND, TRACED, peer=APP) == "child"


def test_no_more_processes_are_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrumentation, "PROCESSES_KEPT", 3)
    machine = Machine()
    for pid in range(1, 6):
        machine.side(CLIENT, pid, Context.OTLP_TRACES)
    assert [machine.side(CLIENT, pid) for pid in range(1, 6)] == ["emitted"] * 2 + ["instrumented"] * 3


def image(pid: int, started: int = 1) -> ImageKey:
    return ImageKey(pid, started, 0, b"")


# ---- records that wait --------------------------------------------------------------------------------------


def records(count: int) -> np.ndarray:
    return np.zeros(count, DTYPE)


def test_what_waits_is_looked_at_again_when_more_is_known_or_its_time_is_over() -> None:
    clock = Clock()
    kept = Waiting(2.0, clock)
    kept.add(records(3), kept.patience_of_new(3).deadline)
    assert list(kept.take(False, False)) == []
    ((again, patience),) = list(kept.take(True, False))
    assert (len(again), len(kept), patience.for_clients, patience.is_new) == (3, 0, True, False)
    kept.add(again, patience.deadline)
    clock.now += 3
    ((again, patience),) = list(kept.take(False, False))
    assert (patience.for_clients, patience.for_processes) == (False, True)
    kept.add(again, patience.deadline)
    assert list(kept.take(False, False)) == []
    ((again, patience),) = list(kept.take(False, True))
    assert (len(again), patience.for_clients, patience.for_processes) == (3, False, False)


def test_no_more_wait_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WAITING_LIMIT", 10)
    kept = Waiting(2.0, Clock())
    kept.add(records(8), 1.0)
    assert kept.patience_of_new(2).for_processes
    assert not kept.patience_of_new(3).for_processes


def test_a_tracestate_has_the_threshold_and_our_randomness() -> None:
    own = np.array([2**64 - 1, 5, 0x12_3456_789A_BCDE], np.uint64)
    column = trace_states(Sampling(0.5), np.ones(3, np.uint8), own, np.array([True, False, True]))
    texts: list[Any] = [column.text(row) for row in range(3)]
    assert texts == ["ot=th:8;rv:ffffffffffffff", None, "ot=th:8;rv:123456789abcde"]
