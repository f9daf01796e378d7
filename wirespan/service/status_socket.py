"""How ``wirespan status`` reaches a running agent: a Unix socket that says everything to whoever connects, and reads nothing.

Its name is abstract (unix(7)), so it needs no folder that can be written, and is gone with the process however that ends. The
kernel tells both ends who the other is: the agent answers its own user and root, and a client that is not root believes no
others. Such names belong to a network namespace: in a container with its own, ask in there.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread
from typing import Any, Final

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"@(wirespan/status/(\d+)-[0-9a-f]+)$", re.MULTILINE)
_ROOT: Final = 0
#: pid, uid and gid of the other end (unix(7), SO_PEERCRED)
_CREDENTIALS: Final = struct.Struct("iII")
#: one client is answered at a time, and has so long to read
_CLIENT_SECONDS: Final = 5.0
_BACKLOG: Final = 8
#: what a client waits for, and takes, at most
_ANSWER_SECONDS: Final = 15.0
_ANSWER_BYTES: Final = 64 << 20


class NotAnswered(Exception):
    """An agent did not say anything. The message says why, for the user."""


class StatusSocket:
    """Answers from construction to ``stop``. read: what is said, JSON; it is given what waits, but not beyond the end."""

    def __init__(self, read: Callable[[Callable[[float], object]], Any]) -> None:
        self._read = read
        self._stopped = Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # Another pid namespace may have the same pid.
        self._socket.bind(f"\0wirespan/status/{os.getpid()}-{token_hex(4)}")
        self._socket.listen(_BACKLOG)
        self._thread = Thread(target=self._serve, name="status", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # ends an accept that waits
        self._thread.join(_CLIENT_SECONDS)
        self._socket.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._socket.accept()
            except OSError as error:
                if not self._stopped.wait(1.0):  # out of descriptors
                    logger.debug("Nobody can ask for the status", extra={"error": str(error)})
                continue
            with client:
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        if _uid_of(client) not in (_ROOT, os.geteuid()):
            return
        client.settimeout(_CLIENT_SECONDS)
        try:
            client.sendall(json.dumps(self._read(self._stopped.wait)).encode())
        except OSError as error:  # it has left, or does not read
            logger.debug("Nobody took the status", extra={"error": str(error)})
        except Exception:  # a defect here is no reason to stop
            logger.exception("The status could not be told")


def running_agents() -> dict[int, str]:
    """The names of agents' sockets in this network namespace, by pid."""
    return {int(pid): name for name, pid in _NAME.findall(Path("/proc/net/unix").read_text(errors="replace"))}


def ask(name: str) -> dict[str, Any]:
    """What an agent says, and as which user it runs. Raises NotAnswered."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        try:
            agent.settimeout(_ANSWER_SECONDS)
            agent.connect(f"\0{name}")
            uid = _uid_of(agent)
            if uid not in (_ROOT, os.geteuid()) and os.geteuid() != _ROOT:
                raise NotAnswered("it runs as another user; ask as that one or as root")
            answer = _received(agent)
        except OSError as error:
            raise NotAnswered(str(error) or type(error).__name__) from error
    if not answer:
        raise NotAnswered("it runs as another user, or is ending; ask as root")
    return {**json.loads(answer), "uid": uid}


def _received(agent: socket.socket) -> bytes:
    answer, deadline = bytearray(), time.monotonic() + _ANSWER_SECONDS
    while len(answer) < _ANSWER_BYTES and (part := agent.recv(65_536)):
        answer += part
        if time.monotonic() > deadline:
            raise NotAnswered("it takes too long to say everything")
    return bytes(answer)


def _uid_of(connected: socket.socket) -> int:
    """The user of the other end; of a listening one as it was when it began to listen."""
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid
