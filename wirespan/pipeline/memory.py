"""The memory that this process takes, and that it may take."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
#: of control groups without a limit v1 has a number beyond any machine, v2 a word
_NO_LIMIT: Final = 1 << 60


def resident_bytes() -> int:
    """Resident memory, as /proc/self/statm has it."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE_SIZE


def available_bytes(root: Path) -> int:
    """The least limit of the control groups that this process is in, v1 or v2, else the memory of the machine. root: above
    ``proc`` and ``sys``."""
    found = re.search(r"^MemTotal: +(\d+) kB", (root / "proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    machine = int(found[1]) * 1024 if found else _NO_LIMIT
    return min(machine, *_limits(root), _NO_LIMIT)


def _limits(root: Path) -> Iterator[int]:
    for file in _limit_files(root):
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            yield int(text)


def _limit_files(root: Path) -> Iterator[Path]:
    """Of each group, and of those above it; in a container with a namespace of its own the path is of the host's."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup" if number == "0" else "sys/fs/cgroup/memory")
        name = "memory.max" if number == "0" else "memory.limit_in_bytes"
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield folder / name
