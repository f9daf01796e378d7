"""An HTTP server, with or without an OpenTelemetry SDK: ``traced_server.py PORT [--sdk] [--exporter URL]``.

With an SDK every request is a span of kind SERVER in the trace that its headers name. ``--sdk`` alone leaves it to the
environment where spans are exported to, ``--exporter`` sets it in code.
"""

from __future__ import annotations

import argparse
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from traced import tracing


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body are one write, else the second one waits for an acknowledgment
    tracer: Any = None
    propagator: Any = None

    def do_GET(self) -> None:
        if self.tracer is None:
            self._answer()
            return
        from opentelemetry.trace import SpanKind

        context = self.propagator.extract(dict(self.headers.items()))
        with self.tracer.start_as_current_span("GET", context, SpanKind.SERVER):
            self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--sdk", action="store_true")
    parser.add_argument("--exporter", default=None)
    parser.add_argument("--address", default="127.0.0.1")
    arguments = parser.parse_args()
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    provider, Handler.tracer, Handler.propagator = None, None, None
    if arguments.sdk or arguments.exporter:
        provider, Handler.tracer, Handler.propagator = tracing("server", arguments.exporter)
    server = Server((arguments.address, arguments.port), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    signal.sigwait(stop)
    if provider is not None:
        provider.shutdown()


if __name__ == "__main__":
    main()
