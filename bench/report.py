"""The figures as a table for the terminal, and as the part of docs/performance.md between two markers."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, spread

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- begin of what `make bench ARGS=--write` writes -->"
END = "<!-- end of what `make bench ARGS=--write` writes -->"

_HEADINGS = ("", "what", "target", "median", "quartiles", "A/A quartiles", "met")
_NOTE_WIDTH = 116


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns, and below them the notes by number."""
    rows = [_HEADINGS, *_rows(figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for number, figure in enumerate(figures, 1):
        note = "; ".join(figure.notes)
        lines += textwrap.wrap(f"{number}  {note}", _NOTE_WIDTH, subsequent_indent="   ") if note else []
    return "\n".join(lines)


def markdown(figures: Sequence[Figure], arguments: str) -> str:
    """The same with what it was measured on, and by which command."""
    rows = [_HEADINGS, ("---",) * len(_HEADINGS), *_rows(figures)]
    notes = [f"{number}. {'; '.join(figure.notes)}" for number, figure in enumerate(figures, 1)]
    command = f"make bench ARGS={arguments!r}" if arguments else "make bench"
    return "\n".join(
        [
            f"`{command}` on {datetime.now(UTC):%Y-%m-%d}: {machine()}.",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            *notes,
        ]
    )


def replace_figures(document: str, figures: str) -> str:
    """The document with other figures. Raises ValueError unless it has both markers, once and in order."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in after:
        raise ValueError(f"needs one line {BEGIN!r} and after it one line {END!r}")
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


def machine() -> str:
    """Processor, cores and kernel; nothing that names the machine."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _rows(figures: Sequence[Figure]) -> list[tuple[str, ...]]:
    return [(str(number), *_cells(figure)) for number, figure in enumerate(figures, 1)]


def _cells(figure: Figure) -> tuple[str, ...]:
    excuse = " or noise" if figure.noise_excuses else ""
    return (
        figure.what,
        f"{figure.target.value} {_number(figure.limit)} {figure.unit}{excuse}",
        f"{_number(spread(figure.values).median)} {figure.unit}",
        _quartiles(figure.values),
        _quartiles(figure.noise) if figure.noise else "",
        _verdict(figure),
    )


def _verdict(figure: Figure) -> str:
    if figure.met:
        return "yes"
    return f"not met: {figure.flaw}" if figure.flaw else "not met"


def _quartiles(values: Sequence[float]) -> str:
    measured = spread(values)
    return f"{_number(measured.low)} to {_number(measured.high)}"


def _number(value: float) -> str:
    """Three digits that say something, thousands separated."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2g}"
        if abs(value) < 0.1
        else f"{value:.2f}".rstrip("0").rstrip(".")
    )
