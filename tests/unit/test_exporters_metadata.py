"""exporters/metadata.yaml says what the exporters really count."""

from __future__ import annotations

import os
import pty
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.metric_batches import points_of
from support.otlp_batches import batch_of
from wirespan.extensions.file_storage.extension import FileStorage, FileStorageSettings
from wirespan.pipeline.component import Context, Factory
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.service.registry import Registry

EXPORTERS = {
    "otlp_grpc": {"endpoint": "http://127.0.0.1:1", "sending_queue": {"queue_size": 3}},
    "otlp_http": {"endpoint": "http://127.0.0.1:1", "sending_queue": {"queue_size": 3}},
    "debug": {},
    "file": {},
    "terminal": {},
}
#: those whose queue can be stored
STORED = ("otlp_grpc", "otlp_http")


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_metric_an_exporter_emits_is_documented_for_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "terminal":
        _, slave = pty.openpty()
        monkeypatch.setattr(sys, "stdout", os.fdopen(slave, "w"))
        monkeypatch.setenv("TERM", "xterm")
    documented = yaml.safe_load((files("wirespan") / "exporters" / "metadata.yaml").read_text())["metrics"]
    own = {metric: facts["type"] for metric, facts in documented.items() if name in facts["exporters"]}
    factory, counters = Registry().find("exporter", name), Counters()
    assert factory is not None
    settings = EXPORTERS[name] | ({"path": str(tmp_path / "spans.jsonl")} if name == "file" else {})
    context = Context(name, counters, factory.signals)
    exporter = factory.create(factory.config.model_validate(settings), context)
    exporter.start()
    for _ in range(2):
        consume_all(exporter, context)
    exporter.shutdown(time.monotonic())
    consume_all(exporter, context)
    if name in STORED:
        run_with_storage(factory, counters, tmp_path)
    emitted = {key[0]: "sum" for key in counters.snapshot()} | {key[0]: "gauge" for key in counters.gauges()}
    assert emitted.items() <= own.items()
    unacknowledged = {f"otelcol_exporter_sent_{items}" for items in ("spans", "metric_points", "log_records")}
    assert own.keys() - emitted.keys() <= unacknowledged


def run_with_storage(factory: Factory, counters: Counters, folder: Path) -> None:
    """Twice, so that the second sends what the first has kept."""
    storage = FileStorage(FileStorageSettings(directory=str(folder)), Context("file_storage", Counters()))
    settings = {"endpoint": "http://127.0.0.1:1", "sending_queue": {"storage": "file_storage"}}
    for _ in range(2):
        context = Context(factory.name, counters, factory.signals, extensions={"file_storage": storage})
        exporter = factory.create(factory.config.model_validate(settings), context)
        exporter.start()
        consume_all(exporter, context)
        exporter.shutdown(time.monotonic())


def consume_all(exporter: Any, context: Context) -> None:
    exporter.consume(batch_of(1))
    for batch in (points_of(1), EncodedBatch("logs", b"", 1)):
        if batch.signal in context.signals:
            exporter.consume_encoded(batch)
