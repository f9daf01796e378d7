"""Works as long as it is asked to, and answers how long that was by its own clock.

A request is a number of microseconds in 4 bytes, a response the nanoseconds in 8, both big-endian.
"""

from __future__ import annotations

import socket
import sys
import time
from threading import Thread


def main() -> None:
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        connection, _ = server.accept()
        Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection: socket.socket) -> None:
    with connection:
        while request := connection.recv(4, socket.MSG_WAITALL):
            began = time.monotonic_ns()
            time.sleep(int.from_bytes(request, "big") / 1e6)
            connection.sendall((time.monotonic_ns() - began).to_bytes(8, "big"))


if __name__ == "__main__":
    main()
