"""The stack that a BPF program needs with all functions that it calls, as Linux 6.3 adds it up: check_max_stack_depth() of
kernel/bpf/verifier.c. Later kernels add up less, and since 6.13 each function of a tracing program may have all of it."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from dataclasses import dataclass, field

from wirespan.receiver.kernel.libbpf import Program

#: bytes for all of them, and those that each is rounded up to
LIMIT = 512
_GRANULE = 32

_CALL, _LOAD_ADDRESS, _ADD, _MOVE = 0x85, 0x18, 0x07, 0xBF
_PSEUDO_CALL, _PSEUDO_FUNCTION = 1, 4
_FRAME_POINTER = 10
_READS, _WRITES = (1,), (2, 3)  # classes of instructions


class Instruction(ctypes.Structure):
    """struct bpf_insn."""

    _fields_ = (
        ("code", ctypes.c_uint8),
        ("destination", ctypes.c_uint8, 4),
        ("source", ctypes.c_uint8, 4),
        ("offset", ctypes.c_int16),
        ("value", ctypes.c_int32),
    )

    def callee(self, at: int) -> int | None:
        """Where the function begins that this one, which is there, calls or has called."""
        calls = self.code == _CALL and self.source == _PSEUDO_CALL
        return (
            at + self.value + 1 if calls or (self.code == _LOAD_ADDRESS and self.source == _PSEUDO_FUNCTION) else None
        )

    def reach(self, before: Instruction) -> int:
        """How far down in the stack this goes, or could, if it makes an address of what the one before has copied."""
        is_copy = before.code == _MOVE and before.source == _FRAME_POINTER
        if self.code == _ADD and is_copy and before.destination == self.destination:
            return -self.value
        kind = self.code & 7
        touches = (kind in _READS and self.source == _FRAME_POINTER) or (
            kind in _WRITES and self.destination == _FRAME_POINTER
        )
        return -self.offset if touches else 0


@dataclass
class Function:
    """depth: bytes of its own. calls: where what it calls begins."""

    depth: int = 0
    calls: set[int] = field(default_factory=set)


def stack_needed(program: Program) -> int:
    """Bytes, of a program that has been loaded."""
    functions = _functions_of(_instructions(program))

    def needed(at: int) -> int:
        one = functions[at]
        own = -(-max(1, one.depth) // _GRANULE) * _GRANULE
        return own + max((needed(callee) for callee in one.calls), default=0)

    return needed(0)


def _instructions(program: Program) -> list[Instruction]:
    library = ctypes.CDLL("libbpf.so.1")
    library.bpf_program__insns.restype = ctypes.POINTER(Instruction)
    library.bpf_program__insn_cnt.restype = ctypes.c_size_t
    pointer = ctypes.c_void_p(program.pointer)
    return library.bpf_program__insns(pointer)[: library.bpf_program__insn_cnt(pointer)]


def _functions_of(instructions: list[Instruction]) -> dict[int, Function]:
    """By where they begin."""
    callees = {at: callee for at, one in enumerate(instructions) if (callee := one.callee(at)) is not None}
    begins = sorted({0, *callees.values()})
    functions = {begin: Function() for begin in begins}
    for at, one in enumerate(instructions):
        function = functions[begins[bisect_right(begins, at) - 1]]
        function.depth = max(function.depth, one.reach(instructions[at - 1]))
        if at in callees:
            function.calls.add(callees[at])
    return functions
