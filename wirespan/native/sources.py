"""Which sources something was compiled from: both objects carry the beginning of the SHA-256 of theirs, which
``scripts/build-bpf`` and ``scripts/build-native`` take in the same order. Reading them anew takes some two milliseconds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(str(files("wirespan")))


def of_programs() -> int | None:
    """The sources of the BPF programs; None where there are none."""
    return digest(_in("bpf"))


def of_library() -> int | None:
    """The sources of the shared object of this folder; None where there are none."""
    sources = _in("native")
    shared = [path for path in _in("bpf") if path.suffix == ".h"]  # what of them is compiled into it changes
    return digest([*sources, *shared] if sources else [])


def digest(sources: Iterable[Path]) -> int | None:
    """The first 64 bits of the SHA-256 of all of them, one after the other."""
    contents = b"".join(path.read_bytes() for path in sources)
    return int.from_bytes(hashlib.sha256(contents).digest()[:8], "big") if contents else None


def _in(folder: str) -> list[Path]:
    names = sorted(os.listdir(_PACKAGE / folder))
    return [_PACKAGE / folder / name for suffix in (".c", ".h") for name in names if name.endswith(suffix)]
