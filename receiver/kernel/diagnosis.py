"""What libbpf's messages say: which program failed, and why, in one line.

A refused program comes with the verifier's log, thousands of lines of which the last ones are the verdict::

    prog 'x': BPF program load failed: Permission denied
    prog 'x': -- BEGIN PROG LOAD LOG --
    ; return *(int *)0; @ x.c:3
    1: (61) r0 = *(u32 *)(r1 +0)
    R1 invalid mem access 'scalar'
    processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
    -- END PROG LOAD LOG --
    prog 'x': failed to load: -13
    failed to load object 'x'

All others come with a line or two that begin with the program's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PROGRAM = re.compile(r"prog '([^']+)': (.*)")
_LOG_BEGIN = "-- BEGIN PROG LOAD LOG --"
_LOG_END = "-- END PROG LOAD LOG --"
_STATISTICS = ("processed ", "verification time ", "stack depth ", "insns processed ")
#: what libbpf adds to every failure, and what says less than the verdict
_FRAME = re.compile(
    r"failed to (load|prepare load attributes): -\d+|failed to load object .*|-- (BEGIN|END) PROG LOAD LOG --"
)
#: what libbpf guesses of a missing privilege; since Linux 5.11 that limit has nothing to do with BPF
_GUESS = re.compile(
    r"Failed to bump RLIMIT_MEMLOCK .*|permission error while running as root; try raising 'ulimit -l'.*"
    r"| Make sure your kernel supports BPF .*"
)


def failed_program(messages: Sequence[str]) -> str | None:
    """The program that made a load fail; None if it was none in particular (a map, BTF, privileges)."""
    for line in reversed(messages):
        match = _PROGRAM.match(line)
        if match:
            return match[1]
    return None


def reason(messages: Sequence[str]) -> str:
    """Why, in the words of the verifier, else of libbpf; empty if neither said anything."""
    log, other = _split(messages)
    verdict = [line for line in log if not line.startswith(_STATISTICS)]
    if verdict:
        source = next((line for line in reversed(verdict[:-1]) if line.startswith(";")), "")
        return verdict[-1] + (f" (at `{source.lstrip('; ')}`)" if source else "")
    said = [_GUESS.sub("", match[2] if (match := _PROGRAM.match(line)) else line) for line in other]
    return "; ".join([line for line in said if line and not _FRAME.fullmatch(line)][-2:])


def _split(messages: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines of the last verifier log, and the others. A long log has lost its beginning, with its marker."""
    lines = list(messages)
    if _LOG_END not in lines:
        return [], lines
    end = len(lines) - 1 - lines[::-1].index(_LOG_END)
    begin = next((i for i in range(end - 1, -1, -1) if lines[i].endswith(_LOG_BEGIN)), -1)
    return lines[begin + 1 : end], lines[: begin + 1] + lines[end + 1 :]
