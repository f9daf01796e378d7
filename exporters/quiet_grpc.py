"""grpc, imported once it is told to be quiet."""

from __future__ import annotations

from ..pipeline.quiet import silence_grpc

silence_grpc()

import grpc as grpc  # noqa: E402
