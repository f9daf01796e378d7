"""The rules of deploy/prometheus/: promtool takes them and their tests in every spelling, and what they name is emitted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import dashboards
from support.alerting import RULES, generated
from support.availability import need_tool
from support.promql import matchers, names
from support.spellings import SPELLINGS, Spelling, emitted_metrics, metric_of
from support.telemetry_page import metadata
from wirespan.service.emitted import EMITTERS

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "promtool" / "alerts.yaml"

each_spelling = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.strategy)


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([need_tool("promtool"), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def shown() -> list[str]:
    """The queries of all dashboards, as they are written."""
    panels = [panel for source in dashboards.sources().values() for panel in source["panels"]]
    return [query for panel in panels for query in panel["queries"].values()]


def test_what_is_made_of_another_file_is_up_to_date() -> None:
    outdated = [path.name for path, content in generated() if not path.exists() or path.read_text() != content]
    assert outdated == [], "`make alerts` renews them"


@each_spelling
def test_promtool_takes_the_rules(spelling: Spelling) -> None:
    promtool("check", "rules", "--lint-fatal", RULES.with_name(f"{spelling.strategy}.rules.yaml"))


@each_spelling
def test_alerts_fire_when_they_should_and_only_then(spelling: Spelling, tmp_path: Path) -> None:
    (tmp_path / RULES.name).write_text(RULES.with_name(f"{spelling.strategy}.rules.yaml").read_text())
    tests = tmp_path / "tests.yaml"
    tests.write_text(spelling.text(TESTS.read_text()))
    assert "SUCCESS" in promtool("test", "rules", tests)


def test_every_alert_is_tested_and_explained() -> None:
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test.get("alert_rule_test", ())]
    page = (ROOT / "docs" / "alerting.md").read_text()
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires} == alerts
    assert set(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == alerts


def known_attributes() -> dict[str, dict[str, Any]]:
    """Of each metric its attributes, with what is said of their values."""
    exchanges = metadata("receiver")["exchange_metric_attributes"]
    known = {}
    for folder in EMITTERS:
        for section, content in metadata(folder).items():
            if section == "semantic_metrics":
                for name, facts in content.items():
                    known[name] = {key: {} for key in (*facts["attributes"], "le", "otel.metric.overflow")}
            elif section.endswith("metrics"):
                for name, facts in content.items():
                    own = dict(facts.get("attributes", {}), **({"exporter": {}} if "exporters" in facts else {}))
                    known[name] = own if section == "metrics" else {**exchanges, **own}
    return known


RESOURCE = {"job", "instance"}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize("expression", [rule["expr"] for rule in rules()] + shown())
def test_what_an_expression_names_is_emitted(expression: str) -> None:
    known = known_attributes()
    attributes = {"host.name", *RESOURCE}
    for written, matched in matchers(expression):
        metric = metric_of(written)
        assert metric in emitted_metrics(), metric
        attributes |= known[metric].keys()
        for label, values in matched:
            assert label in known[metric].keys() | RESOURCE, f"{label} of {metric}"
            said = known[metric].get(label, {}).get("values")
            if said and label != "error.type":
                assert all(any(re.fullmatch(value, one) for one in said) for value in values if "$" not in value)
    rest = names(expression)
    assert rest.metrics <= RECORDED | {"target_info"}
    if not rest.metrics - {"target_info"}:
        assert rest.labels <= attributes


@each_spelling
def test_promtool_takes_every_query_of_the_dashboards(spelling: Spelling, tmp_path: Path) -> None:
    queries = [spelling.text(query).replace("$__rate_interval", "5m") for query in shown()]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_promtool_takes_the_shipped_configuration() -> None:
    path = RULES.with_name("prometheus.yaml")
    promtool("check", "config", path)
    named = yaml.safe_load(path.read_text())
    assert named["rule_files"] == [f"{named['otlp']['translation_strategy']}.rules.yaml"]


@each_spelling
def test_the_page_spells_names_as_the_rules_do(spelling: Spelling) -> None:
    name = spelling.text("""{"wirespan.exchange.io", "server.port"='80'}""")
    assert f"| `{spelling.strategy}` | `{name}` |" in (ROOT / "docs" / "alerting.md").read_text()
