"""Fixtures of the tests of exporters and of the state machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import pytest

from sink import Sink
from support import state_machine
from support.exporting import PROTOCOLS, QUICK_RETRY, Running, Start
from wirespan.pipeline.component import ALL_SIGNALS, Context
from wirespan.pipeline.counters import Counters


@pytest.fixture
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as listening:
        yield listening


@pytest.fixture
def start(sink: Sink, no_otel_variables: None) -> Iterator[Start]:
    """Starts exporters that send to the sink, and stops them at the end."""
    started: list[Running] = []

    def start_one(
        protocol: str,
        endpoint: str | None = None,
        extensions: Mapping[str, Any] = MappingProxyType({}),
        **settings: object,
    ) -> Running:
        port = sink.grpc_port if protocol == "otlp_grpc" else sink.http_port
        given = {"endpoint": endpoint or f"http://127.0.0.1:{port}", "retry_on_failure": QUICK_RETRY} | settings
        factory = import_module(f"wirespan.exporters.{protocol}").FACTORY
        counters = Counters()
        context = Context("under test", counters, ALL_SIGNALS, extensions=extensions)
        exporter = factory.create(factory.config.model_validate(given), context)
        exporter.start()
        started.append(Running(exporter, counters))
        return started[-1]

    yield start_one
    for running in started:
        running.shutdown(0.1)


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> state_machine.Machine:
    return state_machine.compiled(tmp_path_factory.mktemp("exchange_host"))
