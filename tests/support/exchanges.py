"""An agent that watches some ports, and what has to hold for the exchanges that it reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.agent import Agent
from support.own_metrics import OwnMetrics
from support.spans import Span

PROGRAMS = Path(__file__).parents[1] / "programs"

#: Large enough for all that a test makes, however busy the machine is: a full ring has tests of its own.
RINGS = {"exchanges": 128 << 20, "long_exchanges": 128 << 20, "segments": 128 << 20}


def watch(
    folder: Path,
    *ports: int,
    exporters: Mapping[str, Any] | None = None,
    ebpf: Mapping[str, Any] | None = None,
    metrics: OwnMetrics | None = None,
) -> Agent:
    """An agent that watches connections to these server ports, and exports to a file unless told otherwise.

    ebpf: further configuration of the receiver. metrics: where its own go.
    """
    exporters = exporters or {"file": {}}
    return Agent(
        {
            "receivers": {"ebpf": {"select": {"ports": list(ports)}, "rings": RINGS, **(ebpf or {})}},
            "exporters": exporters,
            "service": {
                "pipelines": {"traces": {"receivers": ["ebpf"], "exporters": list(exporters)}},
                "telemetry": {
                    "logs": {"encoding": "json"},
                    **({} if metrics is None else {"metrics": metrics.telemetry}),
                },
            },
        },
        folder,
    )


def of_kind(spans: Sequence[Span], kind: str) -> list[Span]:
    """The spans of a kind, in the order of their starts."""
    return sorted((span for span in spans if span["kind"] == kind), key=lambda span: span["start"])


def count_kinds(file: Path) -> dict[str, int]:
    """How many spans of each kind the file exporter has written, by a scan: decoding 200,000 takes too long."""
    with file.open("rb") as lines:
        counts = [(line.count(b'"kind":2,'), line.count(b'"kind":3,')) for line in lines]
    return {"SERVER": sum(server for server, _ in counts), "CLIENT": sum(client for _, client in counts)}


def accounts(agent: Agent) -> list[dict[str, Any]]:
    """What a stopped agent says became of the exchanges, by exporter."""
    entries = (json.loads(line) for line in agent.log.splitlines() if line.startswith("{"))
    return [entry for entry in entries if entry["msg"] == "exchanges"]


def assert_all_accounted(agent: Agent) -> dict[str, Any]:
    """After it stopped: ``observed = exported + sampled_out + excluded + skipped + dropped + in_flight``, nothing being in
    flight any more. Returns the account of its only exporter."""
    (account,) = accounts(agent)
    as_wished = sum(account[end] for end in ("exported", "sampled_out", "excluded", "skipped"))
    ends = as_wished + sum(account["dropped"].values()) + account["in_flight"]
    assert account["observed"] == ends, account
    assert account["unaccounted"] == 0, account
    assert account["in_flight"] == 0, account
    return account


def assert_all_exported(agent: Agent, observed: int) -> None:
    """After it stopped: exactly so many exchanges were observed, and each was exported."""
    account = assert_all_accounted(agent)
    assert (account["observed"], account["exported"], account["dropped"]) == (observed, observed, {}), account


def assert_paired(spans: Sequence[Span], exchanges: int, *, ordered: bool = True) -> None:
    """Each of so many exchanges was seen from both ends; the server span is a child of exactly its client span, and
    does not start before it, if they are ``ordered``."""
    clients = {span["span_id"]: span for span in spans if span["kind"] == "CLIENT"}
    servers = {span["span_id"]: span for span in spans if span["kind"] == "SERVER"}
    assert len(clients | servers) == len(spans), "an id twice"
    assert len(clients) == len(servers) == exchanges, (len(clients), len(servers), exchanges)
    assert {span["parent_span_id"] for span in clients.values()} == {""}, "a client span has a parent"
    unpaired = [span for span in servers.values() if span["parent_span_id"] not in clients]
    assert not unpaired, (len(unpaired), unpaired[:3])
    assert len({span["parent_span_id"] for span in servers.values()}) == exchanges, "a parent twice"
    for server in servers.values():
        client = clients[server["parent_span_id"]]
        assert client["trace_id"] == server["trace_id"], (client, server)
        assert client["start"] <= server["start"] or not ordered, (client, server)
        for attribute in ("client.port", "wirespan.request.size", "wirespan.response.size"):
            assert client["attributes"][attribute] == server["attributes"][attribute], (client, server)
    assert len({span["trace_id"] for span in clients.values()}) == exchanges, "a trace id twice"
