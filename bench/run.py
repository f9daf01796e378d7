"""Measures what wirespan promises: ``make bench ARGS="[NAME…] [--rounds N] [--quick] [--write]"``.

A line of progress a round, then a table that says of each figure whether its target is met. The exit status is 0
either way: on a machine as noisy as most are, a figure is for people to judge.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bench.figures import Figure

ROOT = Path(__file__).parents[1]
#: modules of bench/, in the order in which they are measured
NAMES = (
    *(
        "socket_call",
        "kernel_time",
        "kernel_load",
        "export_load",
        "default_load",
        "fixed_rate",
        "agent_time",
        "read_edges",
    ),
    *("replay", "passing", "stored_queue", "memory", "first_span"),
)
ROUNDS, QUICK_ROUNDS = 8, 3


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--rounds", type=click.IntRange(min=1), help=f"Default: {ROUNDS}, with --quick {QUICK_ROUNDS}.")
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: to see that it works, not to quote.")
@click.option("--write", is_flag=True, help="Write the table into docs/performance.md too.")
def main(names: tuple[str, ...], rounds: int | None, quick: bool, write: bool) -> None:
    if write and names:
        raise click.UsageError("--write takes the figures of one run of all, so it goes without names")
    # bench/ is run, not installed, and shares the support of tests/.
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]
    from bench.report import DOCUMENT, markdown, replace_figures, table

    figures = [
        figure
        for name in names or NAMES
        for figure in measured(name, rounds or (QUICK_ROUNDS if quick else ROUNDS), quick)
    ]
    click.echo(table(figures))
    if write:
        text = markdown(figures, " ".join(sys.argv[1:]))
        DOCUMENT.write_text(replace_figures(DOCUMENT.read_text(), text))
        click.echo(f"\nwritten to {DOCUMENT.relative_to(ROOT)}")


def measured(name: str, rounds: int, quick: bool) -> list[Figure]:
    """The figures of a module of bench/; none, with the reason on stderr, if they cannot be measured here."""
    import pytest  # its skip is how tests/support says that a program is missing

    from bench.figures import Plan, Unmeasurable

    say = partial(_say, name)
    with tempfile.TemporaryDirectory(prefix="wirespan-bench-") as folder:
        try:
            found: list[Figure] = import_module(f"bench.{name}").measure(Plan(rounds, quick, Path(folder), say))
        except (Unmeasurable, pytest.skip.Exception) as error:
            say(f"not measured: {error}")
            return []
    return found


def _say(name: str, line: str) -> None:
    click.echo(f"{name:12} {line}", err=True)


if __name__ == "__main__":
    main()
