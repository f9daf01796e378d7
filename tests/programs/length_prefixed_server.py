"""A binary protocol: each message is 4 bytes of length and that many of content.

A request's content begins with the length of the wanted response in 4 bytes. All numbers are big-endian.
"""

from __future__ import annotations

import socket
import sys

from accepting import serve_each_in_a_thread


def main() -> None:
    serve_each_in_a_thread(socket.create_server(("127.0.0.1", int(sys.argv[1]))), serve)


def serve(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while header := connection.recv(4, socket.MSG_WAITALL):
            request = connection.recv(int.from_bytes(header, "big"), socket.MSG_WAITALL)
            connection.sendall(request[:4])
            connection.sendall(bytes(int.from_bytes(request[:4], "big")))


if __name__ == "__main__":
    main()
