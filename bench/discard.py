"""An OTLP server over gRPC that acknowledges every request and keeps nothing: ``python bench/discard.py PORT``.

It does not look into requests, so that what it costs does not count as the agent's. How many spans arrived is known
from the agent, which counts as exported what was acknowledged.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

_SERVICE, _METHOD = "opentelemetry.proto.collector.trace.v1.TraceService", "Export"


def acknowledge(request: bytes, context: grpc.ServicerContext) -> bytes:
    """An ExportTraceServiceResponse without fields: full success."""
    return b""


def main(port: int) -> None:
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before any thread starts, else one of them takes the signal
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    methods = {_METHOD: grpc.unary_unary_rpc_method_handler(acknowledge)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, methods)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    signal.sigwait(stop)
    server.stop(grace=None).wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
