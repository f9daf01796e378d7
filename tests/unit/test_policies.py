"""Policies as the kernel has them, compiled for the host, and as user space applies them to what it pairs itself."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.compiling import clang
from wirespan.receiver.kernel.btf import Btf
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import object_path
from wirespan.receiver.policies import (
    CLASSES,
    NEVER,
    POLICIES,
    Decided,
    Memory,
    Policies,
    slots_of,
)
from wirespan.receiver.sampling import LEVELS, Sampling

ROOT = Path(__file__).parents[2]
CLIENT, SERVER = 1, 2
TCP, UDP = 6, 17
MS = 1_000_000
ALL = np.uint64((1 << 64) - 1)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("host") / "slot.so"
    flags = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", f"-I{ROOT}/bpf", "-shared", "-fPIC"]
    subprocess.run([clang(), *flags, f"{ROOT}/tests/host/slot_host.c", "-o", path], check=True)
    return ctypes.CDLL(str(path))


@pytest.fixture(scope="module")
def btf() -> Btf:
    bpf_object = BpfObject.open(object_path())
    try:
        return bpf_object.btf
    finally:
        bpf_object.close()


@pytest.fixture
def memory(btf: Btf) -> Memory:
    counts = np.zeros((2, POLICIES), btf.dtype("policy_counts"))
    names = ("budget_left", "budget_reserved", "room_shared")
    return Memory(
        np.zeros(POLICIES, btf.dtype("policy")), counts, *(np.zeros((), btf.variables()[name].dtype) for name in names)
    )


def records(btf: Btf, port: int, durations: list[int], role: int = SERVER, outcome: int = 0) -> npt.NDArray[Any]:
    rows = np.zeros(len(durations), btf.dtype("exchange"))
    connection = rows["connection"]
    connection["role"], connection["transport"] = role, TCP
    connection["local_port" if role == SERVER else "remote_port"] = port
    rows["request_start"], rows["outcome"] = 1_000, outcome
    rows["response_end"] = 1_000 + np.array(durations)
    return rows


def decide(
    policies: Policies, rows: npt.NDArray[Any], low_halves: npt.NDArray[np.uint64] | None = None, error: bool = False
) -> Decided:
    """low_halves: of trace ids; None: those that every level keeps. error: whether their answers are errors."""
    low_halves = np.full(len(rows), ALL) if low_halves is None else low_halves
    return policies.decide(rows, low_halves, np.full(len(rows), error))


@given(port=st.integers(0, 65535), transport=st.sampled_from([TCP, UDP]))
def test_both_ends_and_user_space_have_the_same_slot(library: ctypes.CDLL, port: int, transport: int) -> None:
    ends = [library.slot_of_port(c_uint16(port), c_uint8(transport), c_uint8(role)) for role in (CLIENT, SERVER)]
    (slot,) = slots_of(np.array([port], np.uint16), np.array([transport], np.uint8)).tolist()
    assert ends == [slot, slot]
    assert 0 <= slot < POLICIES


def test_the_usual_ports_and_neighbours_have_slots_of_their_own() -> None:
    ports = [22, 25, 53, 80, 443, 3000, 3306, 5000, 5432, 5672, 6379, 8000, 8080, 8081, 8443, 9000, 9090, 9092, 9100]
    ports += [9200, 11211, 15672, 26379, 27017, 50051, *range(30000, 30050)]
    slots = slots_of(np.array(ports, np.uint16), np.full(len(ports), TCP, np.uint8))
    assert len(set(slots.tolist())) == len(ports)
    everything = slots_of(np.arange(65536).astype(np.uint16), np.full(65536, TCP, np.uint8))
    assert set(np.bincount(everything, minlength=POLICIES).tolist()) == {16}


@given(
    slow=st.integers(0, NEVER),
    duration=st.one_of(st.integers(0, (1 << 62) - 1), st.integers(0, 1000)),
    failed=st.integers(0, 1),
)
def test_as_what_an_exchange_is_counted(library: ctypes.CDLL, slow: int, duration: int, failed: int) -> None:
    which = library.which_of(c_uint64(slow), c_uint64(duration), c_uint32(failed))
    assert which == (4 if failed else (duration > slow // 2) + (duration > slow) + (duration > 2 * slow))


def test_what_user_space_pairs_is_counted_as_the_kernel_does(btf: Btf, memory: Memory) -> None:
    policies = Policies(
        memory, Sampling(max_per_second=100, keep_errors=True, slow=0.1), SERVER, room=1000, room_of_all=1000
    )
    decide(policies, records(btf, 6379, [10 * MS, 60 * MS, 150 * MS, 250 * MS]))
    decide(policies, records(btf, 6379, [10 * MS], CLIENT, outcome=3))
    (slot,) = policies.used().tolist()
    memory.counts["counts"][:, slot] += 1  # by the kernel, on each of two CPUs
    by_kernel, here = policies.counted(policies.used())
    assert by_kernel.counts.tolist() == [[2, 2, 2, 2, 2]]
    assert here.counts.tolist() == [[1, 1, 1, 1, 1]]
    assert here.durations.tolist() == [480 * MS]


@pytest.mark.parametrize("keep_errors", [True, False])
def test_an_answer_that_is_an_error_has_failed_as_one_that_never_came(
    btf: Btf, memory: Memory, keep_errors: bool
) -> None:
    policies = Policies(memory, Sampling(max_per_second=100, keep_errors=keep_errors), SERVER, 1000, 1000)
    rows = np.concatenate([records(btf, 6379, [MS] * 2), records(btf, 6379, [MS], outcome=1)])
    decided = policies.decide(rows, np.full(3, ALL), np.array([True, False, False]))
    assert decided.failed == 2
    _, here = policies.counted(policies.used())
    assert here.counts.tolist() == [[1, 0, 0, 0, 2] if keep_errors else [3, 0, 0, 0, 0]]


def test_what_is_kept_is_told_by_the_level_of_its_class(btf: Btf, memory: Memory) -> None:
    sampling = Sampling(max_per_second=100, keep_errors=True, slow=0.1)
    policies = Policies(memory, sampling, SERVER, room=1000, room_of_all=1000)
    slots = slots_of(np.array([6379], np.uint16), np.array([TCP], np.uint8))
    levels = np.array([[LEVELS - 1, 8, 0]], np.uint8)
    policies.set(slots, levels, np.full((1, CLASSES), 1000, np.int32), np.array([100 * MS], np.uint64), 7, 1000, 1000)
    half = np.array([0, 1 << 55], np.uint64)
    rows = records(btf, 6379, [10 * MS] * 2)
    assert decide(policies, rows, half).kept.tolist() == [False, False]
    rows = records(btf, 6379, [200 * MS] * 2)
    decided = decide(policies, rows, half)
    assert decided.kept.tolist() == [False, True]
    assert (decided.sampled_out, decided.beyond) == (1, 0)
    assert rows["connection"]["sampling"].tolist() == [8, 8]
    assert decide(policies, records(btf, 6379, [10 * MS] * 2, outcome=1), half).kept.tolist() == [True, True]
    assert decide(policies, records(btf, 6379, [10 * MS] * 2), half, error=True).kept.tolist() == [True, True]
    assert decide(policies, records(btf, 80, [10 * MS] * 2), half).kept.tolist() == [True, True]
    assert memory.policies["left"][slots[0]].tolist() == [1007, 1006, 1003]


def test_what_exceeds_the_room_of_its_slot_and_class_is_dropped(btf: Btf, memory: Memory) -> None:
    policies = Policies(memory, Sampling(max_per_second=100), SERVER, room=3, room_of_all=100)
    rows = np.concatenate([records(btf, 80, [MS] * 5), records(btf, 81, [MS] * 2), records(btf, 80, [MS])])
    decided = decide(policies, rows)
    assert decided.kept.tolist() == [True] * 3 + [False] * 2 + [True] * 2 + [False]
    assert (decided.sampled_out, decided.beyond) == (0, 3)
    assert not decide(policies, rows[:1]).kept.any()


def test_what_exceeds_the_room_of_the_machine_is_dropped_and_the_kernel_has_what_is_left(
    btf: Btf, memory: Memory
) -> None:
    sampling = Sampling(max_per_second=100, keep_errors=True)
    policies = Policies(memory, sampling, SERVER, room=3, room_of_all=8)
    assert memory.budget_reserved.tolist() == [2, 1, 0]
    rows = np.concatenate([records(btf, port, [MS] * 2) for port in (80, 81, 82)])
    decided = decide(policies, rows[:3])
    assert (decided.kept.all(), decided.beyond, int(memory.budget_left)) == (True, 0, 5)
    decided = decide(policies, rows[2:])
    assert decided.kept.tolist() == [True, True, True, False]
    assert (decided.beyond, int(memory.budget_left)) == (1, 2)
    slow, failed = records(btf, 83, [NEVER] * 2), records(btf, 83, [MS] * 2, outcome=1)
    memory.policies["slow"] = NEVER - 1
    assert decide(policies, slow[:1]).kept.tolist() == [True]
    assert decide(policies, np.concatenate([rows[:1], slow, failed])).kept.tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert memory.budget_left == 0
    memory.budget_left[...] = -7  # the kernel takes first and looks then
    assert decide(policies, rows[:1]).beyond == 1
    assert memory.budget_left == -7


def test_what_is_due_to_a_slot_takes_no_room_of_the_machine(btf: Btf, memory: Memory) -> None:
    policies = Policies(memory, Sampling(max_per_second=100), SERVER, room=3, room_of_all=1)
    one = slots_of(np.array([80], np.uint16), np.array([TCP], np.uint8))
    levels, room = np.zeros((1, 3), np.uint8), np.array([[2, 0, 0]], np.int32)
    policies.set(one, levels, room, np.array([NEVER], np.uint64), 3, 0, 100)
    memory.budget_left[...] = memory.budget_reserved[0] + 1
    decided = decide(policies, np.concatenate([records(btf, 81, [MS] * 2), records(btf, 80, [MS] * 4)]))
    assert decided.kept.tolist() == [True, False, True, True, False, False]
    assert memory.policies["left"][one].tolist() == [[1, 3, 3]]
    memory.budget_left[...] = 0
    policies.set(one, levels, room, np.array([NEVER], np.uint64), 3, 0, 100)
    assert decide(policies, records(btf, 80, [MS] * 2)).kept.all()
    assert memory.budget_left == 0


def test_a_setting_renews_the_room_of_the_machine(btf: Btf, memory: Memory) -> None:
    policies = Policies(memory, Sampling(max_per_second=100), SERVER)
    none = np.arange(0)
    policies.set(none, np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.int32), none.astype(np.uint64), 3, 200, 200)
    decide(policies, records(btf, 80, [MS] * 2))
    assert memory.budget_left == 198


def test_the_room_of_the_machine_grows_and_only_so_far(btf: Btf, memory: Memory) -> None:
    policies = Policies(memory, Sampling(max_per_second=100), SERVER, room=3, room_of_all=5)
    none = np.arange(0)
    levels, room, slow = np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.int32), none.astype(np.uint64)
    left = []
    memory.budget_left[...] = -2
    for _ in range(4):
        policies.set(none, levels, room, slow, 3, 4, 10)
        left.append(int(memory.budget_left))
    assert left == [4, 8, 10, 10]


def test_with_a_fixed_probability_there_is_no_room_to_run_out_of(btf: Btf, memory: Memory) -> None:
    policies = Policies(memory, Sampling(0.5, keep_errors=True), SERVER)
    none = np.zeros(100, np.uint64)
    assert not decide(policies, records(btf, 80, [MS] * 100), none).kept.any()
    assert decide(policies, records(btf, 80, [MS] * 100, outcome=2), none).kept.all()


def test_a_slot_that_is_forgotten_is_as_new(btf: Btf, memory: Memory) -> None:
    policies = Policies(memory, Sampling(max_per_second=100), SERVER, room=3, room_of_all=100)
    decide(policies, records(btf, 80, [MS]))
    slots = policies.used()
    policies.set(slots, np.full((1, 3), 9, np.uint8), np.ones((1, 3), np.int32), np.array([5], np.uint64), 2, 9, 9)
    policies.forget(slots)
    assert not len(policies.used())
    assert memory.policies["levels"][slots].tolist() == [[0, 0, 0]]
    assert memory.policies["slow"][slots].tolist() == [NEVER]
