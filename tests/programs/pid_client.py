"""Asks servers of ``pid_server.py`` at these ports: for each line ``CONNECTIONS REQUESTS`` on stdin so many requests over
each of so many new connections to each port, or, if these are 0, over those that there are; prints which process answered
how often, as JSON."""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter


def main() -> None:
    ports = [int(word) for word in sys.argv[1:]]
    connections: list[socket.socket] = []
    for line in sys.stdin:
        count, requests = map(int, line.split())
        if count:
            for connection in connections:
                connection.close()
            connections = [socket.create_connection(("127.0.0.1", port)) for port in ports for _ in range(count)]
        answers = Counter(ask(connection) for _ in range(requests) for connection in connections)
        print(json.dumps(answers), flush=True)


def ask(connection: socket.socket) -> int:
    connection.sendall(b"who?")
    return int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")


if __name__ == "__main__":
    main()
