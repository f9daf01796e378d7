"""Compiles the small BPF programs of tests, as scripts/build-bpf compiles the real one."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from .availability import need_command

_CLANGS = (*(f"clang-{version}" for version in range(19, 13, -1)), "clang")


@cache
def clang() -> str:
    """The newest clang that is installed, as scripts/build-bpf chooses it."""
    return next(filter(None, map(shutil.which, _CLANGS)), None) or need_command("clang")


@cache
def clang_version() -> int:
    """Its major version."""
    said = subprocess.run([clang(), "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"version (\d+)", said)
    assert found, said
    return int(found[1])


def compile_bpf(source: Path, folder: Path) -> Path:
    """The object of a C source, in this folder. Raises CalledProcessError with clang's words on stderr."""
    target = folder / source.with_suffix(".o").name
    # see scripts/build-bpf: Debian's <asm/types.h>
    multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
    flags = ["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", "-idirafter", multiarch]
    subprocess.run([clang(), *flags, "-c", source, "-o", target], check=True)
    return target
