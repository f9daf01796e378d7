"""Which bucket a duration is in: the kernel's way, compiled for the host, and numpy's, against exact arithmetic."""

from __future__ import annotations

import ctypes
import subprocess
from ctypes import c_uint64
from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from support.compiling import clang
from wirespan.receiver.histogram import LOWEST, SCALE, SLOTS, ZERO_THRESHOLD, limits, slot_table, slots_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("host") / "histogram.so"
    flags = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", f"-I{ROOT}/bpf", "-shared", "-fPIC"]
    subprocess.run([clang(), *flags, f"{ROOT}/tests/host/histogram_host.c", "-o", path], check=True)
    return ctypes.CDLL(str(path))


def in_kernel(library: ctypes.CDLL, durations: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    table, slots = slot_table(), np.empty(len(durations), np.uint32)
    assert library.table_size() == table.nbytes
    library.slots_of(
        table.ctypes.data_as(ctypes.c_void_p),
        durations.ctypes.data_as(ctypes.c_void_p),
        slots.ctypes.data_as(ctypes.c_void_p),
        c_uint64(len(durations)),
    )
    return slots.astype(np.int64)


def bucket_of(duration: int) -> int:
    """By the data model's definition: base^i < s <= base^(i+1), base = 2^(2^-scale)."""
    getcontext().prec = 60
    exact = (Decimal(duration) / 1_000_000_000).ln() / Decimal(2).ln() * 2**SCALE
    return int(exact.to_integral_value(rounding="ROUND_CEILING")) - 1


def test_every_bound_lies_where_the_data_model_has_it(library: ctypes.CDLL) -> None:
    """A ns more is in the next bucket, at each of the 192 bounds."""
    bounds = [int(limit) for limit in limits()[:-1]]
    durations = np.array([bound + more for bound in bounds for more in (-1, 0, 1)], np.uint64)
    expected = [max(0, min(bucket_of(int(d)) - LOWEST + 1, SLOTS - 1)) for d in durations]
    assert slots_of(durations).tolist() == expected
    assert in_kernel(library, durations).tolist() == expected


def test_kernel_and_numpy_agree_on_durations_of_all_sizes(library: ctypes.CDLL) -> None:
    source = np.random.default_rng(1)
    durations = np.exp2(source.uniform(0, 63.9, 1_000_000)).astype(np.uint64)
    durations[:4] = 0, 1, (1 << 64) - 1, 1 << 63
    assert np.array_equal(in_kernel(library, durations), slots_of(durations))


def test_what_is_in_no_bucket_is_not_above_the_zero_threshold() -> None:
    assert limits()[0] <= ZERO_THRESHOLD * 1e9 < limits()[0] + 1
