"""What a test needs from the machine, and what happens when it is not there.

A newcomer's run skips such a test and says why. Under ``CI=true`` a skip of what could be had on the machine (a
package, a tool that can be built, root) is a failure: otherwise a whole suite can be lost without anyone noticing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

import tools

_SYS_BPF = 321  # x86-64
_BPF_PROG_LOAD = 5
_BPF_PROG_TYPE_RAW_TRACEPOINT = 17
_RETURN_ZERO = bytes.fromhex("b700000000000000 9500000000000000")  # r0 = 0; exit


def unavailable(reason: str, *, obtainable: bool = True) -> NoReturn:
    """Skip the running test, or fail it under ``CI=true`` when ``obtainable``: the machine could have it."""
    if obtainable and os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; under CI=true that is a failure", pytrace=False)
    pytest.skip(reason)


def need_command(name: str) -> Path:
    """The path of a program of the system."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        unavailable(f"there is no {name}; `make setup-dev` installs it")
    return Path(path)


def need_tool(name: str) -> Path:
    """The path of a Go program, built by now under ``CI=true``."""
    path = tools.find(name)
    if path is None:
        unavailable(f"{name} is not built; `make test-tools` builds it", obtainable=shutil.which("go") is not None)
    return path


def need_root() -> None:
    if os.geteuid() != 0:
        unavailable("not root; `make test` runs the tests as root")


def need_bpf() -> None:
    """Root, and a kernel that has BTF and loads tracing programs."""
    need_root()
    if not Path("/sys/kernel/btf/vmlinux").exists():
        unavailable("this kernel has no BTF", obtainable=False)
    error = _load_smallest_program()
    if error:
        unavailable(f"this kernel refuses BPF programs: {errno.errorcode[error]}", obtainable=False)


class _ProgramAttributes(ctypes.Structure):
    """The fields of union bpf_attr that BPF_PROG_LOAD cannot do without."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
    )


@cache
def _load_smallest_program() -> int:
    """0, or the errno with which the kernel refused."""
    instructions = ctypes.create_string_buffer(_RETURN_ZERO, len(_RETURN_ZERO))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = _ProgramAttributes(
        _BPF_PROG_TYPE_RAW_TRACEPOINT, len(_RETURN_ZERO) // 8, ctypes.addressof(instructions), ctypes.addressof(licence)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = libc.syscall(_SYS_BPF, _BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if program < 0:
        return ctypes.get_errno()
    os.close(program)
    return 0
