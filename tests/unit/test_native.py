"""The kernels in C: their tables, what loading them refuses, and that they stay within their arrays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.availability import unavailable
from wirespan.native.key_table import UNKNOWN, KeyTable
from wirespan.native.library import NativeError, check_records, load
from wirespan.native.sources import of_library
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import object_path

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "wirespan" / "native"


def keys(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_what_was_added_is_found_and_the_rest_is_not() -> None:
    table = KeyTable(100)
    table.add(keys(0, 1, 2**64 - 1), numbers(7, 0, 2**32 - 2))
    assert table.find(keys(2**64 - 1, 2, 0, 1)).tolist() == [2**32 - 2, UNKNOWN, 7, 0]
    table.add(keys(1), numbers(8))
    assert table.find(keys(1)).tolist() == [8]
    table.clear()
    assert table.find(keys(0, 1)).tolist() == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("limit", [1, 2, 3, 100, 4096])
def test_a_table_gives_what_was_added_last_or_nothing(limit: int) -> None:
    table, random = KeyTable(limit), np.random.default_rng(limit)
    last: dict[int, int] = {}
    for _ in range(200):
        some, their = random.integers(0, 3 * limit, 20).astype(np.uint64), random.integers(0, 2**31, 20)
        table.add(some, their)
        last.update(zip(some.tolist(), their.tolist(), strict=True))
        asked = np.arange(3 * limit, dtype=np.uint64)
        found = table.find(asked).tolist()
        assert {key: number for key, number in enumerate(found) if number != UNKNOWN}.items() <= last.items()
        assert found[int(some[-1])] == their[-1]


def test_at_least_the_limit_and_at_most_twice_the_limit_are_remembered() -> None:
    table = KeyTable(50)
    for key in range(1_000):
        table.add(keys(key), numbers(key))
    found = table.find(np.arange(1_000, dtype=np.uint64))
    assert (found[-50:] == np.arange(950, 1_000)).all()
    assert 50 <= np.count_nonzero(found != UNKNOWN) <= 100


def test_what_is_asked_for_again_and_again_is_never_forgotten() -> None:
    table = KeyTable(50)
    table.add(keys(10**6), numbers(1))
    for key in range(10_000):
        table.add(keys(key), numbers(0))
        if not key % 40:
            assert table.find(keys(10**6)).tolist() == [1]


def test_keys_that_collide_are_told_apart() -> None:
    table = KeyTable(1_000)
    same_slot = np.arange(1_000, dtype=np.uint64) << np.uint64(53)
    table.add(same_slot, np.arange(1_000))
    assert table.find(same_slot).tolist() == list(range(1_000))


def test_a_field_of_records_can_be_asked_for() -> None:
    records = np.zeros(5, [("other", "u1", 24), ("cookie", "<u8")])
    records["cookie"] = range(5)
    table = KeyTable(10)
    table.add(keys(3), numbers(9))
    assert table.find(records["cookie"]).tolist() == [UNKNOWN, UNKNOWN, UNKNOWN, 9, UNKNOWN]
    assert table.find(records["cookie"][::-1]).tolist() == [UNKNOWN, 9, UNKNOWN, UNKNOWN, UNKNOWN]


def test_what_is_not_known_is_made_once_a_key() -> None:
    made: list[int] = []

    def make(row: int) -> int:
        made.append(row)
        return 10 * row

    table = KeyTable(10)
    assert table.recall(keys(5, 6, 5, 7, 6), make).tolist() == [0, 10, 0, 30, 10]
    assert table.recall(keys(6, 5), make).tolist() == [10, 0]
    assert made == [0, 1, 3]


def test_a_missing_library_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match=r"cannot load .*absent\.so.*run make setup"):
        load(tmp_path / "absent.so")


def test_a_library_of_other_sources_is_refused(tmp_path: Path) -> None:
    for source in NATIVE.glob("*.[ch]"):
        text = source.read_text().replace("u64 width;", "u64 width;\n\tu64 another;")
        (tmp_path / source.name).write_text(text)
    with pytest.raises(NativeError, match="compiled from other sources; run make setup"):
        load(compiled(tmp_path, tmp_path / "other.so"))


def test_records_of_another_layout_are_refused() -> None:
    with BpfObject.open(object_path()) as programs:
        dtype = programs.btf.dtype("exchange")
    check_records(dtype)
    with pytest.raises(NativeError, match="other records than the BPF programs write; run make setup"):
        check_records(np.dtype({**layout(dtype), "itemsize": dtype.itemsize + 8}))
    renamed = [name.replace("position", "place") for name in dtype.names]
    with pytest.raises(NativeError, match="have no position; run make setup"):
        check_records(np.dtype({**layout(dtype), "names": renamed}))


def layout(dtype: np.dtype) -> dict[str, object]:
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [field[0] for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }


def compiled(folder: Path, library: Path, *flags: str) -> Path:
    sources = sorted(folder.glob("*.c"))
    command = ["cc", "-std=c11", "-O1", "-g", "-fPIC", "-shared", *flags, f"-I{ROOT / 'bpf'}", f"-I{folder}", *sources]
    subprocess.run([*command, "-o", library], check=True)
    return library


def test_no_kernel_leaves_its_arrays_or_the_language(tmp_path: Path) -> None:
    runtime = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(runtime).is_absolute():
        unavailable("this compiler has no address sanitizer")
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-DSOURCES={of_library():#x}")
    library = compiled(NATIVE, tmp_path / "sanitized.so", *flags)
    tests = ["tests/fuzz/test_fuzz_heads.py", "tests/fuzz/test_fuzz_trace_context.py"]
    tests += ["tests/unit/test_otlp.py", "tests/unit/test_native.py"]
    tests += ["tests/unit/test_span_metrics.py", "tests/unit/test_routes.py"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "support.sanitized", "-k", "not sanit and not leaves", *tests],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "tests"),
            "PYTHONMALLOC": "malloc",  # Python's own allocator would hide where an array ends
            "LD_PRELOAD": runtime,
            "ASAN_OPTIONS": "detect_leaks=0",
            "WIRESPAN_NATIVE": str(library),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
