"""Rules of Prometheus and dashboards of Grafana in every spelling. ``make alerts`` renews those in deploy/ that are not
written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


if __name__ == "__main__":
    for path, content in generated():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
