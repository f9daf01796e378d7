"""The name of the program that a process runs: its script, module or main class, else its executable.

An interpreter's command line is read as the interpreter does, up to its script; what follows are the program's own
arguments. They may hold secrets, as may the values of options, so a word counts only where it must be a script: behind
a long option, which may or may not take a value, only a word that ends like a script does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

#: characters
NAME_LIMIT: Final = 255

_MODULE = re.compile(r"\w+(?:\.\w+)*")
_JAVA_CLASS = re.compile(r"[\w$]+(?:[./][\w$]+)*")
#: a program that renamed itself, like ``gunicorn: worker [app]``, shows as a single word
_TITLE = re.compile(r"([\w.+-]+):? ")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How an interpreter reads its command line. Options are single letters, but for ``long_valued``.

    suffixes: how its scripts end.
    inline: the program itself follows, so there is no script.
    script, module: the path of the script, or the name of a module, follows.
    valued: a value follows, in the same word or the next one; attached: in the same word only.
    long_valued: long options whose value, the next word, may look like a script.
    """

    suffixes: tuple[str, ...]
    inline: str
    script: str = ""
    module: str = ""
    valued: str = ""
    attached: str = ""
    long_valued: tuple[str, ...] = ()


_NODE_PRELOADS = ("--require", "--import", "--loader", "--experimental-loader")
_INTERPRETERS: tuple[tuple[re.Pattern[str], Interpreter], ...] = (
    (
        re.compile(r"(?:python|pypy)[\d.]*"),
        Interpreter((".py", ".pyc", ".pyz"), inline="c", module="m", valued="WX"),
    ),
    (
        re.compile(r"node(?:js)?|node-MainThread"),
        Interpreter((".js", ".mjs", ".cjs", ".ts"), inline="ep", valued="rC", long_valued=_NODE_PRELOADS),
    ),
    (re.compile(r"ruby[\d.]*"), Interpreter((".rb", ".ru"), inline="e", valued="CEIrX", attached="0FiKTWx")),
    (re.compile(r"perl[\d.]*"), Interpreter((".pl", ".psgi"), inline="eE", valued="I", attached="0CDdFilMmVx")),
    (re.compile(r"php[\d.]*"), Interpreter((".php", ".phar"), inline="rBRE", script="fF", valued="cdgStz")),
)
#: what Python's multiprocessing has a new interpreter run, be it a worker or what forks workers
_SPAWNED = ("from multiprocessing.spawn import ", "from multiprocessing.forkserver import ")
_JAVA_VALUED = frozenset(
    (
        *("-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--source"),
        *("--add-modules", "--add-reads", "--add-exports", "--add-opens", "--limit-modules", "--patch-module"),
        "--enable-native-access",
    )
)


def program_name(executable: str, arguments: Sequence[str]) -> str:
    """The name of what runs. executable: its file name. arguments: the whole command line, the program's name first."""
    name = None
    if executable == "java":
        name = _java_program(iter(arguments[1:]))
    for pattern, interpreter in _INTERPRETERS:
        if pattern.fullmatch(executable):
            name = _title(arguments) or _script(interpreter, iter(arguments[1:]))
    return (name or executable)[:NAME_LIMIT]


def is_spawned(arguments: Sequence[str]) -> bool:
    """Whether the command line is one of Python's multiprocessing, so that the program is that of the parent process, as
    with the workers of uvicorn."""
    return any(option == "-c" and code.startswith(_SPAWNED) for option, code in pairwise(arguments))


def _title(arguments: Sequence[str]) -> str | None:
    found = _TITLE.match(arguments[0]) if len(arguments) == 1 else None
    return found[1] if found else None


def _script(interpreter: Interpreter, words: Iterator[str]) -> str | None:
    """The name of the script or module among the words behind the interpreter's own."""
    certain = True
    for word in words:
        if word.startswith("--") and word != "--":
            certain = certain and "=" in word
            if word in interpreter.long_valued:
                next(words, None)
        elif word.startswith("-") and word not in ("-", "--"):
            option, value = _ending_option(interpreter, word, words)
            if option is not None:
                return _named_by(interpreter, option, value)
        else:
            path = next(words, "") if word == "--" else word
            if certain or path.endswith(interpreter.suffixes):
                return _name_of_path(path, interpreter.suffixes)
    return None


def _ending_option(interpreter: Interpreter, word: str, words: Iterator[str]) -> tuple[str | None, str]:
    """The option in a word of short ones that says what runs, and its value; takes the values of others off ``words``."""
    for end, letter in enumerate(word[1:], start=2):
        if letter in interpreter.inline:
            return letter, ""
        if letter in interpreter.script or letter in interpreter.module:
            return letter, word[end:] or next(words, "")
        if letter in interpreter.valued and end == len(word):
            next(words, None)
        if letter in interpreter.valued or letter in interpreter.attached:
            break
    return None, ""


def _named_by(interpreter: Interpreter, option: str, value: str) -> str | None:
    if option in interpreter.inline:
        return None
    if option in interpreter.script:
        return _name_of_path(value, interpreter.suffixes)
    return value.removesuffix(".__main__") if _MODULE.fullmatch(value) else None


def _name_of_path(path: str, suffixes: tuple[str, ...]) -> str | None:
    """``app`` of ``/srv/app.py``, ``/srv/app`` and ``/srv/app/__main__.py``; None for standard input."""
    folder, _, name = path.rstrip("/").rpartition("/")
    for suffix in suffixes:
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    if name == "__main__":
        name = folder.rpartition("/")[2]
    return None if name in ("", ".", "..", "-") else name


def _java_program(words: Iterator[str]) -> str | None:
    """The jar or main class; None if an argument file, which is not read, may name it."""
    for word in words:
        if word.startswith("@"):
            return None
        if word == "-jar":
            return _name_of_path(next(words, ""), (".jar", ".war"))
        if word in ("-m", "--module"):
            word = next(words, "").rpartition("/")[2]
        elif word.startswith("--module="):
            word = word.rpartition("=")[2].rpartition("/")[2]
        elif word in _JAVA_VALUED:
            next(words, None)
            continue
        elif word.startswith("-"):
            continue
        if word.endswith(".java"):
            return _name_of_path(word, (".java",))
        return word if _JAVA_CLASS.fullmatch(word) else None
    return None
