"""libbpf.so.1 as a table of C functions whose failures are Python exceptions.

ctypes rather than cffi or an extension: nothing is compiled at installation, the distribution's libbpf is used as it
is, and none of these calls is on a hot path (rings are read through mmap, see ring.py).

libbpf explains its failures, and the kernel's, in messages and not in return values. A callback collects them per
thread; every call forgets the earlier ones, and the :class:`BpfError` of a call that fails carries those that came
with it. Nothing reaches stderr. Since libbpf 1.0, functions return ``-errno``, or NULL and set errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import deque
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from .diagnosis import reason

#: enum libbpf_print_level: WARN 0, INFO 1, DEBUG 2
_LEVEL_DEBUG = 2
#: A verifier log may have megabytes, and its verdict is at its end.
_MESSAGE_TAIL = 65_536
_LINES_KEPT = 1_000

#: include/linux/errno.h: kernel-internal, but BPF attachment returns it to user space.
_ENOTSUPP = 524

_HINTS = {
    errno.EPERM: "run it as root (sudo wirespan run), or grant CAP_BPF and CAP_PERFMON; a container's seccomp profile must allow bpf()",
    errno.EACCES: "this kernel's verifier refuses the program",
    errno.E2BIG: "this kernel's verifier gave up; a newer kernel may accept the program",
    errno.ESRCH: "this kernel does not have what the program attaches to",
    errno.ENOSYS: "this kernel is built without CONFIG_BPF_SYSCALL",
    errno.ENOMEM: "memory, or RLIMIT_MEMLOCK on kernels before 5.11, does not suffice",
}


class BpfError(Exception):
    """Something that libbpf or the kernel refused.

    action: what was tried, for "cannot <action>". errno: the error's number. messages: libbpf's and the kernel's
    lines, oldest first. hint: what to do, by default what the number suggests.
    """

    def __init__(self, action: str, number: int, messages: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(action, number)
        self.action = action
        self.errno = number
        self.messages = tuple(messages)
        self.hint = hint or _HINTS.get(number, "")

    @property
    def name(self) -> str:
        """The error's symbolic name, ``EPERM``."""
        return errno.errorcode.get(self.errno, "ENOTSUPP" if self.errno == _ENOTSUPP else f"error {self.errno}")

    def __str__(self) -> str:
        text = f"cannot {self.action}: {self.name}"
        if self.errno in errno.errorcode:
            text += f" ({os.strerror(self.errno)})"
        text += f": {self.hint}" if self.hint else ""
        said = reason(self.messages).rstrip(".")
        return text + (f"; libbpf says: {said}" if said else "")


class Pointer:
    """An address in libbpf, and what it is in messages. After ``forget`` using it is a BpfError, not a crash."""

    def __init__(self, pointer: int, what: str) -> None:
        self._pointer: int | None = pointer
        self._what = what

    @property
    def pointer(self) -> int:
        if self._pointer is None:
            raise BpfError(f"use {self._what}", errno.EBADF, hint="it is closed")
        return self._pointer

    def forget(self) -> int | None:
        """The pointer, for whoever frees it; None the second time."""
        pointer, self._pointer = self._pointer, None
        return pointer


class TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_: ClassVar = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_int32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class IteratorOptions(ctypes.Structure):
    """struct bpf_iter_attach_opts; ``link_info`` points to a union bpf_iter_link_info."""

    _fields_: ClassVar = [("sz", c_size_t), ("link_info", c_void_p), ("link_info_len", c_uint32)]


class OpenOptions(ctypes.Structure):
    """The beginning of struct bpf_object_open_opts; ``sz`` tells libbpf that the rest is absent."""

    _fields_: ClassVar = [("sz", c_size_t), ("object_name", c_char_p)]


class ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info. The kernel leaves what it does not know yet at zero."""

    _fields_: ClassVar = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
        ("verified_insns", c_uint32),
        ("attach_btf_obj_id", c_uint32),
        ("attach_btf_id", c_uint32),
    ]


#: name: (result, arguments); the functions of libbpf 1.0 that this package uses
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_set_print": (c_void_p, (c_void_p,)),
    "libbpf_num_possible_cpus": (c_int, ()),
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__open_mem": (c_void_p, (c_char_p, c_size_t, POINTER(OpenOptions))),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__btf": (c_void_p, (c_void_p,)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "btf__raw_data": (c_void_p, (c_void_p, POINTER(c_uint32))),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__section_name": (c_char_p, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, c_bool)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_program__attach_iter": (c_void_p, (c_void_p, POINTER(IteratorOptions))),
    "bpf_prog_test_run_opts": (c_int, (c_int, POINTER(TestRunOptions))),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "bpf_enable_stats": (c_int, (c_int,)),
    "bpf_link__fd": (c_int, (c_void_p,)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_iter_create": (c_int, (c_int,)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__is_internal": (c_bool, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__key_size": (c_uint32, (c_void_p,)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__type": (c_int, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "bpf_map__lookup_elem": (c_int, (c_void_p, c_char_p, c_size_t, c_void_p, c_size_t, c_uint64)),
    "bpf_map__update_elem": (c_int, (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_uint64)),
    "bpf_map__delete_elem": (c_int, (c_void_p, c_char_p, c_size_t, c_uint64)),
    "bpf_map__lookup_and_delete_elem": (c_int, (c_void_p, c_char_p, c_size_t, c_void_p, c_size_t, c_uint64)),
    "bpf_map_lookup_batch": (c_int, (c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p)),
}


class _Messages(threading.local):
    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_KEPT)


class Library:
    """The loaded library. Obtain it by :func:`library`."""

    def __init__(self) -> None:
        try:
            self._functions = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            hint = "install libbpf 1.x (Debian and Ubuntu: apt install libbpf1)"
            raise BpfError("load the library libbpf.so.1", errno.ENOENT, [str(error)], hint) from error
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._functions, name)
            function.restype, function.argtypes = result, arguments
        self._libc = ctypes.CDLL(None)
        self._libc.vasprintf.argtypes = (POINTER(c_void_p), c_void_p, c_void_p)
        self._libc.free.argtypes = (c_void_p,)
        self._messages = _Messages()
        # Kept, because libbpf keeps only the address. A va_list travels as a pointer on x86-64 and arm64.
        self._callback = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(self._on_message)
        self._functions.libbpf_set_print(ctypes.cast(self._callback, c_void_p))

    def get(self, function: str, *arguments: Any) -> Any:
        """Call a function that cannot fail."""
        return getattr(self._functions, function)(*arguments)

    def call(self, action: str, function: str, *arguments: Any) -> int:
        """Call a function that returns ``-errno`` on failure: its result, or BpfError."""
        self._messages.lines.clear()
        result = int(getattr(self._functions, function)(*arguments))
        if result < 0:
            raise BpfError(action, -result, self._messages.lines)
        return result

    def obtain(self, action: str, function: str, *arguments: Any) -> int:
        """Call a function that returns NULL and sets errno on failure: the pointer, or BpfError."""
        self._messages.lines.clear()
        pointer = getattr(self._functions, function)(*arguments)
        if not pointer:
            raise BpfError(action, ctypes.get_errno(), self._messages.lines)
        return int(pointer)

    def _on_message(self, level: int, template: int, arguments: int) -> int:
        if level >= _LEVEL_DEBUG:
            return 0
        text = c_void_p()
        # vasprintf finds the length itself: a va_list can be walked only once.
        length = int(self._libc.vasprintf(ctypes.byref(text), template, arguments))
        if length < 0 or text.value is None:
            self._messages.lines.append("(a message of libbpf could not be formatted)")
            return 0
        tail = min(length, _MESSAGE_TAIL)
        said = ctypes.string_at(text.value + length - tail, tail).decode(errors="replace")
        self._libc.free(text)
        self._messages.lines.extend(line.removeprefix("libbpf: ") for line in said.splitlines())
        return length


@cache
def library() -> Library:
    """The library, loaded at first use; BpfError if it is not installed."""
    return Library()


def possible_cpus() -> int:
    """How many CPUs this kernel can ever have: the number of values that a per-CPU map holds for a key."""
    return library().call("count the CPUs", "libbpf_num_possible_cpus")


def cpu_numbers() -> int:
    """How many numbers CPUs can have, from 0 on: more than there can be CPUs where some numbers are left out."""
    count = possible_cpus()  # in any case: it opens a file the first time, for which there may be no descriptor later
    try:
        return highest_cpu(Path("/sys/devices/system/cpu/possible").read_text()) + 1
    except OSError:
        return count


def highest_cpu(ranges: str) -> int:
    """Of a list as the kernel writes it, such as ``0-3,8-11``: in ascending order."""
    return int(ranges.strip().rpartition(",")[2].rpartition("-")[2])
