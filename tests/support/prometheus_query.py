"""What Prometheus answers when it is asked, and how it is sent metrics by OTLP."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from support.servers import Prometheus


@dataclass(frozen=True)
class Sample:
    """labels: with ``__name__`` where there is one. value: None of a native histogram."""

    labels: Mapping[str, str]
    value: float | None


def query(prometheus: Prometheus, expression: str) -> list[Sample]:
    """The answer to an instant query, now. AssertionError with its words if Prometheus refuses it, or warns."""
    answer = _asked(prometheus, "query", query=expression)
    assert not answer.get("warnings"), f"{expression}: {answer['warnings']}"
    data = answer["data"]
    if data["resultType"] == "scalar":
        return [Sample({}, float(data["result"][1]))]
    return [Sample(one["metric"], float(one["value"][1]) if "value" in one else None) for one in data["result"]]


def value(prometheus: Prometheus, expression: str) -> float:
    """Of a query that has one number as its answer."""
    (sample,) = query(prometheus, expression)
    assert sample.value is not None
    return sample.value


@dataclass(frozen=True)
class StoredExemplar:
    """series: labels of whose it is. labels: of its own."""

    series: Mapping[str, str]
    labels: Mapping[str, str]
    value: float


def exemplars(prometheus: Prometheus, expression: str) -> list[StoredExemplar]:
    """Those of the last minutes."""
    now = time.time()
    found = _asked(prometheus, "query_exemplars", query=expression, start=str(now - 600), end=str(now + 60))["data"]
    return [
        StoredExemplar(one["seriesLabels"], exemplar["labels"], float(exemplar["value"]))
        for one in found
        for exemplar in one["exemplars"]
    ]


def metric_names(prometheus: Prometheus) -> set[str]:
    return set(_asked(prometheus, "label/__name__/values")["data"])


def alerts(prometheus: Prometheus, state: str = "firing") -> list[dict[str, Any]]:
    """Those in a state: ``labels``, ``annotations``, ``value``."""
    return [alert for alert in _asked(prometheus, "alerts")["data"]["alerts"] if alert["state"] == state]


def rule_problems(prometheus: Prometheus) -> list[str]:
    """What failed when the rules were evaluated last."""
    groups = _asked(prometheus, "rules")["data"]["groups"]
    return [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")]


def send(prometheus: Prometheus, request: bytes) -> None:
    """An ExportMetricsServiceRequest. AssertionError if not all of it was taken."""
    headers = {"Content-Type": "application/x-protobuf"}
    url = f"{prometheus.otlp_endpoint}/v1/metrics"
    with urllib.request.urlopen(urllib.request.Request(url, request, headers), timeout=20) as response:
        assert response.status == 200, response.read()


def _asked(prometheus: Prometheus, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{prometheus.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode(errors='replace')}") from None
