"""Which programs must run: load them all, do without the optional ones that this kernel refuses, and say so.

libbpf loads an object as a whole: one program that the kernel refuses fails all. So the refused one is found from
libbpf's words, left out, and the object is opened and loaded anew. Each round leaves out one program, so there are at
most as many rounds as optional programs. An essential program that cannot be had raises StartError; so does whatever
no program is to blame for. Whichever way this module is left by an exception, nothing stays in the kernel.

Loading and attaching are two steps, because maps are filled and SEC("syscall") programs run in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy.typing as npt

from ...pipeline.component import StartError
from .btf import Btf, BtfError
from .diagnosis import failed_program
from .libbpf import BpfObject, Handle, Iterator, Link, Map
from .library import BpfError

#: max_entries, or what tells it of an opened map
MapSize: TypeAlias = int | Callable[[Map], int]

_HINT = "`wirespan check` says what this machine offers"
_REBUILD = "it was not compiled from the sources of this version"


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """What is known of a program before the kernel is asked.

    essential: without it there is nothing to watch; its failure is a StartError.
    lost_without: what the user misses, to complete the sentence "without it …".
    walks: the map whose elements an iterator visits.
    """

    name: str
    essential: bool
    lost_without: str
    walks: str | None = None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An optional program that does not run. reason: the kernel's and libbpf's, in a line."""

    program: str
    reason: str
    lost_without: str

    def __str__(self) -> str:
        return f"BPF program {self.program} is not available: {self.reason}; without it {self.lost_without}"


@dataclass
class Attached(Handle):
    """A loaded object and its links; closing it takes everything out of the kernel.

    reports: programs that could not be loaded; after ``attach`` those too that could not be attached.
    """

    object: BpfObject
    specs: dict[str, ProgramSpec]
    reports: list[Unavailable]
    links: dict[str, Link] = field(default_factory=dict)

    @property
    def btf(self) -> Btf:
        return self.object.btf

    @property
    def maps(self) -> dict[str, Map]:
        return self.object.maps

    def available(self, program: str) -> bool:
        """Whether a program is loaded and, once ``attach`` ran, attached."""
        return all(report.program != program for report in self.reports)

    def attach(self, *names: str) -> None:
        """Attach these, or all that are not yet, in the order of the table. StartError for an essential one: then all is
        closed."""
        try:
            for spec in self.specs.values():
                if (names and spec.name not in names) or spec.name in self.links or not self.available(spec.name):
                    continue
                if self.object.programs[spec.name].section != "syscall":
                    self._attach(spec)
        except BaseException:
            self.close()
            raise

    def run(self, program: str, context: bytes = b"") -> int:
        """Run a SEC("syscall") program once; returns its result. Raises BpfError."""
        return self.object.programs[program].run(context)

    def iterate(self, program: str) -> bytes:
        """Run an attached iterator over all its objects; returns what it wrote. Raises BpfError."""
        link = self.links[program]
        if not isinstance(link, Iterator):
            raise TypeError(f"program {program} is no iterator")
        return link.run()

    def detach(self, *keep: str) -> None:
        """Detach everything but these programs; what is loaded stays. Idempotent."""
        for name, link in self.links.items():
            if name not in keep:
                link.close()

    def close(self) -> None:
        """Detach and unload. Idempotent."""
        for link in self.links.values():
            link.close()
        self.object.close()

    def _attach(self, spec: ProgramSpec) -> None:
        program = self.object.programs[spec.name]
        try:
            if program.section.startswith("iter/"):
                self.links[spec.name] = program.attach_iterator(self.maps[spec.walks] if spec.walks else None)
            else:
                self.links[spec.name] = program.attach()
        except BpfError as error:
            self.reports.append(_unavailable(spec, error))


def load(
    path: Path,
    specs: Iterable[ProgramSpec],
    constants: Mapping[str, npt.ArrayLike] | None = None,
    map_sizes: Mapping[str, MapSize] | None = None,
    sources: int | None = None,
) -> Attached:
    """Load the programs of an object that ``specs`` names; others in it are left out.

    constants: global variables by name, set before the kernel sees them. map_sizes: max_entries by map, or how to
    tell it from what an entry takes; for ring buffers in bytes (a power of two, at least a page). sources: what it has to be
    compiled from; None: not known. Raises StartError.
    """
    by_name = {spec.name: spec for spec in specs}
    reports: list[Unavailable] = []
    while True:
        wanted = by_name.keys() - {report.program for report in reports}
        try:
            opened = _load(path, wanted, constants or {}, map_sizes or {}, sources)
            return Attached(opened, by_name, reports)
        except (BpfError, BtfError) as error:
            blamed = failed_program(error.messages) if isinstance(error, BpfError) else None
            if not isinstance(error, BpfError) or blamed not in wanted:
                raise StartError(f"cannot load the BPF programs: {error}. {_HINT}.") from error
            reports.append(_unavailable(by_name[blamed], error))


def _load(
    path: Path,
    wanted: set[str],
    constants: Mapping[str, npt.ArrayLike],
    map_sizes: Mapping[str, MapSize],
    sources: int | None,
) -> BpfObject:
    bpf_object = BpfObject.open(path)
    try:
        if sources is not None and _compiled_from(bpf_object) != sources:
            raise StartError(f"{path} was compiled from other sources; run make setup")
        missing = (wanted - bpf_object.programs.keys()) | (map_sizes.keys() - bpf_object.maps.keys())
        if missing:
            raise StartError(f"{path} has no {', '.join(sorted(missing))}: {_REBUILD}")
        for name in bpf_object.programs.keys() - wanted:
            bpf_object.programs[name].set_autoload(False)
        for name, value in constants.items():
            bpf_object.set_variable(name, value)
        for name, entries in map_sizes.items():
            bpf_map = bpf_object.maps[name]
            bpf_map.set_max_entries(entries if isinstance(entries, int) else entries(bpf_map))
        bpf_object.load()
    except BaseException:
        bpf_object.close()
        raise
    return bpf_object


def _compiled_from(bpf_object: BpfObject) -> int:
    try:
        return int(bpf_object.variable("sources"))
    except BpfError:
        return 0


def _unavailable(spec: ProgramSpec, error: BpfError) -> Unavailable:
    """The report of an optional program; raises StartError for an essential one."""
    report = Unavailable(spec.name, str(error), spec.lost_without)
    if spec.essential:
        raise StartError(f"{report}. {_HINT}.") from error
    return report
