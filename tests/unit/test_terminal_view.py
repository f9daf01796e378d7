"""What a frame says, and that it fits wherever it is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.text import Text

from support.table_picture import CONTENT, README, picture, renewed
from wirespan.exporters.terminal.activity import Edge, Row, Totals
from wirespan.exporters.terminal.view import (
    Content,
    Health,
    count,
    frame,
    latest_notes,
    rate,
    rows_that_fit,
    summary,
)
from wirespan.pipeline.spans import SpanKind

EMPTY = Content(up=3, totals=Totals(0, 0, 0), health=Health(), rows=())


def text(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


EDGE = Edge("shop", SpanKind.CLIENT, "10.0.0.2", 80, "10.0.0.1", "http")


def row(**changes: object) -> Row:
    return replace(Row(EDGE, "shop", "10.0.0.2:80", 1.0, 10, 0, 0, 0.1, 0.2, None), **changes)  # type: ignore[arg-type]


def test_the_picture_of_the_readme_is_what_is_drawn() -> None:
    page = README.read_text()
    assert page == renewed(page), "run: .venv/bin/python tests/support/table_picture.py"
    assert picture() in page


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 140, 250])
@pytest.mark.parametrize("lines", [1, 4, 9, 12, 16, 24, 60])
def test_a_frame_fits_wherever_it_is_drawn(columns: int, lines: int) -> None:
    notes = latest_notes([("Sending queue is full. Dropping spans.", "warn")], columns, 3)
    limit = rows_that_fit(columns, lines, len(CONTENT.spans), len(notes))
    content = replace(CONTENT, rows=[row()] * limit + [row(edge=None, service="others", peer="")], notes=notes)
    drawn = frame(content, columns, lines)
    assert len(drawn) <= lines
    table = drawn[2 : 4 + limit]
    if columns >= 40:
        assert all(line.cell_len <= columns for line in table), columns
    if lines >= 16:
        assert "Ctrl-C ends" in text(drawn), "what is below the table has room"
        assert "others" in text(drawn)
    assert len(summary(content, columns, lines)) <= lines


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "SERVICE PEER PROTOCOL REQUESTS PER SEC ERRORS P50 P99 QUEUE"),
        (90, "SERVICE PEER PROTOCOL PER SEC ERRORS P50 P99 QUEUE"),
        (70, "SERVICE PEER PROTOCOL PER SEC ERRORS P50"),
        (50, "SERVICE PEER PER SEC ERRORS"),
        (40, "SERVICE PEER PER SEC"),
    ],
)
def test_columns_that_matter_least_give_way_first(columns: int, shown: str) -> None:
    head = frame(CONTENT, columns, 24)[2].plain
    assert " ".join(head.split()) == shown


def test_names_take_the_room_that_there_is_and_are_clipped_where_there_is_none() -> None:
    long = row(service="a-service-with-a-long-name", peer="db.example.internal:5432")
    wide, narrow = (text(frame(replace(CONTENT, rows=[long]), columns, 24)) for columns in (140, 60))
    assert "a-service-with-a-long-name → db.example.internal:5432  http" in wide
    assert "a-service-with-a-long-name" not in narrow
    assert "a-servic" in narrow
    assert "…" in narrow


def test_a_name_that_is_clipped_keeps_its_port() -> None:
    clipped = row(service="redis-server:16379", peer="a-client-with-a-long-name:8080")
    (line,) = frame(replace(CONTENT, rows=[clipped]), 59, 24)[3:4]
    assert line.plain.startswith("redis-s…:16379 → a-client-wi…:8080 ")


@pytest.mark.parametrize("columns", range(40, 100))
def test_what_is_to_be_read_or_typed_is_whole_wherever_it_is_shown(columns: int) -> None:
    notes = latest_notes([("Nothing seen so far. In another terminal, try:", "info")], columns, 3)
    drawn = frame(replace(EMPTY, notes=notes), columns, 30)
    assert all(line.cell_len <= columns for line in drawn if not line.plain.startswith("SERVICE"))
    said = " ".join(line.plain for line in drawn)
    assert "What processes on this machine ask each other, or others, appears here." in said
    assert "Nothing seen so far. In another terminal, try:" in said
    assert ("OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317" in said) == (columns >= 49)
    assert "spans line by line: --set exporters.debug.verbosity=normal" in said


def test_of_the_log_whole_lines_are_shown_and_of_a_long_one_the_beginning() -> None:
    short, long = ("It is short.", "info"), ("It has " + "many " * 40, "warn")
    assert [line.plain for line in latest_notes([long, short], 60, 3)] == ["It is short."]
    shown = latest_notes([short, long], 60, 3)
    assert [line.plain[:11] for line in shown] == ["It has many", "many many m", "many many m"]
    assert shown[-1].plain.endswith("…")
    assert latest_notes([], 60, 3) == []


def test_wide_characters_do_not_shift_columns() -> None:
    wide = row(service="日本のサービス")
    head, first, second = frame(replace(CONTENT, rows=[row(), wide]), 100, 24)[2:5]
    assert first.cell_len == second.cell_len <= head.cell_len


def test_what_could_steer_a_terminal_is_replaced() -> None:
    evil = row(edge=replace(EDGE, protocol="\x07"), service="\x1b[2Jshop\r", peer="\x1b]0;\x07")
    for line in frame(replace(CONTENT, rows=[evil], notes=latest_notes([("\x1b[2J", "info")], 80, 3)), 100, 30):
        assert line.plain.isprintable()


def test_an_empty_table_says_that_nothing_was_seen_yet_or_lately() -> None:
    assert "Nothing seen yet." in text(frame(EMPTY, 100, 24))
    later = replace(EMPTY, totals=Totals(0, 7, 0))
    assert "Nothing happened in the last minute." in text(frame(later, 100, 24))


def test_the_head_says_what_is_lost() -> None:
    head = frame(replace(EMPTY, health=Health(observed=1_000_000, sampled_out=2_000, dropped=1)), 200, 24)[0].plain
    assert head.endswith("1 dropped  99.9% coverage  2,000 sampled out")
    assert frame(EMPTY, 200, 24)[0].plain.endswith("0 dropped  100% coverage")


def test_totals_that_do_not_fit_are_left_out_whole() -> None:
    heads = [frame(CONTENT, columns, 24)[0].plain for columns in (30, 80)]
    assert heads == [
        "wirespan  up 14s  587 spans/s",
        "wirespan  up 14s  587 spans/s  7,480 spans  28 errors  0 dropped  100% coverage",
    ]


def test_what_is_lost_has_room_before_all_else() -> None:
    lossy = replace(CONTENT, totals=Totals(12_345, 7_480_123, 28_000), health=Health(7_480_123, 0, 1_234))
    assert frame(lossy, 59, 24)[0].plain == "wirespan  up 14s  12,345 spans/s  1,234 dropped"
    assert frame(lossy, 31, 24)[0].plain == "wirespan  up 14s  1,234 dropped"


def test_the_summary_says_how_many_requests_wherever_it_is_drawn() -> None:
    for columns in (40, 59, 79, 139):
        assert "REQUESTS" in summary(CONTENT, columns, 24)[2].plain


def test_failures_and_slow_requests_stand_out() -> None:
    slow = row(errors=3, recent_errors=1, p99=1.5)
    line = frame(replace(CONTENT, rows=[slow]), 100, 24)[3]
    styles = {line.plain[span.start : span.end].strip(): span.style for span in line.spans}
    assert styles == {"shop": "bold", "3": "bold red", "1.50s": "yellow", "-": "dim"}


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (999_999, "999,999"), (1_234_567, "1.23M"), (5 * 10**9, "5.00G"), (10**13, "10.00T")],
)
def test_numbers_stay_short(number: int, shown: str) -> None:
    assert count(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0.04, "0.0"), (0.2, "0.2"), (99.94, "99.9"), (99.96, "100"), (1204.4, "1,204")]
)
def test_rates_have_a_decimal_where_it_says_something(number: float, shown: str) -> None:
    assert rate(number) == shown


@pytest.mark.parametrize(("up", "shown"), [(5.9, "5s"), (65, "1m05s"), (3600, "1h00m"), (93_784, "26h03m")])
def test_how_long_it_has_run(up: float, shown: str) -> None:
    assert f"up {shown} " in frame(replace(EMPTY, up=up), 100, 24)[0].plain
