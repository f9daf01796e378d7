"""Kernel time of an exchange at one side, by the kernel's own statistics: metrics on, no spans.

The sum over all hooks of the runs that an exchange takes at its client or its server, less that of programs that do nothing at
the same hooks: the kernel times a run together with what it takes to time it. The A/A noise is the difference between
two turns of the empty ones.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figures import Figure, Plan, Target
from bench.surroundings import cores, output
from support.availability import need_command
from support.compiling import compile_bpf
from wirespan.pipeline.counters import Counters
from wirespan.receiver.ebpf import EbpfConfig, kernel_settings
from wirespan.receiver.kernel.libbpf import BpfObject, Program, run_statistics
from wirespan.receiver.kernel.session import KernelSession

_SIDES = 2
_WATCHED = {"spans": {"probability": 0.0}}


def measure(plan: Plan) -> list[Figure]:
    pingpong = plan.folder / "pingpong"
    subprocess.run([need_command("cc"), "-O2", "-o", pingpong, Path(__file__).with_name("pingpong.c")], check=True)
    empty = compile_bpf(Path(__file__).with_name("empty.bpf.c"), plan.folder)
    use, exchanges = cores(), 20_000 if plan.quick else 60_000
    (core,) = use.load

    def time_of(programs: Mapping[str, Program]) -> Mapping[str, float]:
        """By program, ns an exchange and side."""
        with run_statistics():
            before = _run_times(programs)
            output([pingpong, str(exchanges), str(core)], use.load)
            after = _run_times(programs)
        return {name: (after[name] - before[name]) / exchanges / _SIDES for name in programs}

    totals, noise, times = list[float](), list[float](), dict[str, float]()
    for number in range(plan.rounds):
        with attached(empty) as programs:
            nothing = sum(time_of(programs).values())
        with watching() as programs:
            times = dict(time_of(programs))
        with attached(empty) as programs:
            noise.append(sum(time_of(programs).values()) - nothing)
        totals.append(sum(times.values()) - nothing - noise[-1] / 2)
        plan.say(f"{number + 1}/{plan.rounds}  {totals[-1]:.0f} ns (A/A {noise[-1]:+.0f} ns)")
    shares = ", ".join(f"{name} {time:.0f}" for name, time in times.items() if time >= 1)
    return [
        Figure(
            "kernel time of an exchange and side, metrics on, no spans",
            Target.AT_MOST,
            300,
            "ns",
            totals,
            noise,
            notes=[f"the last round, in ns and with what timing takes: {shares}; of empty programs {nothing:.0f}"],
        )
    ]


def _run_times(programs: Mapping[str, Program]) -> dict[str, int]:
    return {name: program.statistics().run_time_ns for name, program in programs.items()}


@contextmanager
def attached(path: Path) -> Iterator[Mapping[str, Program]]:
    """All programs of an object."""
    with BpfObject.open(path) as loaded, ExitStack() as links:
        loaded.load()
        for program in loaded.programs.values():
            links.enter_context(program.attach())
        yield loaded.programs


@contextmanager
def watching() -> Iterator[Mapping[str, Program]]:
    """The receiver's programs."""
    session = KernelSession(kernel_settings(EbpfConfig.model_validate(_WATCHED), with_metrics=True), Counters())
    try:
        yield session.attached_programs()
    finally:
        session.close()
