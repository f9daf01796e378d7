"""What /proc says of one process, read so that it cannot be of two.

A process id is reused, so everything is read relative to one open directory of /proc, which stays bound to the process
it was opened for. A process may call exec meanwhile: its stack's start, random at every exec, is compared before and
after. Command lines and environments hold secrets; they live as long as the look-up and are never kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: bytes read of a file; what lies beyond is not seen. A single variable or argument may have 128 KiB.
READ_LIMIT: Final = 1 << 18

_PF_KTHREAD = 0x00200000
_KTHREADD = 2
_ATTEMPTS = 3


class ProcessGoneError(Exception):
    """There is no such process, it has ended, or it calls exec again and again."""


@dataclass(frozen=True, slots=True)
class ProcessImage:
    """A running program.

    start_ticks: clock ticks from boot to the start of the process.
    comm: its name as the kernel keeps it, at most 15 bytes, which it may have changed itself.
    executable: path, None for a kernel thread or if it may not be read.
    environment: entries that each end with a zero byte, empty if it may not be read.
    cgroup: lines of /proc/PID/cgroup.
    denied: whether something may not be read.
    """

    start_ticks: int
    comm: bytes
    kernel_thread: bool
    executable: str | None
    arguments: tuple[str, ...]
    environment: bytes
    cgroup: str
    denied: bool


@dataclass(frozen=True, slots=True)
class _Status:
    """Of /proc/PID/stat, see proc_pid_stat(5). stack: its start, 0 if it may not be read."""

    comm: bytes
    zombie: bool
    kernel_thread: bool
    start_ticks: int
    stack: int


def read_image(proc: Path, tgid: int) -> ProcessImage:
    """The image that process ``tgid`` runs now. Raises ProcessGoneError, and OSError when /proc cannot be read."""
    try:
        directory = os.open(proc / str(tgid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _read_unchanged(directory)
        finally:
            os.close(directory)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGoneError from None


def shows_all_processes(proc: Path) -> bool:
    """Whether it is of the first pid namespace, whose ids the kernel's records hold: there, 2 is a kernel thread.

    Raises OSError when /proc cannot be read.
    """
    try:
        return _parse_status((proc / str(_KTHREADD) / "stat").read_bytes()).kernel_thread
    except (FileNotFoundError, ProcessLookupError):
        return False


def _read_unchanged(directory: int) -> ProcessImage:
    for _ in range(_ATTEMPTS):
        before = _parse_status(_read(directory, "stat"))
        image = _read_image(directory, before)
        after = _parse_status(_read(directory, "stat"))
        if after.zombie:
            raise ProcessGoneError
        if after.stack == before.stack:
            return image
    raise ProcessGoneError


def _read_image(directory: int, status: _Status) -> ProcessImage:
    executable, environment, denied = None, b"", False
    if not status.kernel_thread:
        try:
            executable = _text(os.readlink(b"exe", dir_fd=directory))
            environment = _read(directory, "environ")
        except PermissionError:
            denied = True
    return ProcessImage(
        start_ticks=status.start_ticks,
        comm=status.comm,
        kernel_thread=status.kernel_thread,
        # One that was replaced by an upgrade is "… (deleted)".
        executable=executable and executable.removesuffix(" (deleted)"),
        arguments=tuple(_text(_read(directory, "cmdline").rstrip(b"\0")).split("\0")),
        environment=environment,
        cgroup=_text(_read(directory, "cgroup")),
        denied=denied,
    )


def _parse_status(stat: bytes) -> _Status:
    # The name may hold blanks and parentheses; the last parenthesis ends it.
    head, _, tail = stat.rpartition(b")")
    fields = tail.split()  # from field 3 on
    return _Status(
        comm=head.partition(b"(")[2],
        zombie=fields[0] in (b"Z", b"X"),
        kernel_thread=bool(int(fields[6]) & _PF_KTHREAD),
        start_ticks=int(fields[19]),
        stack=int(fields[25]),
    )


def _read(directory: int, name: str) -> bytes:
    """The first READ_LIMIT bytes. /proc may answer with fewer than asked for although there are more."""
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        content = bytearray()
        while len(content) < READ_LIMIT and (piece := os.read(file, READ_LIMIT - len(content))):
            content += piece
        return bytes(content)
    finally:
        os.close(file)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
