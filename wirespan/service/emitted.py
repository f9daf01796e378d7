"""Unit and description of each metric, from the metadata.yaml files beside the code that emits them.

The same files are the source of docs/telemetry.md, so a dashboard and the page show the same words.
"""

from __future__ import annotations

import os
from importlib.resources import files
from typing import NamedTuple
from uuid import uuid4

import yaml

from .. import __version__

#: of own metrics and logs
SCOPE = "wirespan"

#: folders of the package with a metadata.yaml, in the order of docs/telemetry.md
EMITTERS = (
    "receiver",
    "receiver/otlp",
    "processors",
    "processors/anomaly",
    "processors/k8s_attributes",
    "exporters",
    "extensions",
    "service",
)


def own_resource() -> dict[str, str]:
    """Attributes of the resource of own metrics and logs.

    The instance is this process: two agents on one node, or a restart, must not share cumulative series.
    """
    return {
        "service.name": "wirespan",
        "service.version": __version__,
        "service.instance.id": str(uuid4()),
        "host.name": os.uname().nodename,
    }


class MetricFacts(NamedTuple):
    """unit: UCUM, as instruments want it."""

    unit: str = ""
    description: str = ""


def documented_metrics() -> dict[str, MetricFacts]:
    """The metrics of everything that comes with wirespan, by name; those of plug-ins are not among them."""
    documents = [(files("wirespan") / folder / "metadata.yaml").read_text(encoding="utf-8") for folder in EMITTERS]
    return {
        name: MetricFacts(facts["unit"], facts["description"])
        for document in documents
        for name, facts in yaml.safe_load(document)["metrics"].items()
    }
