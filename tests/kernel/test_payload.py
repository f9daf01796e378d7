"""What the loaded programs can read: the kernel's own listing of their instructions says which helpers they call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wirespan.receiver.kernel.libbpf import BpfObject, Program
from wirespan.receiver.kernel.library import ProgramInfo, library
from wirespan.receiver.kernel.session import object_path

pytestmark = pytest.mark.requires_bpf

READS_MEMORY_OF_USERS = "bpf_probe_read_user"

#: struct bpf_insn, include/uapi/linux/bpf.h
INSTRUCTION = np.dtype([("code", "u1"), ("registers", "u1"), ("offset", "<i2"), ("immediate", "<i4")])
CALL = 0x85
#: in the upper half of ``registers``: 0 is a helper
SOURCE = 0xF0


@pytest.fixture(scope="module")
def symbols() -> dict[int, str]:
    """The kernel's functions by address."""
    lines = (line.split()[:3] for line in Path("/proc/kallsyms").read_text().splitlines())
    return {int(address, 16): name for address, kind, name in lines if kind in "tT"}


def instructions(program: Program) -> np.ndarray:
    info = ProgramInfo()
    data = ctypes.create_string_buffer(program.statistics().translated_size)
    info.xlated_prog_len, info.xlated_prog_insns = len(data), ctypes.addressof(data)
    size = ctypes.c_uint32(ctypes.sizeof(info))
    library().call("list", "bpf_obj_get_info_by_fd", program.fd, ctypes.byref(info), ctypes.byref(size))
    return np.frombuffer(data, INSTRUCTION)


def helpers(program: Program, symbols: dict[int, str]) -> Iterator[str]:
    """The names of the helpers that it calls: an immediate is the distance from __bpf_call_base."""
    base = next(address for address, name in symbols.items() if name == "__bpf_call_base")
    listed = instructions(program)
    calls = listed[(listed["code"] == CALL) & (listed["registers"] & SOURCE == 0)]
    for immediate in calls["immediate"].tolist():
        yield symbols.get(base + immediate, "another")


def called(read_payload: int, symbols: dict[int, str]) -> dict[str, set[str]]:
    with BpfObject.open(object_path()) as programs:
        programs.set_variable("read_payload", read_payload)
        programs.load()
        return {name: set(helpers(program, symbols)) for name, program in programs.programs.items()}


def test_programs_that_read_no_payload_have_no_way_to_read_it(symbols: dict[int, str]) -> None:
    reading, blind = called(1, symbols), called(0, symbols)
    hooks = {"sock_send_length", "sock_recv_length"}
    assert {name for name, found in reading.items() if READS_MEMORY_OF_USERS in found} == hooks
    assert not {name for name, found in blind.items() if READS_MEMORY_OF_USERS in found}
    assert all(found for found in blind.values()), "the listing shows no helpers"


def test_what_copies_packets_is_gone_too() -> None:
    """It consists of loads and stores: nothing but their number tells."""
    sizes = []
    for read_payload in (1, 0):
        with BpfObject.open(object_path()) as programs:
            programs.set_variable("read_payload", read_payload)
            programs.load()
            sizes.append(programs.programs["sk_data_ready"].statistics().translated_size)
    assert sizes[0] - sizes[1] > 1_500
