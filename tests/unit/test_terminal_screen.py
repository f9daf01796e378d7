"""Frames on a terminal: in place, whole after a resize, and log lines in its history."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.terminal import Terminal

#: draws what it is told to: "frame A|B" a frame of these lines, "above A|B" lines that are to stay, "finish A|B"
PROGRAM = """
import sys
from rich.text import Text
from wirespan.exporters.terminal.screen import Screen
screen = Screen(sys.stdout)
print("before")
for command in open(0, encoding="utf-8"):
    what, _, rest = command.rstrip("\\n").partition(" ")
    lines = rest.split("|")
    if what == "above":
        screen.write_above("".join(f"{line}\\n" for line in lines))
    else:
        {"frame": screen.draw, "finish": screen.finish}[what]([Text(line) for line in lines])
    if what == "finish":
        print("after")
"""


class Drawing:
    """A terminal, and a program in it that is told through a pipe what to draw."""

    def __init__(self, folder: Path, **environment: str) -> None:
        commands = folder / "commands"
        os.mkfifo(commands)
        shell = f'exec "$0" -c "$1" <{commands}'
        self.terminal = Terminal(["sh", "-c", shell, sys.executable, PROGRAM], 40, 10, environment)
        self._commands = commands.open("w")
        self.terminal.wait_for("before")

    def do(self, *commands: str) -> None:
        for command in commands:
            self._commands.write(f"{command}\n")
        self._commands.flush()

    def end(self) -> None:
        self._commands.close()
        assert self.terminal.wait_for_end() == 0


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Drawing]:
    started = Drawing(tmp_path)
    with started.terminal:
        yield started


def test_a_frame_takes_the_place_of_the_one_before(drawing: Drawing) -> None:
    drawing.do("frame one|two|three", "frame four|five")
    drawing.end()
    assert drawing.terminal.text.splitlines() == ["four", "five"]
    assert drawing.terminal.cursor == (0, 2)


def test_what_was_there_before_is_in_the_history(drawing: Drawing) -> None:
    drawing.do("frame one")
    drawing.end()
    assert drawing.terminal.history == ["before"]


def test_log_lines_go_up_in_order_and_leave_the_frame_whole(drawing: Drawing) -> None:
    drawing.do("above early", "frame one|two", "above first", "frame three|four", "above second|" + "x" * 90)
    drawing.end()
    assert drawing.terminal.history == ["before", "early", "first", "second", "x" * 40, "x" * 40, "x" * 10]
    assert drawing.terminal.text.splitlines() == ["three", "four"]


def test_a_log_line_of_more_lines_than_the_terminal_has_is_complete(drawing: Drawing) -> None:
    trace = [f"line {number}" for number in range(25)]
    drawing.do("frame one|two", "above " + "|".join(trace))
    drawing.end()
    assert drawing.terminal.history == ["before", *trace]
    assert drawing.terminal.text.splitlines() == ["one", "two"]


def test_a_tab_takes_the_room_that_it_takes_on_a_terminal(drawing: Drawing) -> None:
    drawing.do("frame one", "above " + "a\t" * 6)
    drawing.end()
    assert drawing.terminal.history == ["before", "a       " * 4 + "a", "a"]


def test_a_line_that_is_too_long_is_clipped(drawing: Drawing) -> None:
    drawing.do("frame " + "x" * 41 + "|two", "frame " + "日" * 41 + "|two")
    drawing.end()
    assert drawing.terminal.lines[1] == "two"
    assert drawing.terminal.lines[0].endswith("…")


def test_after_a_resize_the_frame_is_whole(drawing: Drawing) -> None:
    drawing.do("frame " + "|".join("123456789"))
    drawing.terminal.wait_for("9")
    drawing.terminal.resize(20, 5)
    drawing.do("frame a|b")
    drawing.end()
    assert drawing.terminal.text.splitlines() == ["a", "b"]


def test_what_comes_after_the_last_frame_comes_below_it(drawing: Drawing) -> None:
    drawing.do("frame one|two|three", "finish the end", "above later")
    drawing.end()
    assert drawing.terminal.text.splitlines() == ["the end", "after", "later"]


def test_an_end_before_any_frame_clears_nothing(drawing: Drawing) -> None:
    drawing.do("finish the end")
    drawing.end()
    assert drawing.terminal.text.splitlines() == ["before", "the end", "after"]


def test_without_utf_8_arrows_are_ascii(tmp_path: Path) -> None:
    drawing = Drawing(tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    with drawing.terminal:
        drawing.do("frame shop → redis 12µs … 日本")
        drawing.end()
        assert drawing.terminal.text == "shop > redis 12us ~ ??"
