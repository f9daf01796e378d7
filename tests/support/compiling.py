"""Compiles the small BPF programs of tests, as scripts/build-bpf compiles the real one."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

from .availability import need_command

_CLANGS = ("clang-19", "clang-16", "clang")


def _clang() -> Path | str:
    installed = filter(Path.exists, map(Path, (f"/usr/bin/{name}" for name in _CLANGS)))
    return next(installed, None) or need_command("clang")


def clang_major() -> int:
    """The version of the clang that compiles."""
    said = subprocess.run([_clang(), "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", said)
    assert found, said
    return int(found[1])


def compile_bpf(source: Path, folder: Path) -> Path:
    """The object of a C source, in this folder. Raises CalledProcessError with clang's words on stderr."""
    target = folder / source.with_suffix(".o").name
    # see scripts/build-bpf: Debian's <asm/types.h>
    multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
    flags = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-idirafter", multiarch]
    subprocess.run([_clang(), *flags, "-c", source, "-o", target], check=True)
    return target
