"""YAML text → a plain tree in which every value knows where it was written.

PyYAML composes nodes and stops there: its constructors forget lines, keep the last of duplicate keys and read
YAML 1.1, where ``on`` is a boolean and ``10:30`` the number 630. Here nodes become values by the YAML 1.2 core
schema, ``${env:NAME:-default}`` is replaced before a scalar gets its type (so a port from the environment is a
number), ``${file:PATH}`` is what that file says, and the position of each key goes into a table beside the tree. Problems are collected, never raised one by
one, so that a user mends a file in one go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

TreePath: TypeAlias = tuple[str | int, ...]

#: Aliases of aliases can make a small file huge; no real configuration comes near.
_MOST_VALUES = 100_000
#: PyYAML, and what checks a tree, recurse; no real configuration comes near.
_DEEPEST = 50
_TOO_DEEP = f"is nested more than {_DEEPEST} levels deep"

_TEXT_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {text: text.lower() == "true" for text in ("true", "True", "TRUE", "false", "False", "FALSE")}
#: Longer ones are infinite, or text: Python refuses to print a number of thousands of digits.
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<reference>[^{}]*)\})")
_FILE = re.compile(r"\$\{file:(?P<name>[^{}]+)\}")
_VARIABLE = re.compile(r"(?:env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Position:
    """A file (or ``--set``) and a line in it, counted from 1; 0 means that there are no lines."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, or not quite right, in a configuration, worded for its author."""

    position: Position
    path: TreePath
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.position), path_text(self.path), self.message) if part)


class ConfigurationError(Exception):
    """A configuration that cannot be used, with everything that is wrong in it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def path_text(path: TreePath) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


@dataclass(slots=True)
class Document:
    """A configuration as plain values, and where each was written.

    positions: by path, ``()`` being the whole. problems: what was wrong with the text itself.
    """

    tree: Any
    positions: dict[TreePath, Position]
    problems: list[Problem] = field(default_factory=list)

    def contains(self, path: TreePath) -> bool:
        return path in self.positions

    def problem(self, path: TreePath, message: str) -> Problem:
        """A problem at ``path``; what is not there itself is said to be where its parent is."""
        known = next(path[:size] for size in range(len(path), -1, -1) if path[:size] in self.positions)
        return Problem(self.positions[known], path, message)

    def add_name(self, path: TreePath, other: TreePath) -> None:
        """Let what is at ``path``, and all below it, be known as ``other`` as well."""
        below = {known[len(path) :]: where for known, where in self.positions.items() if known[: len(path)] == path}
        self.positions.update({other + rest: where for rest, where in below.items()})

    def merge(self, other: Document) -> None:
        """Lay another document over this one, as the Collector does: mappings are merged, all else is replaced."""
        self.problems += other.problems
        if other.contains(()) and other.tree is not None:
            self.tree = self._merged(self.tree, other, (), other.tree)

    def _merged(self, here: Any, other: Document, path: TreePath, value: Any) -> Any:
        if isinstance(here, dict) and isinstance(value, dict):
            for key, nested in value.items():
                here[key] = self._merged(here.get(key), other, (*path, key), nested)
            return here
        for known in [known for known in self.positions if known[: len(path)] == path]:
            del self.positions[known]
        self.positions.update({known: at for known, at in other.positions.items() if known[: len(path)] == path})
        return value

    def set(self, assignment: str, environment: Mapping[str, str]) -> None:
        """Apply a ``--set``: ``receivers.ebpf.select.ports=[6379]``, the value being YAML."""
        dotted, equals, text = assignment.partition("=")
        path: TreePath = tuple(dotted.split("."))
        position = Position("--set")
        if not equals or not all(path):
            message = f'"{dotted}" is not the PATH of PATH=VALUE, as in receivers.ebpf.select.ports=[6379]'
            self.problems.append(Problem(position, (), message))
            return
        if len(path) > _DEEPEST:
            self.problems.append(Problem(position, path[:1], _TOO_DEEP))
            return
        value = parse(text, position.source, environment, path)
        self.problems += [Problem(position, problem.path, problem.message) for problem in value.problems]
        for size in range(len(path)):
            self.positions.setdefault(path[:size], position)
        parent = self._mapping_at(path[:-1])
        if parent is None:
            return
        parent[path[-1]] = value.tree
        stale = [known for known in self.positions if known[: len(path)] == path]
        for known in stale:
            del self.positions[known]
        self.positions.update(dict.fromkeys(value.positions, position))

    def _mapping_at(self, path: TreePath) -> dict[str | int, Any] | None:
        """The mapping at ``path``, made if nothing is there; anything else there is a problem."""
        if self.tree is None:
            self.tree = {}
        mapping: dict[str | int, Any] = {}
        here = self.tree
        for size in range(len(path) + 1):
            if not isinstance(here, dict):
                self.problems.append(Problem(Position("--set"), path[:size], "is no mapping; set it as a whole"))
                return None
            mapping = here
            if size < len(path):
                if mapping.get(path[size]) is None:
                    mapping[path[size]] = {}
                here = mapping[path[size]]
        return mapping


def read(path: Path, environment: Mapping[str, str]) -> Document:
    """Read and parse a file; raises ConfigurationError if it cannot be read, or is not UTF-8 or not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError([Problem(Position(str(path)), (), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start})"
        raise ConfigurationError([Problem(Position(str(path)), (), message)]) from error
    document = parse(text, str(path), environment)
    if not document.contains(()):
        raise ConfigurationError(document.problems)
    return document


def parse(
    text: str,
    source: str,
    environment: Mapping[str, str],
    prefix: TreePath = (),
    including: tuple[str, ...] = (),
) -> Document:
    """Parse YAML whose root stands at ``prefix``. Text that is not YAML gives a document without positions. including: the
    files that this text is a part of."""
    document = Document(None, {})
    try:
        # The base loader resolves no types and constructs nothing: any tag is harmless text until judged here.
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        document.problems.append(Problem(Position(source, line), prefix, f"not valid YAML: {error.problem}"))
        return document
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        document.problems.append(Problem(Position(source, line), prefix, message))
        return document
    except RecursionError:
        document.problems.append(Problem(Position(source), prefix, _TOO_DEEP))
        return document
    document.positions[prefix] = Position(source, 1)
    if node is not None:
        document.tree = _Construction(document, source, environment, (*including, source)).value(node, prefix, ())
    if len(document.positions) > _MOST_VALUES:  # whatever else is wrong with them
        message = f"has more than {_MOST_VALUES} values; mind aliases of aliases"
        return Document(None, {}, [Problem(Position(source), (), message)])
    return document


class _Construction:
    """Turns the nodes of one text into values."""

    def __init__(
        self, document: Document, source: str, environment: Mapping[str, str], including: tuple[str, ...]
    ) -> None:
        self._document = document
        self._source = source
        self._environment = environment
        self._including = including

    def value(self, node: yaml.Node, path: TreePath, ancestors: tuple[yaml.Node, ...]) -> Any:
        """The value of a node. ancestors: the collections it stands in, to find an alias to one of them."""
        if node.tag not in _TEXT_TAGS:
            self._report(node, path, f'the tag "{node.tag}" is not supported')
        elif any(node is ancestor for ancestor in ancestors):
            self._report(node, path, "is an alias of something it stands in itself")
        elif len(ancestors) > _DEEPEST:
            self._report(node, path, _TOO_DEEP)
        elif len(self._document.positions) > _MOST_VALUES:  # which is said at the end
            return None
        elif isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        elif isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, index), (*ancestors, node)) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, (*ancestors, node))
        return None

    def _item(self, node: yaml.Node, path: TreePath, ancestors: tuple[yaml.Node, ...]) -> Any:
        self._document.positions[path] = self._position(node)
        return self.value(node, path, ancestors)

    def _mapping(self, node: yaml.MappingNode, path: TreePath, ancestors: tuple[yaml.Node, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, content in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._report(key, path, "a key must be plain text")
                continue
            here = (*path, key.value)
            if key.value in mapping:
                first = self._document.positions[here].line
                self._report(key, here, f"duplicate key; it is on line {first} already")
                continue
            self._document.positions[here] = self._position(key)
            mapping[key.value] = self.value(content, here, ancestors)
        return mapping

    def _scalar(self, node: yaml.ScalarNode, path: TreePath) -> Any:
        whole = _FILE.fullmatch(node.value)
        if whole is not None and not node.style:
            return self._included(whole["name"], node, path)
        text = _REFERENCE.sub(lambda match: self._replace(match, node, path), node.value)
        return text if node.style else _resolve(text)

    def _replace(self, match: re.Match[str], node: yaml.Node, path: TreePath) -> str:
        if match["dollar"]:
            return "$"
        if match["reference"].startswith("file:"):
            return (self._content(match["reference"].removeprefix("file:"), node, path) or "").rstrip("\r\n")
        variable = _VARIABLE.fullmatch(match["reference"])
        if variable is None:
            known = "${env:NAME}, ${env:NAME:-default} or ${file:PATH}"
            self._report(node, path, f'"{match[0]}" is not {known}; a plain $ is $$')
            return ""
        # Like the shell's ":-": an empty variable counts as not set.
        value = self._environment.get(variable["name"]) or variable["default"]
        if value is None and variable["name"] not in self._environment:
            message = f"the environment variable {variable['name']} is not set; a default is ${{env:NAME:-default}}"
            self._report(node, path, message)
        return value or ""

    def _included(self, name: str, node: yaml.Node, path: TreePath) -> Any:
        """What a file says, which stands for the whole value."""
        if name in self._including:
            self._report(node, path, f"{name} includes itself")
            return None
        text = self._content(name, node, path)
        if text is None:
            return None
        included = parse(text, name, self._environment, path, self._including)
        self._document.problems += included.problems
        self._document.positions.update({known: at for known, at in included.positions.items() if known != path})
        return included.tree

    def _content(self, name: str, node: yaml.Node, path: TreePath) -> str | None:
        try:
            return Path(name).read_text(encoding="utf-8")
        except OSError as error:
            self._report(node, path, f"{name} cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            self._report(node, path, f"{name} is not UTF-8 text (byte {error.start})")
        except ValueError as error:  # a zero byte
            self._report(node, path, f"{name} cannot be read: {error}")
        return None

    def _position(self, node: yaml.Node) -> Position:
        return Position(self._source, node.start_mark.line + 1)

    def _report(self, node: yaml.Node, path: TreePath, message: str) -> None:
        self._document.problems.append(Problem(self._position(node), path, message))


def _resolve(text: str) -> Any:
    """A plain scalar by YAML 1.2.2, 10.3.2 (core schema)."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
