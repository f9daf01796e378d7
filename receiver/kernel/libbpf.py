"""A BPF object and what is in it: programs, maps, global variables, and links once attached.

An object is opened (the file is parsed), set up (constants, map sizes, programs left out), loaded, and closed. A link
keeps its program attached until it is closed itself. ``close()`` may be called again; all else on something closed,
and whatever libbpf or the kernel refuses, is a :class:`~.library.BpfError`. Not thread-safe.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator as Iteration
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from .btf import Btf, Variable
from .library import (
    BpfError,
    IteratorOptions,
    OpenOptions,
    Pointer,
    ProgramInfo,
    TestRunOptions,
    library,
    possible_cpus,
)
from .maps import Map

__all__ = [
    "BpfError",
    "BpfObject",
    "Handle",
    "Iterator",
    "Link",
    "Map",
    "Program",
    "Statistics",
    "possible_cpus",
    "run_statistics",
]

_BPF_STATS_RUN_TIME = 0
_READ_SIZE = 65_536


class Handle:
    """Something that ``close()`` frees."""

    def close(self) -> None:
        """Free it; a second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Link(Pointer, Handle):
    """An attached program: closing it detaches."""

    def __init__(self, pointer: int, program: str) -> None:
        super().__init__(pointer, f"the link of program {program}")
        self._program = program

    def close(self) -> None:
        pointer = self.forget()
        if pointer is not None:
            library().call(f"detach program {self._program}", "bpf_link__destroy", pointer)


class Iterator(Link):
    """An attached iterator program; nothing runs until it is asked."""

    def run(self) -> bytes:
        """Run the program once on every object; what it wrote (``bpf_seq_write``, ``bpf_seq_printf``)."""
        link = library().get("bpf_link__fd", self.pointer)
        descriptor = library().call(f"run iterator {self._program}", "bpf_iter_create", link)
        written = bytearray()
        try:
            while chunk := _read_iterator(descriptor):
                written += chunk
        except OSError as error:
            raise BpfError(f"run iterator {self._program}", error.errno or errno.EIO) from error
        finally:
            os.close(descriptor)
        return bytes(written)


def _read_iterator(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _READ_SIZE)
        except BlockingIOError:
            # bpf_seq_read() gives up the CPU after a million objects without output; the position is kept.
            continue


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the kernel knows of a loaded program.

    verified_instructions: how many the verifier looked at, over all paths (0 before Linux 5.16). translated_size,
    machine_size: bytes of BPF after verification, and of machine code. runs, run_time_ns: counted only while
    :func:`run_statistics` is in force. recursion_misses: runs left out because the program was running on that CPU.
    """

    verified_instructions: int
    translated_size: int
    machine_size: int
    runs: int
    run_time_ns: int
    recursion_misses: int


class Program(Pointer):
    """A program of an object, usable until that is closed. section: says its type and what it attaches to."""

    def __init__(self, pointer: int) -> None:
        self.name: str = library().get("bpf_program__name", pointer).decode()
        super().__init__(pointer, f"program {self.name}")
        self.section: str = library().get("bpf_program__section_name", pointer).decode()

    @property
    def fd(self) -> int:
        """The descriptor of the loaded program; BpfError if it is not loaded."""
        return library().call(f"use program {self.name}, which is not loaded", "bpf_program__fd", self.pointer)

    def set_autoload(self, enabled: bool) -> None:
        """Whether the load of its object includes it; only before the load."""
        action = f"{'include' if enabled else 'leave out'} program {self.name}"
        library().call(action, "bpf_program__set_autoload", self.pointer, enabled)

    def attach(self) -> Link:
        """Attach it to what its section names."""
        return Link(library().obtain(f"attach program {self.name}", "bpf_program__attach", self.pointer), self.name)

    def attach_iterator(self, over: Map | None = None) -> Iterator:
        """Attach an iterator program. over: the map whose elements it visits, if it visits those of a map."""
        options = IteratorOptions(ctypes.sizeof(IteratorOptions))
        if over is not None:
            # union bpf_iter_link_info: here, of its members only the descriptor of the map
            info = ctypes.c_uint32(over.fd)
            options.link_info, options.link_info_len = ctypes.addressof(info), ctypes.sizeof(info)
        action = f"attach iterator {self.name}"
        pointer = library().obtain(action, "bpf_program__attach_iter", self.pointer, ctypes.byref(options))
        return Iterator(pointer, self.name)

    def run(self, context: bytes = b"") -> int:
        """Run a ``SEC("syscall")`` program once, in this thread, on a copy of ``context``; what it returned."""
        buffer = ctypes.create_string_buffer(context, len(context))
        options = TestRunOptions(ctypes.sizeof(TestRunOptions))
        if context:
            options.ctx_in, options.ctx_size_in = ctypes.addressof(buffer), len(context)
        library().call(f"run program {self.name}", "bpf_prog_test_run_opts", self.fd, ctypes.byref(options))
        return int(options.retval)

    def statistics(self) -> Statistics:
        """Sizes and run counts of the loaded program."""
        info = ProgramInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        arguments = (self.fd, ctypes.byref(info), ctypes.byref(size))
        library().call(f"ask about program {self.name}", "bpf_obj_get_info_by_fd", *arguments)
        return Statistics(
            verified_instructions=info.verified_insns,
            translated_size=info.xlated_prog_len,
            machine_size=info.jited_prog_len,
            runs=info.run_cnt,
            run_time_ns=info.run_time_ns,
            recursion_misses=info.recursion_misses,
        )


@contextmanager
def run_statistics() -> Iteration[None]:
    """Let the kernel count and time every run of every BPF program on this machine meanwhile; each run costs more."""
    descriptor = library().call("enable run statistics", "bpf_enable_stats", _BPF_STATS_RUN_TIME)
    try:
        yield
    finally:
        os.close(descriptor)


class BpfObject(Pointer, Handle):
    """An opened object file; ``programs`` and ``maps`` by name, the maps of global data left out."""

    in_kernel: ClassVar[int] = 0  # how many of this process are loaded

    def __init__(self, pointer: int, name: str) -> None:
        super().__init__(pointer, name)
        self.name = name
        self._loaded = False
        self.programs = {p.name: p for p in map(Program, self._each("bpf_object__next_program"))}
        maps = (m for m in self._each("bpf_object__next_map") if not library().get("bpf_map__is_internal", m))
        self.maps = {m.name: m for m in map(Map, maps)}

    @classmethod
    def open(cls, path: Path) -> BpfObject:
        """Read an object file. Nothing goes to the kernel yet."""
        return cls(library().obtain(f"open {path}", "bpf_object__open_file", os.fsencode(path), None), path.name)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> BpfObject:
        """The same of a file's contents; ``name`` stands in messages."""
        options = OpenOptions(ctypes.sizeof(OpenOptions), name.encode())
        arguments = (data, len(data), ctypes.byref(options))
        return cls(library().obtain(f"open {name}", "bpf_object__open_mem", *arguments), name)

    def _each(self, successor: str) -> Iteration[int]:
        item = library().get(successor, self.pointer, None)
        while item:
            yield item
            item = library().get(successor, self.pointer, item)

    @cached_property
    def btf(self) -> Btf:
        """The types of the object's C source; BtfError if they are damaged."""
        types = library().obtain(f"find BTF in {self.name}", "bpf_object__btf", self.pointer)
        size = ctypes.c_uint32()
        data = library().obtain(f"read BTF of {self.name}", "btf__raw_data", types, ctypes.byref(size))
        return Btf(ctypes.string_at(data, size.value))

    @cached_property
    def _variables(self) -> dict[str, Variable]:
        return self.btf.variables()

    def load(self) -> None:
        """Create the maps and load the programs. After a failure the object can only be closed."""
        library().call(f"load {self.name}", "bpf_object__load", self.pointer)
        self._loaded = True
        BpfObject.in_kernel += 1

    def variable(self, name: str) -> npt.NDArray[Any]:
        """A copy of the present value of a global variable; a scalar has shape ()."""
        return self._view(name, mmap.PROT_READ).copy()

    def set_variable(self, name: str, value: npt.ArrayLike) -> None:
        """Set a global variable, a ``const`` one only before the load. OverflowError if the value does not fit."""
        self._view(name, mmap.PROT_READ | mmap.PROT_WRITE)[...] = value

    def live(self, name: str) -> npt.NDArray[Any]:
        """A global variable where it lies, after the load: mapped as long as the array is."""
        if not self._loaded:
            raise BpfError(
                f"map variable {name} of {self.name}", errno.EINVAL, hint="it is where it will be after the load"
            )
        return self._view(name, mmap.PROT_READ | mmap.PROT_WRITE)

    def _view(self, name: str, access: int) -> npt.NDArray[Any]:
        """The variable where it lies. Not to be kept: before the load, its memory is libbpf's."""
        variable = self._variables.get(name)
        if variable is None:
            raise BpfError(f"find variable {name} in {self.name}", errno.ENOENT)
        section = variable.section
        action = f"find section {section} of {self.name}"
        data = library().obtain(action, "bpf_object__find_map_by_name", self.pointer, section.encode())
        if not self._loaded:
            memory = _initial_value(data)
        elif access & mmap.PROT_WRITE and section.startswith(".rodata"):
            raise BpfError(f"set constant {name}", errno.EPERM, hint="constants are set before the load")
        else:
            memory = _live_value(data, f"map section {section} of {self.name}", access)
        return np.ndarray(variable.dtype.shape, variable.dtype.base, memory, variable.offset)

    def close(self) -> None:
        """Unload what no link and no ring keeps in the kernel."""
        pointer = self.forget()
        if pointer is not None:
            for part in (*self.programs.values(), *self.maps.values()):
                part.forget()
            library().get("bpf_object__close", pointer)
            BpfObject.in_kernel -= self._loaded


def _initial_value(data: int) -> Any:
    """The memory from which libbpf will fill a section's map."""
    size = ctypes.c_size_t()
    address = library().obtain("find initial values", "bpf_map__initial_value", data, ctypes.byref(size))
    return (ctypes.c_char * size.value).from_address(address)


def _live_value(data: int, action: str, access: int) -> mmap.mmap:
    """A section's map, mapped; unmapped with the last array on it. libbpf before 1.6 maps it only for skeletons."""
    size = int(library().get("bpf_map__value_size", data))
    try:
        return mmap.mmap(library().get("bpf_map__fd", data), size, mmap.MAP_SHARED, access)
    except OSError as error:
        raise BpfError(action, error.errno or errno.EIO) from error
