"""Whose an address was when an exchange began: of pods that come and go with the same addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pytest

from support.kubernetes_api import pod, service
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, ResourceTable, SpanBatch
from wirespan.processors.k8s_attributes import peer_columns, peer_index
from wirespan.processors.k8s_attributes.peer_columns import PeerColumns
from wirespan.processors.k8s_attributes.peer_index import PeerIndex, peer_at

IP = "10.0.0.1"
NOW = int(time.time())


def stamp(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def whose(index: PeerIndex, second: float, address: str = IP) -> str | None:
    peer = peer_at(index.at(address), int(second * 10**9))
    return None if peer is None else peer.name


def test_an_address_is_the_pods_from_its_start_until_its_containers_ended() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    assert whose(index, NOW - 101) is None
    assert whose(index, NOW - 100) == "a"
    assert whose(index, NOW) == "a"
    index.remove(pod("a", ip=IP, started=stamp(NOW - 100), ended=stamp(NOW - 50)))
    assert whose(index, NOW - 50.1) == "a"
    assert whose(index, NOW - 49.9) is None


def test_an_address_that_is_used_again_is_nobodys_while_it_may_be_either_ones() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    index.put(pod("b", ip=IP, started=stamp(NOW - 50)))
    assert (whose(index, NOW - 60), whose(index, NOW - 40)) == ("a", None)
    index.remove(pod("a", ip=IP, started=stamp(NOW - 100), ended=stamp(NOW - 50)))
    assert (whose(index, NOW - 60), whose(index, NOW - 49.5), whose(index, NOW - 40)) == ("a", None, "b")


def test_a_pod_that_is_gone_and_does_not_say_when_it_ended_had_its_address_until_then() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    index.remove(pod("a", ip=IP, started=stamp(NOW - 100)))
    assert whose(index, time.time() - 0.5) == "a"
    assert whose(index, time.time() + 0.5) is None


@pytest.mark.parametrize("said", [{"phase": "Succeeded"}, {"phase": "Failed"}, {"host_network": True}])
def test_pods_that_ended_and_those_of_the_host_have_no_address(said: dict[str, Any]) -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, **said))
    assert index.at(IP) == ()
    index.put(pod("b", ip=IP, started=stamp(NOW - 100)))
    assert whose(index, NOW) == "b"


def test_a_pod_that_ends_gives_its_address_up_while_it_is_still_listed() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    index.put(pod("a", ip=IP, started=stamp(NOW - 100), phase="Failed", ended=stamp(NOW - 50)))
    assert (whose(index, NOW - 60), whose(index, NOW - 40)) == ("a", None)


def test_all_addresses_of_a_pod_are_its_own_and_a_new_one_from_when_it_was_seen() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ips=[IP, "fd00::1"], started=stamp(NOW - 100)))
    assert whose(index, NOW, "fd00::1") == "a"
    index.put(pod("a", ips=["10.0.0.2"], started=stamp(NOW - 100)))
    assert whose(index, NOW - 50) == "a"
    assert whose(index, time.time() + 1) is None
    assert whose(index, NOW - 50, "10.0.0.2") is None
    assert whose(index, time.time() + 1, "10.0.0.2") == "a"


def test_an_address_is_in_doubt_from_the_mark_of_deletion_until_it_is_known_when_the_pod_ended() -> None:
    index = PeerIndex.of_pods(150.0)
    item = pod("a", ip=IP, started=stamp(NOW - 100))
    index.put(item)
    item["metadata"] |= {"deletionTimestamp": stamp(NOW - 20), "deletionGracePeriodSeconds": 30}
    index.put(item)
    assert (whose(index, NOW - 51), whose(index, NOW - 49)) == ("a", None)
    last = pod("a", ip=IP, started=stamp(NOW - 100), ended=stamp(NOW - 30))
    last["metadata"] |= item["metadata"]
    index.remove(last)
    assert (whose(index, NOW - 31), whose(index, NOW - 29)) == ("a", None)


def test_a_pod_whose_containers_have_all_ended_is_in_doubt_until_one_runs_again() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100), ended=stamp(NOW - 50)))
    assert (whose(index, NOW - 51), whose(index, NOW - 49)) == ("a", None)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    assert whose(index, NOW - 49) == "a"


def test_what_is_not_listed_after_a_silence_had_its_address_until_the_silence_began() -> None:
    index = PeerIndex.of_pods(150.0)
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    index.listing()
    index.listed(unknown_seconds=30.0)
    assert whose(index, time.time() - 31) == "a"
    assert whose(index, time.time() - 29) is None


def test_what_had_an_address_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    index = PeerIndex.of_pods(150.0)
    for number in range(10):
        item = pod(f"p{number}", ip=IP, started=stamp(NOW - 100))
        index.put(item)
        index.remove(item)
    assert len(index.at(IP)) == 10
    monkeypatch.setattr(peer_index, "ENDED_KEPT", 3)
    index.put(pod("last", ip="10.0.0.2"))
    assert len(index.at(IP)) == 3
    monkeypatch.setattr(peer_index, "ENDED_KEPT", 0)
    index.put(pod("last", ip="10.0.0.2"))
    assert index.at(IP) == ()
    assert len(index) == 1


# ---- spans ----------------------------------------------------------------------------------------------------------


def spans(table: FragmentTable, *spans: tuple[str, float]) -> SpanBatch:
    """Of an address and the second in which each began."""
    count = len(spans)
    ids = [table.intern(Fragment("GET", (("network.peer.address", address),))) for address, _ in spans]
    zeros = np.zeros(count, np.uint64)
    resources = ResourceTable()
    resources.intern({"service.name": "x"})
    return SpanBatch(
        trace_id=np.zeros((count, 2), np.uint64),
        span_id=zeros,
        parent_span_id=zeros,
        start=np.array([int(second * 10**9) for _, second in spans], np.uint64),
        end=zeros,
        kind=np.full(count, 3, np.uint8),
        resource=np.zeros(count, np.int64),
        resources=resources,
        fragments=(FragmentColumn(table, np.array(ids)),),
    )


def peers_of(batch: SpanBatch) -> list[object]:
    if len(batch.fragments) == 1:
        return [None] * len(batch)
    column = batch.fragments[-1]
    found = [dict(column.table.fragments[number].attributes) for number in column.ids]
    return [attributes.get("wirespan.peer.k8s.pod.name") for attributes in found]


@pytest.fixture
def made() -> tuple[PeerIndex, PeerColumns, Counters]:
    index, counters = PeerIndex.of_pods(150.0), Counters()
    services = PeerIndex.of_services(150.0)
    services.put(service("front", "10.96.0.1", "fd00:96::1"))
    services.put(service("headless", "None"))
    return index, PeerColumns(index, services, counters, "k8s_attributes"), counters


Made = tuple[PeerIndex, PeerColumns, Counters]


def test_spans_say_which_pod_is_at_the_other_end(made: Made) -> None:
    index, columns, _ = made
    index.put(pod("db-0", ip=IP, started=stamp(NOW - 100), owner=("StatefulSet", "db"), namespace="data"))
    table = FragmentTable()
    batch = columns.of(spans(table, (IP, NOW), ("192.0.2.1", NOW), (IP, NOW - 200)))
    assert peers_of(batch) == ["db-0", None, None]
    assert dict(batch.fragments[-1].table.fragments[batch.fragments[-1].ids[0]].attributes) == {
        "service.peer.name": "db",
        "peer.service": "db",
        "wirespan.peer.k8s.namespace.name": "data",
        "wirespan.peer.k8s.pod.name": "db-0",
        "wirespan.peer.k8s.pod.uid": "uid-db-0",
        "wirespan.peer.k8s.statefulset.name": "db",
    }


def test_spans_to_the_address_of_a_service_say_which_one(made: Made) -> None:
    _, columns, _ = made
    batch = columns.of(spans(FragmentTable(), ("10.96.0.1", NOW), ("fd00:96::1", NOW), ("None", NOW)))
    column = batch.fragments[-1]
    found = [dict(column.table.fragments[number].attributes) for number in column.ids]
    assert (
        found[0]
        == found[1]
        == {
            "service.peer.name": "front",
            "peer.service": "front",
            "wirespan.peer.k8s.namespace.name": "shop",
            "wirespan.peer.k8s.service.name": "front",
        }
    )
    assert found[2] == {}


def test_spans_of_strangers_pass_as_they_are(made: Made) -> None:
    index, columns, counters = made
    index.put(pod("db", ip=IP))
    batch = spans(FragmentTable(), ("192.0.2.1", NOW), ("127.0.0.1", NOW))
    assert columns.of(batch) is batch
    assert not counters.snapshot()


def test_what_becomes_known_is_said_of_addresses_that_were_seen_before(made: Made) -> None:
    index, columns, counters = made
    table = FragmentTable()
    assert peers_of(columns.of(spans(table, (IP, NOW)))) == [None]
    first, second = pod("a", ip=IP, started=stamp(NOW - 100)), pod("b", ip=IP, started=stamp(NOW - 20))
    index.put(first)
    assert peers_of(columns.of(spans(table, (IP, NOW - 50), ("10.0.0.9", NOW)))) == ["a", None]
    index.put(second)
    times = [(IP, NOW - at) for at in (90, 50, 10)]
    assert peers_of(columns.of(spans(table, *times))) == ["a", "a", None]
    index.remove(pod("a", ip=IP, started=stamp(NOW - 100), ended=stamp(NOW - 30)))
    assert peers_of(columns.of(spans(table, *times))) == ["a", "a", "b"]
    assert (
        counters.snapshot()["wirespan.k8s.peers.unknown", (("processor", "k8s_attributes"), ("reason", "ambiguous"))]
        == 1
    )


def test_after_a_silence_nobody_is_at_the_other_end(made: Made) -> None:
    index, columns, counters = made
    index.put(pod("a", ip=IP, started=stamp(NOW - 100)))
    index.last_news = lambda: time.monotonic() - 151
    assert peers_of(columns.of(spans(FragmentTable(), (IP, NOW)))) == [None]
    assert (
        counters.snapshot()["wirespan.k8s.peers.unknown", (("processor", "k8s_attributes"), ("reason", "stale"))] == 1
    )
    index.last_news = time.monotonic
    assert peers_of(columns.of(spans(FragmentTable(), (IP, NOW)))) == ["a"]


def test_a_full_table_of_peers_starts_anew(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_columns, "PEERS_KEPT", 4)
    index, columns, _ = made
    for number in range(20):
        table = FragmentTable()  # the receiver starts a new one now and then, too
        index.put(pod(f"p{number}", ip=f"10.0.1.{number}", started=stamp(NOW - 100)))
        batch = columns.of(spans(table, (f"10.0.1.{number}", NOW), ("10.0.1.0", NOW)))
        assert peers_of(batch) == [f"p{number}", "p0"]
        assert len(batch.fragments[-1].table) <= 4 + 2 * 4


def test_under_churn_no_span_is_given_to_the_wrong_pod(made: Made) -> None:
    """Pods take over addresses from each other within a second; what is said is compared with what was so."""
    index, columns, _ = made
    random, table = np.random.default_rng(7), FragmentTable()
    truth: list[tuple[str, str, float, float]] = []
    told = 0
    for address in (f"10.0.2.{number}" for number in range(20)):
        at = NOW - 100.0
        while at < NOW - 5:
            name, lived = f"pod-{len(truth)}", float(random.uniform(0.3, 8.0))
            truth.append((address, name, at, at + lived))
            at += lived + float(random.uniform(0.05, 0.5))
    events: list[tuple[float, Callable[[], None]]] = []
    for address, name, began, ended in truth:
        said: dict[str, Any] = {"ip": address, "started": stamp(int(began))}
        running, ending, last = pod(name, **said), pod(name, **said), pod(name, **said, ended=stamp(int(ended)))
        marked = max(began, ended - random.uniform(0, 1))
        ending["metadata"] |= {"deletionTimestamp": stamp(int(marked) + 30), "deletionGracePeriodSeconds": 30}
        last["metadata"] |= ending["metadata"]
        seen = min(marked, began + random.uniform(0, 1))
        events.append((seen, partial(index.put, running)))
        events.append((marked + random.uniform(0, 0.05), partial(index.put, ending)))
        events.append((ended + random.uniform(0.1, 3), partial(index.remove, last)))
    for now, happen in sorted(events, key=lambda event: event[0]):
        happen()
        so_far = [case for case in truth if now - 20 < case[2] < now]
        for number in random.integers(0, len(so_far), 4) if so_far else ():
            address, name, began, ended = so_far[number]
            (peer,) = peers_of(columns.of(spans(table, (address, float(random.uniform(began, min(ended, now)))))))
            assert peer in (None, name)
            told += peer is not None
    assert told > 1_000
