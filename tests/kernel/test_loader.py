"""Loading, attaching and running real programs, and what becomes of those that the kernel refuses."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.compiling import compile_bpf
from wirespan.pipeline.component import StartError
from wirespan.receiver.kernel import report
from wirespan.receiver.kernel.libbpf import BpfError, BpfObject, possible_cpus, run_statistics
from wirespan.receiver.kernel.programs import Attached, ProgramSpec, load

pytestmark = pytest.mark.requires_bpf

WORKING = (
    ProgramSpec("compute", True, "nothing is computed"),
    ProgramSpec("tally", True, "no numbers are counted"),
    ProgramSpec("count_renames", True, "nothing is counted"),
    ProgramSpec("write_keys", True, "no keys are written", walks="squares"),
)
REFUSED_AT_LOAD = {
    "no_target": "no_such_tracepoint",
    "no_field": "task_struct.no_such_field",
    "no_proof": "invalid mem access",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_bpf(Path(__file__).with_name("loader.bpf.c"), tmp_path_factory.mktemp("loader"))


@pytest.fixture
def programs(compiled: Path) -> Iterator[Attached]:
    with load(compiled, WORKING, {"factor": 1000, "terms": [10, 20]}, {"squares": 8}) as programs:
        yield programs


@pytest.fixture(autouse=True)
def nothing_stays_in_the_kernel() -> Iterator[None]:
    """After every test, this process holds no program, map, link or BTF that it did not hold before."""
    before = bpf_descriptors()
    yield
    assert bpf_descriptors() == before


def bpf_descriptors() -> list[str]:
    folder = Path("/proc/self/fd")
    targets = [os.readlink(folder / name) for name in os.listdir(folder) if (folder / name).is_symlink()]
    return sorted(target for target in targets if "bpf" in target or "btf" in target)


def rename_thread(times: int) -> None:
    name = Path("/proc/thread-self/comm")
    for _ in range(times):
        name.write_text(name.read_text())


def renames(programs: Attached) -> int:
    per_cpu = programs.maps["renames"].lookup_per_cpu(bytes(4), "u4")
    assert per_cpu is not None
    assert per_cpu.shape == (possible_cpus(),)
    return int(per_cpu.sum())


def optional(name: str) -> ProgramSpec:
    return ProgramSpec(name, False, "something is lost")


def essential(name: str) -> ProgramSpec:
    return ProgramSpec(name, True, "everything is lost")


def test_constants_are_what_the_program_computes_with(programs: Attached) -> None:
    assert programs.run("compute", struct.pack("I", 7)) == -3
    assert programs.object.variable("result") == 7030


def test_variables_are_shared_with_the_running_program(programs: Attached) -> None:
    assert programs.object.variable("changed") == -7
    programs.object.set_variable("changed", 41)
    programs.run("compute", bytes(4))
    assert programs.object.variable("changed") == 42


def test_a_constant_cannot_be_set_after_the_load(programs: Attached) -> None:
    with pytest.raises(BpfError, match="before the load"):
        programs.object.set_variable("factor", 2)
    assert programs.object.variable("factor") == 1000


def test_a_value_that_does_not_fit_its_variable_is_refused(compiled: Path) -> None:
    with BpfObject.open(compiled) as opened, pytest.raises(OverflowError):
        opened.set_variable("terms", [0, 1 << 16])


def test_a_map_keeps_updates_until_they_are_deleted(programs: Attached) -> None:
    squares = programs.maps["squares"]
    squares.update(struct.pack("H", 3), struct.pack("I", 9))
    assert squares.lookup(struct.pack("H", 3)) == struct.pack("I", 9)
    assert squares.lookup(struct.pack("H", 4)) is None
    assert squares.delete(struct.pack("H", 3))
    assert not squares.delete(struct.pack("H", 3))
    assert squares.lookup(struct.pack("H", 3)) is None


@pytest.mark.parametrize("room", [1, 4_096, 1 << 20])
def test_all_of_a_per_cpu_map_is_read_in_parts(programs: Attached, room: int) -> None:
    for number in (*range(5_000), *range(100)):
        programs.run("tally", struct.pack("I", number))
    found: dict[int, int] = {}
    for keys, values in programs.maps["tallies"].items_per_cpu("<u8", room):
        assert values.shape == (len(keys), possible_cpus())
        numbers = keys.view("<u4")[:, 0].tolist()
        assert not found.keys() & numbers, "met twice"
        found |= dict(zip(numbers, values.sum(axis=1).tolist(), strict=True))
    assert found == {number: number * (2 if number < 100 else 1) for number in range(5_000)}


def test_a_value_of_a_per_cpu_map_is_taken_once(programs: Attached) -> None:
    for number in range(10):
        programs.run("tally", struct.pack("I", number))
    taken = programs.maps["tallies"].take_per_cpu(struct.pack("I", 7), "<u8")
    assert taken is not None
    assert taken.sum() == 7
    assert programs.maps["tallies"].take_per_cpu(struct.pack("I", 7), "<u8") is None
    assert sum(len(keys) for keys, _ in programs.maps["tallies"].items_per_cpu("<u8", 4_096)) == 9


def test_a_map_has_the_size_it_was_given(programs: Attached) -> None:
    squares = programs.maps["squares"]
    assert squares.max_entries == 8
    for key in range(8):
        squares.update(struct.pack("H", key), bytes(4))
    with pytest.raises(BpfError, match="E2BIG"):
        squares.update(struct.pack("H", 8), bytes(4))


@pytest.mark.parametrize("key", [b"", b"x", b"xxxx"])
def test_a_key_of_another_size_is_refused(programs: Attached, key: bytes) -> None:
    squares = programs.maps["squares"]
    for use in (squares.lookup, squares.delete, lambda key: squares.update(key, bytes(4))):
        with pytest.raises(BpfError, match="unexpected key size"):
            use(key)


def test_an_attached_program_runs_and_a_detached_one_does_not(programs: Attached) -> None:
    rename_thread(5)
    assert renames(programs) == 0
    programs.attach()
    rename_thread(5)
    assert (counted := renames(programs)) >= 5
    programs.detach("write_keys")
    rename_thread(5)
    assert renames(programs) == counted
    assert programs.iterate("write_keys") == b""


def test_an_iterator_visits_every_element_each_time_it_is_asked(programs: Attached) -> None:
    programs.attach()
    for keys in ([5], [5, 6, 700]):
        for key in keys:
            programs.maps["squares"].update(struct.pack("H", key), bytes(4))
        written = programs.iterate("write_keys")
        assert sorted(struct.unpack(f"{len(written) // 2}H", written)) == keys


def test_the_kernel_counts_runs_while_it_is_told_to(programs: Attached) -> None:
    compute = programs.object.programs["compute"]
    programs.attach()
    rename_thread(3)
    assert programs.object.programs["count_renames"].statistics().runs == 0
    with run_statistics():
        rename_thread(3)
    counted = programs.object.programs["count_renames"].statistics()
    assert counted.runs >= 3
    assert counted.run_time_ns > 0
    assert compute.statistics().verified_instructions > 0
    assert compute.statistics().machine_size > 0


def test_what_is_closed_cannot_be_used_and_can_be_closed_again(programs: Attached) -> None:
    programs.attach()
    compute, squares = programs.object.programs["compute"], programs.maps["squares"]
    programs.close()
    programs.close()
    for use in (compute.run, compute.statistics, lambda: squares.lookup(bytes(2)), programs.object.load):
        with pytest.raises(BpfError, match="it is closed") as raised:
            use()
        assert raised.value.errno == errno.EBADF


def test_an_object_can_come_from_memory(compiled: Path) -> None:
    with BpfObject.from_bytes(compiled.read_bytes(), "copied") as opened:
        assert opened.programs["compute"].section == "syscall"
        assert "squares" in opened.maps
        with pytest.raises(BpfError, match="before it is created"):
            _ = opened.maps["squares"].fd


def test_optional_programs_that_the_kernel_refuses_are_reported_and_the_others_work(compiled: Path) -> None:
    with load(compiled, [*WORKING, *map(optional, REFUSED_AT_LOAD)]) as programs:
        reports = {report.program: str(report) for report in programs.reports}
        assert reports.keys() == REFUSED_AT_LOAD.keys()
        for name, reason in REFUSED_AT_LOAD.items():
            assert reason in reports[name]
            assert "something is lost" in reports[name]
            assert not programs.available(name)
        programs.attach()
        rename_thread(1)
        assert renames(programs) >= 1


@pytest.mark.parametrize("name", REFUSED_AT_LOAD)
def test_an_essential_program_that_the_kernel_refuses_stops_the_start(compiled: Path, name: str) -> None:
    with pytest.raises(StartError) as raised:
        load(compiled, [*WORKING, essential(name)])
    for fact in (name, REFUSED_AT_LOAD[name], "everything is lost", "wirespan check"):
        assert fact in str(raised.value)


def test_an_optional_program_that_cannot_attach_is_reported_and_the_others_run(compiled: Path) -> None:
    with load(compiled, [optional("no_function"), *WORKING]) as programs:
        assert programs.available("no_function")
        programs.attach()
        assert [report.program for report in programs.reports] == ["no_function"]
        assert "no_such_function" in str(programs.reports[0])
        rename_thread(1)
        assert renames(programs) >= 1


def test_an_essential_program_that_cannot_attach_takes_the_attached_ones_with_it(compiled: Path) -> None:
    programs = load(compiled, [*WORKING, essential("no_function")])
    with pytest.raises(StartError, match="no_function is not available"):
        programs.attach()
    assert bpf_descriptors() == []


def test_a_failing_load_prints_nothing(compiled: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StartError):
        load(compiled, [essential("no_proof")])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("specs", "constants", "map_sizes", "said"),
    [
        ([optional("unheard_of")], {}, {}, "has no unheard_of"),
        (WORKING, {"unheard_of": 1}, {}, "cannot find variable unheard_of"),
        (WORKING, {}, {"unheard_of": 1}, "has no unheard_of"),
    ],
)
def test_a_name_that_the_object_does_not_have_stops_the_start(
    compiled: Path, specs: list[ProgramSpec], constants: dict[str, int], map_sizes: dict[str, int], said: str
) -> None:
    with pytest.raises(StartError, match=said):
        load(compiled, specs, constants, map_sizes)


def test_a_file_that_is_no_object_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="ENOENT"):
        load(tmp_path / "absent.o", WORKING)
    (tmp_path / "text.o").write_text("hello")
    with pytest.raises(StartError, match="ELF"):
        load(tmp_path / "text.o", WORKING)


def test_the_report_has_a_row_a_program_and_the_reasons_of_refusals(
    compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(compiled)]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert int(rows["compute"].split()[1]) > 0
    for name, reason in REFUSED_AT_LOAD.items():
        assert "refused" in rows[name]
        assert reason in rows[name]


def test_a_report_on_no_object_fails_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "absent.o")]) == 1
    assert "ENOENT" in capsys.readouterr().err
