"""An HTTP client, with or without an OpenTelemetry SDK: ``traced_client.py URL [--sdk] [--exporter URL] …``.

Makes calls from several threads, each with a connection of its own that is kept alive, or with a new one a call. With an
SDK each call is a span of kind CLIENT, which the request's ``traceparent`` names, exported at the end.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import urllib3
from traced import tracing

THREADS = 4
#: seconds: a process that is gone before its exchanges are drained is known by its command's name alone
LOOK_UP = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--sdk", action="store_true")
    parser.add_argument("--exporter", default=None)
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--close", action="store_true")
    arguments = parser.parse_args()
    provider, tracer, propagator = None, None, None
    if arguments.sdk or arguments.exporter:
        provider, tracer, propagator = tracing("client", arguments.exporter, arguments.ratio)
    pool = urllib3.PoolManager(num_pools=1, maxsize=THREADS, block=True, retries=False)

    def call(_: int) -> int:
        headers: dict[str, str] = {"Connection": "close"} if arguments.close else {}
        with span(tracer):
            if propagator is not None:
                propagator.inject(headers)
            return int(pool.request("GET", arguments.url, headers=headers).status)

    with ThreadPoolExecutor(THREADS) as threads:
        statuses = set(threads.map(call, range(arguments.calls)))
    if statuses != {200}:
        raise SystemExit(f"answered with {statuses}")
    time.sleep(LOOK_UP)
    if provider is not None:
        provider.shutdown()


def span(tracer: Any) -> Any:
    if tracer is None:
        return nullcontext()
    from opentelemetry.trace import SpanKind

    return tracer.start_as_current_span("GET", kind=SpanKind.CLIENT)


if __name__ == "__main__":
    main()
