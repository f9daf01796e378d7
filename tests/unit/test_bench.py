"""The arithmetic and the tables of bench/; what it measures is not measured here."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # bench/ is run, not installed

from bench.figures import Figure, Plan, Target, interleave, median_interval, spread
from bench.fixed_rate import percentiles
from bench.memory import without_rings
from bench.report import BEGIN, DOCUMENT, END, machine, markdown, replace_figures, table
from bench.surroundings import Ledger

RUN = Path(__file__).parents[2] / "bench" / "run.py"

SMAPS = """\
55d0a000-55d0b000 r-xp 00001000 fe:00 1311   /usr/bin/python3.11
Size:                  4 kB
Rss:                   4 kB
Pss:                   2 kB
7f0000000000-7f0000800000 r--s 00001000 00:0e 13   anon_inode:bpf-map
Rss:                8192 kB
Pss:                8000 kB
7ffd1000-7ffd2000 rw-p 00000000 00:00 0
Rss:                  16 kB
Pss:                  16 kB
Pss_Dirty:            16 kB
"""


def figure(target: Target, limit: float, *values: float, **more: object) -> Figure:
    return Figure("something", target, limit, "ns", values, **more)  # type: ignore[arg-type]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=60)


def test_a_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == (2, 3, 4)
    assert spread([1, 2]) == (1.25, 1.5, 1.75)


def test_the_interval_of_a_median_leaves_out_what_a_coin_seldom_shows() -> None:
    assert median_interval([3, 1, 2]) == (1, 3)
    assert median_interval(range(1, 21)) == (6, 15)  # binomial(20, 1/2): 2.07 % have 5 or fewer, 5.8 % have 6


def test_one_value_is_its_own_spread() -> None:
    assert spread([7]) == (7, 7, 7)


def test_a_drift_of_the_machine_is_neither_change_nor_noise(tmp_path: Path) -> None:
    speed, changed, said = 100.0, 0.0, list[str]()

    def measure() -> list[float]:
        nonlocal speed
        speed += 10
        return [speed + changed, 2 * speed]

    @contextmanager
    def change() -> Iterator[None]:
        nonlocal changed
        changed = 7.0
        yield
        changed = 0.0

    plan = Plan(3, False, tmp_path, said.append)
    first, second = interleave(plan, measure, change, lambda step: f"{step.added:+.0f}")
    assert [step.added for step in first.changed] == [7, 7, 7]
    assert [step.added for step in first.unchanged + second.changed + second.unchanged] == [0] * 9
    assert first.changed[0].added_percent == pytest.approx(100 * 7 / 120)
    assert said == [f"{number}/3  +7 (A/A +0), +0 (A/A +0)" for number in (1, 2, 3)]


def test_the_median_has_to_reach_the_target() -> None:
    assert figure(Target.AT_MOST, 600, 100, 600, 9_000).met
    assert not figure(Target.AT_MOST, 600, 100, 601, 602).met
    assert figure(Target.AT_LEAST, 600, 100, 600, 9_000).met
    assert not figure(Target.AT_LEAST, 600, 100, 599, 9_000).met


def test_only_where_that_is_allowed_does_noise_excuse_a_figure() -> None:
    assert figure(Target.AT_MOST, 5, 6, 7, 8, noise=[-7, 0, 1, 7, -8], noise_excuses=True).met
    assert not figure(Target.AT_MOST, 5, 6, 7, 8, noise=[-6, 0, 1, 6, -8], noise_excuses=True).met
    assert not figure(Target.AT_MOST, 5, 6, 7, 8, noise=[-7, 0, 1, 7, -8]).met


def test_a_flaw_misses_the_target_and_is_named() -> None:
    flawed = figure(Target.AT_MOST, 5, 1, flaw="3 exchanges unaccounted for")
    assert not flawed.met
    assert "not met: 3 exchanges unaccounted for" in table([flawed])


def test_the_table_says_what_was_measured_and_how_far_it_spreads() -> None:
    lines = table(
        [figure(Target.AT_LEAST, 200_000, 210_000, 230_000, 250_000, noise=[-0.31, 12.04], notes=["on", "one core"])]
    ).splitlines()
    assert re.split("  +", lines[1]) == [
        "1",
        "something",
        "≥ 200,000 ns",
        "230,000 ns",
        "220,000 to 240,000",
        "2.78 to 8.95",
        "yes",
    ]
    assert lines[2] == "1  on; one core"


def test_every_row_of_the_written_table_has_every_column() -> None:
    text = markdown([figure(Target.AT_MOST, 5, 1), figure(Target.AT_MOST, 5, 6, notes=["why"])], "--quick")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {8}
    assert [row.split(" | ")[-1] for row in rows[2:]] == ["yes |", "not met |"]
    assert "`make bench ARGS='--quick'`" in text
    assert "2. why" in text


def test_the_machine_is_described_but_not_named() -> None:
    assert platform.release() in machine()
    assert platform.node() not in machine()


def test_writing_replaces_what_is_between_the_markers_and_nothing_else() -> None:
    document = f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n"
    written = replace_figures(document, "new")
    assert written == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nThe end.\n"
    assert replace_figures(written, "new") == written


@pytest.mark.parametrize("document", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_document_without_its_markers_is_not_written(document: str) -> None:
    with pytest.raises(ValueError, match="begin of what"):
        replace_figures(document, "new")


def test_the_document_has_its_markers() -> None:
    assert "new figures" in replace_figures(DOCUMENT.read_text(), "new figures")


def test_a_name_that_no_figure_has_is_refused() -> None:
    refused = bench("socket_calls")
    assert refused.returncode == 2
    assert "'socket_call'" in refused.stderr


def test_a_part_of_the_figures_is_not_written() -> None:
    refused = bench("replay", "--write")
    assert refused.returncode == 2
    assert "without names" in refused.stderr


def test_memory_leaves_out_the_rings_only() -> None:
    assert without_rings(SMAPS, "Pss") == 18
    assert without_rings(SMAPS, "Rss") == 20


def test_percentiles_are_those_of_all_requests() -> None:
    assert percentiles(range(1, 102)) == (51, 100)


def test_the_ledger_adds_up_the_last_identity_of_each_run() -> None:
    identity = (
        '{{"msg": "exchanges", "observed": {}, "exported": {}, "dropped": {{"ring_full": 2}}, "unaccounted": -1}}'
    )
    ledger = Ledger()
    ledger.add("\n".join(["3 spans {", '{"msg": "Shutting down"}', identity.format(0, 0), identity.format(10, 7)]))
    ledger.add(identity.format(90, 89))
    assert (ledger.observed, ledger.exported, ledger.dropped, ledger.unaccounted) == (100, 96, 4, 2)
    assert ledger.dropped_percent == 4


def test_a_log_without_an_identity_is_no_run() -> None:
    with pytest.raises(ValueError, match="no identity"):
        Ledger().add("a traceback")
