"""A real Prometheus 3 takes the metrics by OTLP, in each of its translation strategies: names are as the rules and
dashboards have them, every panel shows something, and alerts fire."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from support import servers
from support.alerting import DEPLOY, RULES, impatient
from support.dashboards import expressions
from support.emitting import INTERVAL, everything
from support.prometheus_query import alerts, metric_names, query, rule_problems, send, value
from support.servers import Prometheus
from support.spellings import HISTOGRAM_PARTS, SPELLINGS, Spelling, emitted_metrics
from support.waiting import wait_until

pytestmark = pytest.mark.requires_tool("prometheus")

#: of the history that is sent
MINUTES = 16
#: node-2 is heard of until so many minutes ago; after 5 Prometheus takes nothing for current
SILENT = 7


@dataclass(frozen=True)
class Run:
    spelling: Spelling
    prometheus: Prometheus


@pytest.fixture(scope="module", params=SPELLINGS, ids=lambda spelling: spelling.strategy)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """With a history of everything, of two nodes one of which is not heard of any more."""
    spelling: Spelling = request.param
    folder = tmp_path_factory.mktemp(spelling.strategy)
    with servers.prometheus(folder, impatient(spelling.strategy, folder)) as prometheus:
        now = int(time.time())
        for before in range(MINUTES * 60, -1, -INTERVAL):
            send(prometheus, everything(now - before, MINUTES * 60 - before, "node-1", "one"))
            if before >= SILENT * 60:
                send(prometheus, everything(now - before, MINUTES * 60 - before, "node-2", "two"))
        yield Run(spelling, prometheus)


def test_prometheus_spells_names_as_the_rules_do(run: Run) -> None:
    names = {
        run.spelling.metric(f"{name}{part}")
        for name, facts in emitted_metrics().items()
        for part in ([f"_{part}" for part in HISTOGRAM_PARTS] if facts.type == "histogram" else [""])
    }
    found = {name for name in metric_names(run.prometheus) if not name.startswith(("service:", "instance:", "ALERTS"))}
    assert found == names | {"target_info"}


def test_every_panel_shows_something(run: Run) -> None:
    for path in sorted((DEPLOY / "grafana" / run.spelling.strategy).glob("*.json")):
        for title, expression in expressions(json.loads(path.read_text())):
            asked = expression.replace("$__rate_interval", "5m")
            asked = asked.replace("$job", ".+").replace("$kind", "SPAN_KIND_SERVER")
            found = query(run.prometheus, asked)
            assert found, f"{path.stem}, {title}: {expression}"
            assert all(sample.value is None or not math.isnan(sample.value) for sample in found), title


def test_alerts_fire_for_what_is_wrong(run: Run) -> None:
    """All but that of latency, which wants to know a service for two hours."""
    documented = {rule["alert"] for rule in all_rules() if "alert" in rule}
    wait_until(
        "every alert",
        lambda: {one["labels"]["alertname"] for one in alerts(run.prometheus)} >= documented - {"WirespanLatency"},
    )
    assert rule_problems(run.prometheus) == []
    firing: dict[str, list[dict[str, str]]] = {}
    for alert in alerts(run.prometheus):
        firing.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
    assert firing.keys() == documented - {"WirespanLatency"}
    host, port, kind = (run.spelling.label(name) for name in ("host.name", "server.port", "span.kind"))
    assert [labels[host] for labels in firing["WirespanAgentDown"]] == ["node-2"]
    assert [labels[host] for labels in firing["WirespanLosingData"]] == ["node-1"]
    assert {labels[port] for labels in firing["WirespanConnectFailures"]} == {"80"}
    assert {labels[kind] for labels in firing["WirespanErrorRate"]} == {"SPAN_KIND_SERVER", "SPAN_KIND_CLIENT"}


def all_rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_what_was_counted_before_the_first_look_is_in_the_rates(run: Run) -> None:
    """One exchange a second for five minutes, of which Prometheus hears in the last half minute."""
    now = int(time.time())
    for before in (30, 15, 0):
        send(run.prometheus, everything(now - before, 300 - before, "node-3", "three"))
    expression = """histogram_count(increase({"wirespan.exchange.queue.duration", instance='three-shop'}[10m]))"""
    assert value(run.prometheus, run.spelling.text(expression)) == pytest.approx(300, rel=0.05)
