"""What the verifier makes of each program of an object: ``python -m wirespan.receiver.kernel.report OBJECT``.

Used by the build. Programs are loaded one at a time, so that one which this kernel refuses hides no other, and
not attached. Where nothing can be loaded, for want of privilege, libbpf or BPF, it says so and succeeds: a build needs
none of them.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from .diagnosis import failed_program, reason
from .libbpf import BpfObject, Statistics
from .library import BpfError, library

_CANNOT_LOAD = (errno.EPERM, errno.ENOSYS)
_ROW = "{:<28}{:>16}{:>14}{:>14}"


def load_alone(path: Path, name: str) -> Statistics:
    """Load one program of an object, and unload it again. Raises BpfError."""
    with BpfObject.open(path) as bpf_object:
        for other in bpf_object.programs.keys() - {name}:
            bpf_object.programs[other].set_autoload(False)
        bpf_object.load()
        return bpf_object.programs[name].statistics()


def table(path: Path, names: list[str]) -> list[str]:
    """A row a program; one that is refused has the kernel's reason in it. BpfError where nothing can be loaded."""
    rows = [_ROW.format("program", "verified insns", "xlated bytes", "jited bytes")]
    for name in names:
        try:
            counted = load_alone(path, name)
        except BpfError as error:
            if error.errno in _CANNOT_LOAD and failed_program(error.messages) != name:
                raise
            rows.append(f"{name:<28}  refused: {error.name}, {reason(error.messages)}")
        else:
            sizes = (counted.verified_instructions, counted.translated_size, counted.machine_size)
            rows.append(_ROW.format(name, *(f"{size:,}" for size in sizes)))
    return rows


def main(arguments: list[str]) -> int:
    """Exit status: 0, also where nothing can be loaded; 1 when the object cannot be read; 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: python -m wirespan.receiver.kernel.report OBJECT", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        library()
    except BpfError as error:
        print(f"no verifier report: {error}")
        return 0
    try:
        with BpfObject.open(path) as bpf_object:
            names = list(bpf_object.programs)
    except BpfError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        print("\n".join(table(path, names)))
    except BpfError as error:
        print(f"no verifier report: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
