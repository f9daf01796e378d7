"""Opens many connections to an echo server, makes an exchange on each, and closes all at once.

usage: crowd.py PORT CONNECTIONS
"""

from __future__ import annotations

import resource
import socket
import sys


def main() -> None:
    port, count = int(sys.argv[1]), int(sys.argv[2])
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for connection in connections:
        connection.sendall(b"here")
    for connection in connections:
        assert connection.recv(4, socket.MSG_WAITALL) == b"here"
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main()
