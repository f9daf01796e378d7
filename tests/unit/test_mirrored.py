"""Numbers that are written down in C and in Python are the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.c_numbers import enum, numbers
from wirespan.pipeline.otlp_columns import _ENVELOPE, ColumnKind
from wirespan.receiver import histogram, policies
from wirespan.receiver.cgroup_costs import SECONDS
from wirespan.receiver.exchanges import _NUMBERS, _PARTS
from wirespan.receiver.kernel.btf import Btf
from wirespan.receiver.kernel.cgroups import COSTS
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import REQUEST_HEAD_SHORT, object_path
from wirespan.receiver.operations import Meaning
from wirespan.receiver.process_selection import _IMAGE_SIZE
from wirespan.receiver.protocols import databases
from wirespan.receiver.protocols.capturing import HEAD_SIZE
from wirespan.receiver.protocols.redis_commands import WORD_LIMIT
from wirespan.receiver.sampling import LEVELS
from wirespan.receiver.trace_context import Context


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    with BpfObject.open(object_path()) as bpf_object:
        yield bpf_object.btf


def test_enums_of_the_kernels_in_c() -> None:
    assert enum("heads.c", "meaning", "MEANING_") == dict(Meaning.__members__)
    assert enum("trace_context.h", "context_flag", "CONTEXT_") == dict(Context.__members__)
    assert enum("otlp.h", "column_kind", "COLUMN_") == dict(ColumnKind.__members__)
    assert len(enum("otlp.c", "envelope", "ENVELOPE_")) == len(_ENVELOPE)


@pytest.mark.parametrize(("names", "name", "prefix"), [(_NUMBERS, "number", "NUMBER_"), (_PARTS, "part", "PART_")])
def test_columns_of_numbers_are_in_the_order_of_c(names: tuple[str, ...], name: str, prefix: str) -> None:
    in_c = enum("columns.c", name, prefix)
    assert list(in_c.values()) == list(range(len(names)))
    for ours, theirs in zip(names, in_c, strict=True):
        assert theirs.lower().replace("_", ".") in ours


def test_numbers_of_protocols_and_status_classes(btf: Btf) -> None:
    protocol, status = btf.enum("protocol"), btf.enum("status_class")
    assert {number: f"PROTOCOL_{name.value.upper()}" for number, name in databases._NAMES.items()} == {
        number: name for name, number in protocol.items() if number in databases._NAMES
    }
    assert status["STATUS_CLIENT_ERROR"] == databases._CLIENT_ERROR
    assert status["STATUS_SERVER_ERROR"] == databases._SERVER_ERROR


def test_numbers_of_policies(btf: Btf) -> None:
    classes, counts = btf.enum("sampling_class"), btf.enum("policy_count")
    assert classes == {
        "SAMPLING_REST": policies.REST,
        "SAMPLING_SLOW": policies.SLOW,
        "SAMPLING_FAILED": policies.FAILED,
        "SAMPLING_CLASSES": policies.CLASSES,
    }
    assert (counts["COUNTED_FAILED"], counts["POLICY_COUNTS"]) == (policies.COUNTED_FAILED, policies.COUNTS)
    assert [counts[f"COUNTED_{name}"] >> 1 for name in ("FAST", "USUAL", "SLOW", "SLOWEST", "FAILED")] == [
        0,
        0,
        1,
        1,
        2,
    ]
    assert btf.variables()["policies"].dtype.shape == (policies.POLICIES,)
    assert btf.variables()["sampling_thresholds"].dtype.shape == (LEVELS,)
    assert numbers("slot.h", "SLOT_FACTOR", "SLOT_SHIFT", "SLOT_TRANSPORT") == [
        policies._FACTOR,
        policies._SHIFT,
        policies._TRANSPORT,
    ]


def test_costs_of_control_groups(btf: Btf) -> None:
    costs = btf.enum("cgroup_cost")
    assert [costs[f"COST_{name.upper()}"] for name in COSTS] == list(range(costs["COSTS"])) == list(range(len(SECONDS)))


def test_sizes(btf: Btf) -> None:
    assert numbers("record.h", "REQUEST_HEAD_SHORT", "REQUEST_HEAD") == [REQUEST_HEAD_SHORT, HEAD_SIZE]
    assert numbers("redis.h", "REDIS_WORD") == [WORD_LIMIT]
    assert btf.dtype("image").itemsize == _IMAGE_SIZE
    names = ("SCALE", "LOWEST", "SLOTS")
    assert numbers("histogram.h", *(f"HISTOGRAM_{name}" for name in names)) == [
        getattr(histogram, name) for name in names
    ]
