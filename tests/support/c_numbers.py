"""Numbers that C sources give to names: compiled, as the programs have them."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from .compiling import clang

ROOT = Path(__file__).parents[2]


def numbers(source: str, *expressions: str) -> list[int]:
    """What constant expressions are after this source of bpf/ or wirespan/native/."""
    values = ", ".join(f"(long long)({expression})" for expression in expressions)
    text = f'#include "{source}"\nlong long numbers[] = {{{values}}};\n'
    with TemporaryDirectory() as folder:
        (Path(folder) / "numbers.c").write_text(text)
        target = Path(folder) / "numbers.so"
        flags = ["-w", f"-I{ROOT}/wirespan/native", f"-I{ROOT}/bpf", "-shared", "-fPIC"]
        subprocess.run([clang(), *flags, f"{folder}/numbers.c", "-o", target, "-lm"], check=True)
        return list((ctypes.c_longlong * len(expressions)).in_dll(ctypes.CDLL(str(target)), "numbers"))


def enum(source: str, name: str, prefix: str) -> dict[str, int]:
    """The values of an enum, by their names without the prefix that all have."""
    folder = next(one for one in (ROOT / "bpf", ROOT / "wirespan" / "native") if (one / source).exists())
    found = re.search(rf"^enum {name} \{{\n(.*?)^\}};", (folder / source).read_text(), re.MULTILINE | re.DOTALL)
    assert found, name
    names = re.findall(rf"^\t({prefix}\w+)", found[1], re.MULTILINE)
    values = numbers(source, *names)
    return {one.removeprefix(prefix): value for one, value in zip(names, values, strict=True)}
