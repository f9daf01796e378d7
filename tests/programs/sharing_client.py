"""Asks a server of ``pid_server.py`` over one connection, on which this process and a child of it take turns; ``PORT
REQUESTS`` of each. Begins with a line on its stdin, and ends with that."""

from __future__ import annotations

import os
import socket
import sys


def main() -> None:
    port, requests = map(int, sys.argv[1:])
    sys.stdin.readline()
    connection = socket.create_connection(("127.0.0.1", port))
    mine, others = os.pipe(), os.pipe()
    if os.fork():
        os.write(mine[1], b".")
    else:
        mine, others = others, mine
    for _ in range(requests):
        os.read(mine[0], 1)
        connection.sendall(b"who?")
        connection.recv(4, socket.MSG_WAITALL)
        os.write(others[1], b".")
    sys.stdin.read()


if __name__ == "__main__":
    main()
