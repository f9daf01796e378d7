"""Processes of their own that do as a test tells them: the receiver leaves out the sockets of the process that it runs in."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_FORK = multiprocessing.get_context("fork")
_PATIENCE = 20.0


class Puppet:
    """Runs functions of modules, one after another. Each gets the puppet's list of sockets, to keep some from one to the
    next. It is in the network namespace of the thread that made it."""

    def __init__(self) -> None:
        self._connection, other = _FORK.Pipe()
        self._process = _FORK.Process(target=_obey, args=(other,), daemon=True)
        self._process.start()
        other.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def run(
        self, function: Callable[Concatenate[list[socket.socket], P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:
        """What the function returns; what it raises is raised here."""
        self.begin(function, *arguments, **named)
        return self.end()  # type: ignore[no-any-return]

    def begin(
        self, function: Callable[Concatenate[list[socket.socket], P], Any], *arguments: P.args, **named: P.kwargs
    ) -> None:
        """Without waiting for it."""
        self._connection.send((function, arguments, named))

    def end(self) -> Any:
        """Of what was begun, as run()."""
        if not self._connection.poll(_PATIENCE):
            raise AssertionError("a puppet does not return")
        returned, error = self._connection.recv()
        if error is not None:
            raise error
        return returned

    def __enter__(self) -> Puppet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()  # with all that it has open
        self._process.join()
        self._connection.close()


def _obey(connection: Connection) -> None:
    sockets: list[socket.socket] = []
    while True:
        try:
            function, arguments, named = connection.recv()
        except EOFError:
            return
        try:
            answer: tuple[Any, Exception | None] = function(sockets, *arguments, **named), None
        except Exception as error:
            answer = None, error
        connection.send(answer)
