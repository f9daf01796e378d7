"""Answers each request of 4 bytes with the id of the process that does so, in 4 bytes; ``PORT MODE [EXECUTABLE]``.

alone        one process serves every connection, each in a thread
listening    two processes accept connections from one listening socket
sharing      two processes take turns on one connection, which one of them has inherited
exec         one connection; when the second request is there the process executes EXECUTABLE, which goes on
"""

from __future__ import annotations

import os
import socket
import sys

from accepting import serve_each_in_a_thread


def main() -> None:
    port, mode, *rest = sys.argv[1:]
    if mode == "go-on":
        serve(socket.socket(fileno=int(rest[0])))
        return
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=512)
    if mode == "alone":
        serve_each_in_a_thread(listener, serve)
    elif mode == "listening":
        os.fork()
        while True:
            serve(listener.accept()[0])
    elif mode == "sharing":
        share(first_that_asks(listener))
    elif mode == "exec":
        connection = first_that_asks(listener)
        answer(connection)
        connection.recv(1, socket.MSG_PEEK)
        os.set_inheritable(connection.fileno(), True)
        os.execv(rest[0], [rest[0], __file__, port, "go-on", str(connection.fileno())])


def first_that_asks(listener: socket.socket) -> socket.socket:
    """Others only look whether the port accepts."""
    while True:
        connection, _ = listener.accept()
        if connection.recv(1, socket.MSG_PEEK):
            return connection


def share(connection: socket.socket) -> None:
    """Each process waits for a byte in its pipe, answers once, and wakes the other one."""
    mine, others = os.pipe(), os.pipe()
    if os.fork():
        os.write(mine[1], b".")
    else:
        mine, others = others, mine
    while os.read(mine[0], 1) and answer(connection):
        os.write(others[1], b".")
    os.write(others[1], b".")


def serve(connection: socket.socket) -> None:
    with connection:
        while answer(connection):
            pass


def answer(connection: socket.socket) -> bool:
    """False at the end of the stream."""
    if not connection.recv(4, socket.MSG_WAITALL):
        return False
    connection.sendall(os.getpid().to_bytes(4, "big"))
    return True


if __name__ == "__main__":
    main()
