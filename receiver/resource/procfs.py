"""The program image of a process, read from /proc with bounds.

All reads go through one descriptor of the process' folder. It stays bound to that process: once the process is gone,
reads fail, even if its number is in use again. The start of the stack, random at every exec, is compared before and
after, so that what is read is never of two images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

#: bytes; a longer environment or command line is cut behind its last whole entry
ENVIRONMENT_LIMIT: Final = 1 << 18
COMMAND_LINE_LIMIT: Final = 1 << 17
_LIMIT = 1 << 14

_PF_KTHREAD = 0x0020_0000  # include/linux/sched.h
_KTHREADD = 2
_DELETED = " (deleted)"


class ImageGoneError(Exception):
    """reason: ``gone`` if there is no such process or only its exit status is left; ``replaced`` by exec."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProcessImage:
    """A process and the program it runs.

    parent: process id of the parent now.
    start_ticks: when it started, in clock ticks since boot.
    executable: path; None for a kernel thread, or if it may not be read.
    environment: as at exec, entries end with a zero byte; what the program changed later does not show.
    cgroup: one line a hierarchy, proc_pid_cgroup(5).
    denied: executable or environment may not be read.
    """

    comm: bytes
    parent: int
    start_ticks: int
    kernel_thread: bool
    executable: str | None
    arguments: tuple[str, ...]
    environment: bytes
    cgroup: str
    denied: bool


class _Stat(NamedTuple):
    """Of /proc/PID/stat. start_stack: 0 if it may not be read, and in kernel threads."""

    comm: bytes
    parent: int
    flags: int
    start_ticks: int
    start_stack: int


def read_image(proc: Path, pid: int) -> ProcessImage:
    """The image that process ``pid`` runs now. ImageGoneError; other OSErrors as they come."""
    try:
        folder = os.open(proc / str(pid), os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        raise ImageGoneError("gone") from None
    try:
        return _read_image(folder)
    except (FileNotFoundError, ProcessLookupError):
        raise ImageGoneError("gone") from None
    finally:
        os.close(folder)


def shows_all_processes(proc: Path) -> bool:
    """Whether this /proc belongs to the pid namespace in which the kernel numbers processes: only there is process 2
    the parent of all kernel threads."""
    try:
        return read_image(proc, _KTHREADD).kernel_thread
    except (ImageGoneError, PermissionError):
        return False


def _read_image(folder: int) -> ProcessImage:
    before = _read_stat(folder)
    denied = False
    executable, environment = None, b""
    try:
        executable = _executable(folder)
        environment = _read_entries(folder, "environ", ENVIRONMENT_LIMIT) if executable else b""
    except PermissionError:
        denied = True
    command_line = _read_entries(folder, "cmdline", COMMAND_LINE_LIMIT)
    cgroup = _read(folder, "cgroup", _LIMIT).decode(errors="replace")
    stat = _read_stat(folder)
    in_exec = executable is not None and not command_line  # it gets its arguments, and environment, near exec's end
    if in_exec or stat.start_stack != before.start_stack:
        raise ImageGoneError("replaced")
    kernel_thread = bool(stat.flags & _PF_KTHREAD)
    if executable is None and not kernel_thread and not denied:
        raise ImageGoneError("gone")
    return ProcessImage(
        comm=stat.comm,
        parent=stat.parent,
        start_ticks=stat.start_ticks,
        kernel_thread=kernel_thread,
        executable=executable,
        arguments=tuple(command_line.decode(errors="replace").rstrip("\0").split("\0")),
        environment=environment,
        cgroup=cgroup,
        denied=denied,
    )


def _read_stat(folder: int) -> _Stat:
    """The comm, between the outermost parentheses, may hold any byte."""
    before, _, after = _read(folder, "stat", _LIMIT).rpartition(b") ")
    fields = after.split()  # the first is field 3 of proc_pid_stat(5)
    parent, flags, start_ticks, start_stack = (int(fields[number - 3]) for number in (4, 9, 22, 28))
    return _Stat(before.partition(b" (")[2], parent, flags, start_ticks, start_stack)


def _executable(folder: int) -> str | None:
    """None where there is none: in a kernel thread and in a zombie."""
    try:
        path = os.fsencode(os.readlink("exe", dir_fd=folder)).decode(errors="replace")
    except FileNotFoundError:
        return None
    return path.removesuffix(_DELETED)  # replaced by an upgrade while it runs


def _read(folder: int, name: str, limit: int) -> bytes:
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read(limit)


def _read_entries(folder: int, name: str, limit: int) -> bytes:
    data = _read(folder, name, limit)
    return data if len(data) < limit else data[: data.rfind(b"\0") + 1]
