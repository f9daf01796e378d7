"""Answers one byte with many, by one ``sendfile`` or one blocking ``write``; prints when that began and ended.

usage: large_server.py PORT SIZE sendfile|write
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time


def main() -> None:
    port, size, way = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    file = os.memfd_create("response")
    os.ftruncate(file, size)
    content = bytes(size)
    server = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = server.accept()
        with connection:
            if not connection.recv(1):
                continue
            began = time.time_ns()
            if way == "sendfile":
                sent = os.sendfile(connection.fileno(), file, 0, size)
            else:
                sent = os.write(connection.fileno(), content)
            ended = time.time_ns()
            print(json.dumps({"began": began, "ended": ended, "sent": sent}), flush=True)


if __name__ == "__main__":
    main()
