"""gRPC without its own lines on stderr.

Its C core writes about each failed TLS handshake, in a format of its own and in spite of the log level. The failed call
says the same, and that is logged. The variable is read when grpc is imported, so this comes first; a value that the user
has set stands.
"""

from __future__ import annotations

import os


def silence_grpc() -> None:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
