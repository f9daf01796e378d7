"""Answers each request of 4 bytes with the id of the process that does so, in 4 bytes; ``PORT MODE [EXECUTABLE]``.

alone        one process serves every connection, each in a thread
listening    two processes accept connections from one listening socket
sharing      two processes take turns on one connection, which one of them has inherited
exec         one connection; when the second request is there the process executes EXECUTABLE, which goes on
exec-half    the same when it has read 2 bytes of that request
exec-unanswered  the same when it has read all of it
"""

from __future__ import annotations

import os
import socket
import sys

from accepting import serve_each_in_a_thread

READ_BEFORE_EXEC = {"exec": 0, "exec-half": 2, "exec-unanswered": 4}


def main() -> None:
    port, mode, *rest = sys.argv[1:]
    if mode == "go-on":
        connection, read = socket.socket(fileno=int(rest[0])), int(rest[1])
        answer(connection, 4 - read)
        serve(connection)
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
    else:
        become_another(first_that_asks(listener), READ_BEFORE_EXEC[mode], rest[0])


def first_that_asks(listener: socket.socket) -> socket.socket:
    """Others only look whether the port accepts."""
    while True:
        connection, _ = listener.accept()
        if connection.recv(1, socket.MSG_PEEK):
            return connection


def become_another(connection: socket.socket, read: int, executable: str) -> None:
    """read: bytes of the second request that this program image has read."""
    answer(connection)
    connection.recv(1, socket.MSG_PEEK)
    if read:
        connection.recv(read, socket.MSG_WAITALL)
    os.set_inheritable(connection.fileno(), True)
    os.execv(executable, [executable, __file__, "0", "go-on", str(connection.fileno()), str(read)])


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


def answer(connection: socket.socket, unread: int = 4) -> bool:
    """False at the end of the stream. unread: bytes of the request."""
    if unread and not connection.recv(unread, socket.MSG_WAITALL):
        return False
    connection.sendall(os.getpid().to_bytes(4, "big"))
    return True


if __name__ == "__main__":
    main()
