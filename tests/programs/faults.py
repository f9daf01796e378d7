"""What clients of a busy machine do besides asking and waiting for the answer, each many times, to an echo server.

usage: faults.py PORT ROUNDS
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable

MESSAGE = b"are you there?" * 20
#: l_onoff, l_linger of struct linger: close() discards what is queued and resets
RESETS = struct.pack("ii", 1, 0)


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(MESSAGE)
    return connection


def comes_and_goes(port: int) -> None:
    with connected(port) as connection:
        connection.recv(len(MESSAGE), socket.MSG_WAITALL)


def closes_its_half(port: int) -> None:
    with connected(port) as connection:
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


def resets_before_the_answer(port: int) -> None:
    with connected(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)


def resets_within_the_answer(port: int) -> None:
    with connected(port) as connection:
        connection.recv(5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)


def leaves_without_a_word(port: int) -> None:
    socket.create_connection(("127.0.0.1", port)).close()


def is_refused(port: int) -> None:
    """By a port that is taken, so by nobody else's server, and does not listen."""
    with socket.socket() as deaf, socket.socket() as connection:
        deaf.bind(("127.0.0.1", 0))
        assert connection.connect_ex(deaf.getsockname()) != 0


FAULTS: tuple[Callable[[int], None], ...] = (
    comes_and_goes,
    closes_its_half,
    resets_before_the_answer,
    resets_within_the_answer,
    leaves_without_a_word,
    is_refused,
)


def main() -> None:
    port, rounds = int(sys.argv[1]), int(sys.argv[2])
    for _ in range(rounds):
        for fault in FAULTS:
            fault(port)


if __name__ == "__main__":
    main()
