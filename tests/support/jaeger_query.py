"""What Jaeger answers when it is asked for spans."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request

from support.spans import Span, from_json

#: Jaeger's own notes about a span, beside the attributes it was given.
JAEGER_NOTES = "@jaeger@"


def query_jaeger(query_port: int, service: str) -> list[Span]:
    """All spans of the last and the next hour of a service, from Jaeger's query API.

    Version 3 of that API answers in OTLP, so times are whole nanoseconds and attributes have their types; the older
    ``/api/traces`` rounds to microseconds.
    """
    parameters = {
        "query.service_name": service,
        "query.start_time_min": _rfc3339(time.time() - 3600),
        "query.start_time_max": _rfc3339(time.time() + 3600),
        "query.num_traces": "50000",
    }
    url = f"http://127.0.0.1:{query_port}/api/v3/traces?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == 404:  # no trace found
            return []
        raise
    spans = list(from_json(answer["result"]))
    for span in spans:
        span["attributes"] = {
            key: value for key, value in span["attributes"].items() if not key.startswith(JAEGER_NOTES)
        }
    return spans


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
