"""Rules of Prometheus and dashboards of Grafana in every spelling. ``make alerts`` renews those in deploy/ that are not
written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support.dashboards import dashboards
from support.spellings import SPELLINGS

DEPLOY = Path(__file__).parents[2] / "deploy"
#: written by hand, in OpenTelemetry's own names
RULES = DEPLOY / "prometheus" / "NoTranslation.rules.yaml"


def generated() -> Iterator[tuple[Path, str]]:
    """Each file that is made of another, and what has to be in it."""
    for spelling in SPELLINGS:
        rules = RULES.with_name(f"{spelling.strategy}.rules.yaml")
        if rules != RULES:
            yield rules, spelling.text(RULES.read_text())
        for name, dashboard in dashboards(spelling):
            yield DEPLOY / "grafana" / spelling.strategy / f"{name}.json", dashboard


def impatient(strategy: str, folder: Path) -> dict[str, Any]:
    """The shipped configuration of Prometheus with rules that wait for nothing, as promtool's tests have waited: without
    ``for`` and ``interval``, evaluated every second. folder: where they are written to."""
    loaded = yaml.safe_load(RULES.with_name(f"{strategy}.rules.yaml").read_text())
    for group in loaded["groups"]:
        del group["interval"]
        for rule in group["rules"]:
            rule.pop("for", None)
    rules = folder / "impatient.rules.yaml"
    rules.write_text(yaml.safe_dump(loaded))
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    otlp = {**shipped["otlp"], "translation_strategy": strategy}
    return {**shipped, "otlp": otlp, "rule_files": [str(rules)], "global": {"evaluation_interval": "1s"}}


if __name__ == "__main__":
    for path, content in generated():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
