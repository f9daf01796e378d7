"""Asks the ``pid_server.py`` at this port over one connection, about so many times a second."""

from __future__ import annotations

import socket
import sys
import time

BATCH = 0.02


def main() -> None:
    port, rate = int(sys.argv[1]), float(sys.argv[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        due = time.monotonic()
        while True:
            for _ in range(round(rate * BATCH)):
                connection.sendall(b"who?")
                connection.recv(4)
            due = max(due + BATCH, time.monotonic() - BATCH)
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
