"""What a frame says: totals, a row an edge, some spans, what the log said lately, and what to type for something else.

Where there is little room, columns and sections are left out, those that matter least first.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Span, Text

from ..debug_format import duration, printable
from .activity import Row, Totals

_HINTS: Final = (
    "Ctrl-C ends",
    "spans line by line: --set exporters.debug.verbosity=normal",
    "to a Collector: OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317",
)
_SPACE: Final = 2
_PORT: Final = re.compile(r":\d{1,5}$", re.ASCII)
_ARROW: Final = " → "
_LEVEL_STYLES: Final = {"warn": "yellow", "error": "red", "fatal": "red"}
#: a slow request is worth a look, whatever else it may be
_SLOW_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """leave_out: the order in which columns give way where the terminal is narrow. is_text: to the left."""

    title: str
    width: int
    leave_out: int
    is_text: bool = False


class Cell(NamedTuple):
    text: str
    style: str = ""


SERVICE, PEER = Column("SERVICE", 14, 0, is_text=True), Column("PEER", 16, 0, is_text=True)
PROTOCOL = Column("PROTOCOL", 8, 4, is_text=True)
REQUESTS, RATE, ERRORS = Column("REQUESTS", 8, 1), Column("PER SEC", 7, 0), Column("ERRORS", 6, 6)
P50, P99, QUEUE = Column("P50", 6, 5), Column("P99", 6, 3), Column("QUEUE", 6, 2)
COLUMNS: Final = (SERVICE, PEER, PROTOCOL, REQUESTS, RATE, ERRORS, P50, P99, QUEUE)
_NOTHING: Final = Cell("-", "dim")
#: how wide the first two are, if there is room; at most; and at least
_USUAL, _WIDEST, _NARROWEST = 18, 36, 6


@dataclass(frozen=True, slots=True)
class Health:
    """What became of exchanges since the start: of so many observed. sampled_out: left out as wished."""

    observed: int = 0
    sampled_out: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Content:
    """What there is to show. up: seconds since the start. spans, notes: the oldest first; a note is one line."""

    up: float
    totals: Totals
    health: Health
    rows: Sequence[Row]
    spans: Sequence[Text] = ()
    notes: Sequence[Text] = ()


def rows_that_fit(columns: int, lines: int, spans: int, notes: int) -> int:
    """Edges that have room in a frame of this size, beside its head, all others as one row, and what is below them."""
    below = (_spans_lines(lines, spans), notes and notes + 1, len(_hints(columns, lines)))
    return max(1, lines - 4 - sum(below))


def frame(content: Content, columns: int, lines: int) -> list[Text]:
    """At most ``lines`` lines; those that are wider than ``columns`` are to be cropped."""
    shown = [_headline(content, columns), Text(""), *_table(content.rows, columns)]
    if not content.rows:
        shown += _wrapped(_nothing(content), columns, "dim")
    spans = _spans_lines(lines, len(content.spans)) - 2
    if spans > 0:
        shown += [Text(), Text("Some of the latest spans", style="dim"), *content.spans[-spans:]]
    if content.notes:
        shown += [Text(), *content.notes]
    return [*shown, *_hints(columns, lines)][:lines]


def summary(content: Content, columns: int, lines: int) -> list[Text]:
    """What remains on the terminal at the end."""
    table = [Text(), *_table(content.rows, columns, ended=True)] if content.rows else []
    return [_headline(content, columns, ended=True), *table][:lines]


def _spans_lines(lines: int, spans: int) -> int:
    """For spans, their heading and what sets it off."""
    return min(spans + 2, lines // 4) if spans and lines >= 16 else 0


def _hints(columns: int, lines: int) -> list[Text]:
    """As many on a line as have room; only the first where there are few lines; none that cannot be copied whole."""
    if lines < 10:
        return []
    filled = [_HINTS[0]]
    whole = [hint for hint in _HINTS[1:] if max(map(len, hint.split())) <= columns]
    for hint in whole if lines >= 16 else ():
        joined = f"{filled[-1]} · {hint}"
        if len(joined) <= columns:
            filled[-1] = joined
        else:
            filled.append(hint)
    return [Text(), *(piece for hints in filled for piece in _wrapped(hints, columns, "dim"))]


class _Total(NamedTuple):
    """turn: in which totals get their room; all of a turn from the left."""

    turn: int
    value: str
    what: str
    style: str


def _headline(content: Content, columns: int, ended: bool = False) -> Text:
    """Totals, as far as they fit: what is lost before all else."""
    totals = _totals(content, ended)
    text = Text.assemble(("wirespan", "bold"), ("  up ", "dim"), _uptime(content.up))
    room, fitting = columns - text.cell_len, set()
    for total in sorted(totals, key=lambda total: total.turn):
        width = len(f"  {total.value} {total.what}")
        if width <= room:
            room -= width
            fitting.add(total)
    for total in totals:
        if total in fitting:
            text.append("  ").append(total.value, total.style).append(f" {total.what}", "dim")
    return text


def _totals(content: Content, ended: bool) -> list[_Total]:
    totals, health = content.totals, content.health
    lost = "bold red" if health.dropped else ""
    shown = [] if ended else [_Total(1, rate(totals.rate), "spans/s", "bold")]
    shown += [
        _Total(3, *_counted(totals.spans, "span"), "bold" if ended else ""),
        _Total(2 if totals.errors else 3, *_counted(totals.errors, "error"), "red" if totals.errors else ""),
        _Total(0 if health.dropped else 3, count(health.dropped), "dropped", lost),
        _Total(3, _coverage(health), "coverage", lost),
    ]
    return shown + ([_Total(3, count(health.sampled_out), "sampled out", "")] if health.sampled_out else [])


def _counted(number: int, what: str) -> tuple[str, str]:
    return count(number), what if number == 1 else f"{what}s"


def _uptime(seconds: float) -> str:
    """``5s``, ``1m05s``, ``26h03m``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02}s" if whole < 3600 else f"{whole // 3600}h{whole // 60 % 60:02}m"


def _coverage(health: Health) -> str:
    """Rounded down: 100 % is said only of all."""
    if not health.dropped:
        return "100%"
    return f"{int(1000 * (1 - health.dropped / max(health.observed, health.dropped))) / 10:.1f}%"


def _table(rows: Sequence[Row], columns: int, ended: bool = False) -> list[Text]:
    cells = [_cells(row, ended) for row in rows]
    layout = _layout(columns, cells, ended)
    head = _line(layout, {column: Cell(column.title) for column in COLUMNS}, " " * cell_len(_ARROW))
    head.stylize("bold cyan")
    arrows = [_ARROW if row.edge and not row.edge.is_server else " ← " if row.edge else "   " for row in rows]
    return [head, *(_line(layout, row, arrow) for row, arrow in zip(cells, arrows, strict=True))]


def _cells(row: Row, ended: bool) -> dict[Column, Cell]:
    quiet = "dim" if not ended and not row.rate else ""
    error = "bold red" if row.recent_errors or ended else "red"
    return {
        SERVICE: Cell(printable(row.service), "bold" if row.edge else "dim"),
        PEER: Cell(printable(row.peer)),
        PROTOCOL: Cell(printable(row.edge.protocol if row.edge else "")),
        REQUESTS: Cell(count(row.requests), quiet),
        RATE: Cell(rate(row.rate)) if row.rate else _NOTHING,
        ERRORS: Cell(count(row.errors), error) if row.errors else _NOTHING,
        P50: _time(row.p50),
        P99: _time(row.p99),
        QUEUE: _time(row.queue),
    }


def _time(seconds: float | None) -> Cell:
    if seconds is None:
        return _NOTHING
    return Cell(duration(seconds), "yellow" if seconds >= _SLOW_SECONDS else "")


def _layout(columns: int, cells: Sequence[dict[Column, Cell]], ended: bool) -> dict[Column, int]:
    """The width of each column that fits. The first two share what is left, as far as they need it."""
    layout = {column: column.width for column in COLUMNS if not (ended and column is RATE)}
    stay = (SERVICE, PEER, REQUESTS if ended else RATE)
    for column in sorted(COLUMNS, key=lambda column: column.leave_out):
        if _width(layout) > columns and column not in stay:
            layout.pop(column, None)
    spare = max(0, columns - _width(layout))
    wanted = [_wanted(column, cells) for column in (SERVICE, PEER)]
    service = min(wanted[0], max(spare // 2, spare - wanted[1]))
    layout[SERVICE] += service
    layout[PEER] += min(wanted[1], spare - service)
    for column in (PEER, SERVICE):  # where not even the narrowest table fits
        layout[column] = max(_NARROWEST, layout[column] - max(0, _width(layout) - columns))
    return layout


def _wanted(column: Column, cells: Sequence[dict[Column, Cell]]) -> int:
    """How much wider than its least a column should be."""
    longest = max((cell_len(row[column].text) for row in cells), default=0)
    return max(_USUAL, min(longest, _WIDEST)) - column.width


def _width(layout: dict[Column, int]) -> int:
    return sum(layout.values()) + _SPACE * (len(layout) - 2) + cell_len(_ARROW)


def _line(layout: dict[Column, int], cells: dict[Column, Cell], arrow: str) -> Text:
    pieces: list[str] = []
    spans: list[Span] = []
    at = 0
    for column, width in layout.items():
        text, style = cells[column]
        piece = _left(text, width) if column.is_text else text.rjust(width)
        if style:
            spans.append(Span(at, at + len(piece), style))
        piece += arrow if column is SERVICE else " " * _SPACE
        pieces.append(piece)
        at += len(piece)
    return Text("".join(pieces).rstrip(), spans=spans)


def _left(text: str, width: int) -> str:
    """To the left, and clipped if need be, but not in its port."""
    missing = width - cell_len(text)
    if missing >= 0:
        return text + " " * missing
    port = found[0] if (found := _PORT.search(text)) and len(found[0]) <= width // 2 else ""
    return f"{set_cell_size(text, width - len(port) - 1)}…{port}"


def _nothing(content: Content) -> str:
    if content.totals.spans:
        return "Nothing happened in the last minute."
    return "Nothing seen yet. What processes on this machine ask each other, or others, appears here."


def latest_notes(notes: Sequence[tuple[str, str]], columns: int, lines: int) -> list[Text]:
    """Texts of the log with their levels, the oldest first: the latest ones that fit, and of one that is longer its beginning."""
    shown: list[Text] = []
    for text, level in reversed(notes):
        pieces = _wrapped(printable(text), columns, _LEVEL_STYLES.get(level, ""))
        if len(pieces) > lines:
            pieces = [*pieces[: lines - 1], Text(f"{pieces[lines - 1].plain[: columns - 1]}…", pieces[0].style)]
        if len(shown) + len(pieces) > lines:
            break
        shown[:0] = pieces
    return shown


def _wrapped(text: str, columns: int, style: str) -> list[Text]:
    """On as many lines as it takes, between words where that is possible."""
    return [Text(piece, style) for piece in textwrap.wrap(text, columns, break_on_hyphens=False)]


def count(number: int) -> str:
    """Up to seven characters: ``12,345``, ``1.23M``."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if number >= scale:
            return f"{number / scale:.2f}{unit}"
    return f"{number:,}"


def rate(number: float) -> str:
    """A second: ``0.2``, ``12.5``, ``1,204``."""
    return f"{number:.1f}" if number < 99.95 else count(round(number))
