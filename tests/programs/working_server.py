"""Works as long as it is asked to, and answers when that began and ended.

A request is a number of microseconds in 4 bytes. A response is two times of CLOCK_MONOTONIC, which all processes of a
machine share, in nanoseconds and 8 bytes each. All numbers are big-endian.
"""

from __future__ import annotations

import socket
import sys
import time

from accepting import serve_each_in_a_thread


def main() -> None:
    serve_each_in_a_thread(socket.create_server(("127.0.0.1", int(sys.argv[1]))), serve)


def serve(connection: socket.socket) -> None:
    with connection:
        while request := connection.recv(4, socket.MSG_WAITALL):
            began = time.monotonic_ns()
            time.sleep(int.from_bytes(request, "big") / 1e6)
            ended = time.monotonic_ns()
            connection.sendall(began.to_bytes(8, "big") + ended.to_bytes(8, "big"))


if __name__ == "__main__":
    main()
