"""Answers each request of 4 bytes with the id of the process that read it, in 4 bytes; ``PORT MODE``.

forking      a child for each connection, which the parent closes
passing      a request is answered, then the connection goes to another process over a Unix socket, and back, and so on
reuse-port   two processes accept, each from a socket of its own that is bound to the same port
duplicating  each request is read from a new duplicate of the descriptor, and answered on another
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

from pid_server import answer, first_that_asks, serve


def main() -> None:
    port, mode = int(sys.argv[1]), sys.argv[2]
    if mode == "reuse-port" and not os.fork():
        end_with_parent()
    listener = socket.create_server(("127.0.0.1", port), backlog=512, reuse_port=mode == "reuse-port")
    if mode == "reuse-port":
        while True:
            serve(listener.accept()[0])
    elif mode == "forking":
        fork_for_each(listener)
    elif mode == "passing":
        pass_to_and_fro(first_that_asks(listener))
    elif mode == "duplicating":
        duplicate(first_that_asks(listener))


def end_with_parent() -> None:
    """PR_SET_PDEATHSIG of prctl(2)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def fork_for_each(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            serve(connection)
            return
        connection.close()


def pass_to_and_fro(connection: socket.socket) -> None:
    """Who has passed it on keeps no descriptor of it."""
    mine, others = socket.socketpair()
    if not os.fork():
        connection.close()  # as inherited
        mine, others = others, mine
        connection = receive(mine)
    others.close()
    while answer(connection):
        socket.send_fds(mine, [b"."], [connection.fileno()])
        connection.close()
        connection = receive(mine)


def receive(other: socket.socket) -> socket.socket:
    _, descriptors, _, _ = socket.recv_fds(other, 1, 1)
    if not descriptors:
        sys.exit()
    return socket.socket(fileno=descriptors[0])


def duplicate(connection: socket.socket) -> None:
    while True:
        first, second = connection.dup(), connection.dup()
        connection.close()
        connection = second
        with first:
            if not first.recv(4, socket.MSG_WAITALL):
                return
        connection.sendall(os.getpid().to_bytes(4, "big"))


if __name__ == "__main__":
    main()
