"""What ``select`` says of processes: keys, entries, globs, and what happens where nothing can be known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wirespan.pipeline.counters import Counters
from wirespan.receiver import process_selection
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import abi_of, object_path, with_requester
from wirespan.receiver.process import ProcessTable
from wirespan.receiver.process_selection import ProcessRules, ProcessSelection
from wirespan.receiver.resource.procfs import ProcessImage
from wirespan.receiver.selection import Select

CLIENT, SERVER = 1, 2
PEER_OBSERVED = 1
GONE = 2**22 + 1
CGROUPS = "9:name=systemd:/\n4:memory:/kubepods/burstable/pod17/abc\n0::/system.slice/nginx.service/worker\n"


def rules(**keys: Any) -> ProcessRules:
    return ProcessRules(Select.model_validate(keys))


def image(executable: str | None = "/opt/shop/bin/server", cgroup: str = CGROUPS) -> ProcessImage:
    return ProcessImage(b"server", 1, 1, executable is None, executable, (), b"", cgroup, denied=False)


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        ({}, True),
        ({"executables": ["/opt/*"]}, True),
        ({"executables": ["/opt/shop"]}, False),
        ({"executables": ["/usr/*", "*/server"]}, True),
        ({"executables": ["/opt/shop/bin/serve?"]}, True),
        ({"executables": ["/OPT/*"]}, False),
        ({"services": ["shop"]}, True),
        ({"services": ["sh"]}, False),
        ({"services": ["[a-s]hop"]}, True),
        ({"services": ["shop"], "executables": ["/usr/*"]}, False),
        ({"cgroups": ["/kubepods"]}, True),
        ({"cgroups": ["/kubepods/"]}, True),
        ({"cgroups": ["/kubepods/burstable/pod17/abc"]}, True),
        ({"cgroups": ["/kubepods/burstable/pod1"]}, False),
        ({"cgroups": ["*/pod17"]}, True),
        ({"cgroups": ["/system.slice/nginx.service"]}, True),
        ({"cgroups": ["/system.slice/nginx.service/worker/*"]}, False),
        ({"cgroups": ["/"]}, True),
        ({"exclude": {"cgroups": ["*/pod17*"]}}, False),
        ({"exclude": {"services": ["cart"], "executables": ["/usr/*"]}}, True),
        ({"exclude": {"services": ["cart"], "executables": ["/opt/*"]}}, False),
        ({"services": ["shop"], "exclude": {"services": ["shop"]}}, False),
    ],
)
def test_an_image_is_selected_by_every_key_and_no_excluded_one(keys: dict[str, Any], selected: bool) -> None:
    assert rules(**keys).selects_image(image(), "shop") is selected


def test_a_kernel_thread_has_no_executable_to_match() -> None:
    assert not rules(executables=["/*"]).selects_image(image(None), "kthreadd")
    assert rules(exclude={"executables": ["/*"]}).selects_image(image(None), "kthreadd")


def test_process_ids_need_no_image() -> None:
    some = rules(pids=[7, 8], exclude={"pids": [8]})
    assert (some.exist, some.by_image) == (True, False)
    assert [pid for pid in (6, 7, 8) if some.selects_pid(pid)] == [7]
    assert not rules(ports=[80], exclude={"ports": [81]}).exist


class Drain:
    """Rows as the kernel writes them, and what a selection makes of them."""

    def __init__(self, **keys: Any) -> None:
        with BpfObject.open(object_path()) as programs:
            self.dtype, abi = with_requester(programs.btf.dtype("exchange")), abi_of(programs.btf)
        self.counters, self.told = Counters(), set[bytes]()
        self.selection = ProcessSelection(rules(**keys), ProcessTable(self.counters), self.told, abi, self.counters)

    def row(self, pid: int, role: int = SERVER, requester: int = 0, observed: bool = True) -> np.ndarray:
        rows = np.zeros(1, self.dtype)
        rows["exchange"]["connection"]["role"] = role
        rows["exchange"]["flags"] = PEER_OBSERVED if observed else 0
        for process, number in ((rows["exchange"]["process"], pid), (rows["requester"], requester)):
            process["tgid"] = number
            if number == os.getpid():
                name, _, fields = Path("/proc/self/stat").read_bytes().partition(b" (")[2].rpartition(b") ")
                process["start_time"] = int(fields.split()[19]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
                process["comm"] = np.frombuffer(name.ljust(16, b"\0"), "u1")
        return rows

    def excluded(self, reason: str) -> int:
        return self.counters.snapshot().get(("wirespan.exchanges.excluded", (("reason", reason),)), 0)


ME = os.getpid()
MINE = [os.readlink("/proc/self/exe")]


def test_what_has_ended_is_left_out_where_its_image_decides() -> None:
    for keys in ({"executables": ["*"]}, {"exclude": {"executables": ["/nothing"]}}):
        drain = Drain(**keys)
        kept, keep = drain.selection.of_rows(np.concatenate([drain.row(GONE), drain.row(ME)]))
        assert keep.tolist() == [False, True]
        assert kept["process"]["tgid"].tolist() == [ME]
        assert (drain.excluded("unresolved"), drain.excluded("new")) == (1, 0)
        assert not drain.told


def test_what_is_left_out_is_told_once() -> None:
    drain = Drain(exclude={"executables": MINE})
    for _ in range(3):
        _, keep = drain.selection.of_rows(np.repeat(drain.row(ME), 5))
        assert not keep.any()
    assert drain.excluded("new") == 15
    assert drain.told == {drain.row(ME)["exchange"]["process"].tobytes()[:16]}


def test_a_parent_is_named_if_it_is_selected() -> None:
    drain = Drain(pids=[ME, 7])
    rows = np.concatenate(
        [
            drain.row(ME, SERVER, requester=7),
            drain.row(ME, SERVER, requester=8),
            drain.row(ME, SERVER, requester=0),
            drain.row(ME, SERVER, requester=7, observed=False),
            drain.row(ME, CLIENT, requester=8),
            drain.row(8, SERVER, requester=7),
        ]
    )
    before = rows.copy()
    kept, keep = drain.selection.of_rows(rows)
    assert keep.tolist() == [True] * 5 + [False]
    assert kept["flags"].tolist() == [PEER_OBSERVED, 0, 0, 0, PEER_OBSERVED]
    assert (rows == before).all(), "rows lie in the ring, which is not ours to write"


def test_what_is_all_selected_is_not_copied() -> None:
    drain = Drain(pids=[ME])
    rows = np.repeat(drain.row(ME, observed=False), 3)
    kept, _ = drain.selection.of_rows(rows)
    assert np.shares_memory(kept, rows)


def test_what_is_told_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_selection, "VERDICTS_KEPT", 4)
    drain = Drain(pids=[ME])
    for pid in range(1000, 1010):
        drain.selection.of_rows(drain.row(pid))
    assert {int.from_bytes(image[8:12], "little") for image in drain.told} == {1006, 1007, 1008, 1009}


def test_a_verdict_by_control_group_does_not_hold_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_selection, "CGROUPS_HOLD", 0.0)
    drain = Drain(exclude={"cgroups": ["/"]})
    drain.selection.of_rows(drain.row(ME))
    assert len(drain.told) == 1
    drain.selection.forget()
    assert not drain.told
