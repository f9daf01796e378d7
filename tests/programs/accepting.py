"""What the servers of this folder that use threads have in common."""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Thread


def serve_each_in_a_thread(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    """Until the process ends."""
    while True:
        connection, _ = server.accept()
        Thread(target=serve, args=(connection,), daemon=True).start()
