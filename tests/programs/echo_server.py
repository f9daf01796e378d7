"""Sends back what it reads, on as many connections as the machine allows: one thread, level-triggered epoll."""

from __future__ import annotations

import resource
import select
import socket
import sys


def main() -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=16_384)
    connections: dict[int, socket.socket] = {}
    poll = select.epoll()
    poll.register(server, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == server.fileno():
                connection, _ = server.accept()
                connections[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
            elif not echo(connections[descriptor]):
                connections.pop(descriptor).close()


def echo(connection: socket.socket) -> bool:
    """False at the end of the stream, in order or not."""
    try:
        data = connection.recv(65_536)
        connection.sendall(data)
    except ConnectionError:
        return False
    return bool(data)


if __name__ == "__main__":
    main()
