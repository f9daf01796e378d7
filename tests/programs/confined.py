"""Runs a program with the system calls that a unit of systemd leaves it, as systemd filters them (systemd.exec(5)).

``UNIT CALLS COMMAND...``; CALLS: a file of the names that SystemCallFilter= stands for. Understood are SystemCallFilter,
SystemCallErrorNumber=EPERM, RestrictAddressFamilies, MemoryDenyWriteExecute, RestrictNamespaces, RestrictRealtime,
LockPersonality and UMask. What a filter cannot do (user, capabilities, mounts) is done by who starts this.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from configparser import ConfigParser
from ctypes import c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

# seccomp.h of libseccomp
ALLOW = 0x7FFF0000
EQUAL, MASKED_EQUAL = 4, 7


def fail_with(number: int) -> int:
    """The action that makes a call fail."""
    return 0x00050000 | number


PROT_WRITE, PROT_EXEC = 2, 4
SHM_EXEC = 0o100000
#: clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME
NAMESPACES = 0x7E020000 | 0x80
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
#: sched(7): SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
NOT_REALTIME = (0, 3, 5)
UNCHANGED_PERSONALITY = (0, 0xFFFFFFFF)


class Condition(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("argument", c_uint), ("operator", c_int), ("first", c_uint64), ("second", c_uint64))


def equal(argument: int, value: int) -> Condition:
    return Condition(argument, EQUAL, value, 0)


def without(argument: int, bits: int, others: int = 0) -> Condition:
    """Of these bits, none but ``others``."""
    return Condition(argument, MASKED_EQUAL, bits, others)


def conditions(unit: dict[str, str]) -> dict[str, list[Condition]]:
    """By call, when it is allowed; all others that the filter names always are."""
    found: dict[str, list[Condition]] = {}
    if "RestrictAddressFamilies" in unit:
        found["socket"] = [equal(0, FAMILIES[name]) for name in unit["RestrictAddressFamilies"].split()]
    if unit.get("MemoryDenyWriteExecute") == "yes":
        both = PROT_WRITE | PROT_EXEC
        found["mmap"] = [without(2, both, some) for some in (0, PROT_WRITE, PROT_EXEC)]
        found["mprotect"] = found["pkey_mprotect"] = [without(2, PROT_EXEC)]
        found["shmat"] = [without(2, SHM_EXEC)]
    if unit.get("RestrictNamespaces") == "yes":
        found["clone"] = [without(0, NAMESPACES)]
        found["unshare"] = found["setns"] = []
    if unit.get("RestrictRealtime") == "yes":
        found["sched_setscheduler"] = [equal(1, policy) for policy in NOT_REALTIME]
    if unit.get("LockPersonality") == "yes":
        found["personality"] = [equal(0, value) for value in UNCHANGED_PERSONALITY]
    return found


def filter_calls(allowed: list[str], restricted: dict[str, list[Condition]]) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = c_void_p
    library.seccomp_syscall_resolve_name.argtypes = (c_char_p,)
    library.seccomp_rule_add_array.argtypes = (c_void_p, c_uint32, c_int, c_uint, c_void_p)
    library.seccomp_load.argtypes = (c_void_p,)
    context = library.seccomp_init(fail_with(errno.EPERM))

    def allow(call: str, *when: Condition) -> None:
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # else of another architecture
            check(library.seccomp_rule_add_array(context, ALLOW, number, len(when), (Condition * len(when))(*when)))

    for call in allowed:
        if call == "clone3":  # its flags are in memory: the C library goes on to clone
            continue
        for condition in restricted.get(call, [None]):
            allow(call, *([] if condition is None else [condition]))
    clone3 = library.seccomp_syscall_resolve_name(b"clone3")
    check(library.seccomp_rule_add_array(context, fail_with(errno.ENOSYS), clone3, 0, None))
    check(library.seccomp_load(context))


def check(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def main() -> None:
    unit_file, calls, *command = sys.argv[1:]
    parser: Any = ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read(unit_file)
    unit = dict(parser["Service"])
    os.umask(int(unit["UMask"], 8))
    filter_calls(Path(calls).read_text().split(), conditions(unit))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
