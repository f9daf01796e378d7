"""What is kept of pods, which names they give to services, and by what they are found."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kubernetes_api import pod
from wirespan.processors.k8s_attributes import pod_table
from wirespan.processors.k8s_attributes.json_stream import MalformedAnswer, events, items_of_list
from wirespan.processors.k8s_attributes.pod_table import PodTable
from wirespan.processors.k8s_attributes.pods import VALUE_LIMIT, Pod, PodReader, image_parts
from wirespan.processors.k8s_attributes.settings import ExtractSettings, Metadata

ID, OTHER_ID = "c" * 64, "d" * 64


def reader(**extract: Any) -> PodReader:
    return PodReader(ExtractSettings.model_validate(extract))


def read(item: Any, **extract: Any) -> Pod:
    found = reader(**extract).pod(item)
    assert found is not None
    return found


# ---- lists and watches, in any pieces -------------------------------------------------------------------------------

LIST = (
    '{"kind":"PodList","metadata":{"resourceVersion":"7","n":12},"items":[{"a":"é"},{"b":[1,{"c":"]}"}]}],"count":12}\n'
)


@given(st.lists(st.integers(0, len(LIST.encode())), max_size=8))
def test_a_list_in_any_pieces_is_the_same_list(cuts: list[int]) -> None:
    data, rest = LIST.encode(), dict[str, Any]()
    edges = [0, *sorted(cuts), len(data)]
    chunks = [data[begin:end] for begin, end in pairwise(edges)]
    assert list(items_of_list(chunks, rest)) == [{"a": "é"}, {"b": [1, {"c": "]}"}]}]
    assert rest == {"kind": "PodList", "metadata": {"resourceVersion": "7", "n": 12}, "count": 12}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"items":[', '{"items":[{"a":', '{"items":[1]}', '{"a":', "nonsense", '{"a" 1']
)
def test_what_is_no_list_or_ends_early_is_said_to_be(text: str) -> None:
    with pytest.raises(MalformedAnswer):
        list(items_of_list([text.encode()], {}))


def test_no_items_are_an_empty_list() -> None:
    for text in ('{"items":null,"metadata":{}}', '{"items":[],"metadata":{}}', "{}"):
        assert list(items_of_list([text.encode()], {})) == []


def test_what_is_not_utf_8_is_replaced() -> None:
    assert list(items_of_list([b'{"items":[{"a":"\xff"}]}'], {})) == [{"a": "�"}]
    assert list(events([b'{"type":"ADDED","object":{"a":"\xff"}}\n'])) == [{"type": "ADDED", "object": {"a": "�"}}]


@given(st.lists(st.integers(0, 200), max_size=8))
def test_events_in_any_pieces_are_the_same_events(cuts: list[int]) -> None:
    said = [{"type": "ADDED", "object": {"n": number, "text": "é" * number}} for number in range(5)]
    data = b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in said) + b'{"type":"cut'
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert list(events(data[begin:end] for begin, end in pairwise(edges))) == said


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b'{"type":"ADDED"}\n', b'{"type":"ADDED","object":1}\n'])
def test_what_is_no_event_is_said_to_be(line: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        list(events([line]))


# ---- names ----------------------------------------------------------------------------------------------------------

OTEL = "resource.opentelemetry.io/"
WELL_KNOWN = {"app.kubernetes.io/instance": "inst", "app.kubernetes.io/name": "app", "app.kubernetes.io/version": "v9"}


@pytest.mark.parametrize(
    ("said", "well_known", "expected"),
    [
        ({"annotations": {f"{OTEL}service.name": "declared"}, "labels": WELL_KNOWN}, True, "declared"),
        ({"labels": WELL_KNOWN, "owner": ("StatefulSet", "db")}, True, "inst"),
        ({"labels": {"app.kubernetes.io/name": "app"}}, True, "app"),
        ({"labels": WELL_KNOWN, "owner": ("StatefulSet", "db")}, False, "db"),
        ({"labels": {"pod-template-hash": "5d4f"}, "owner": ("ReplicaSet", "web-5d4f")}, False, "web"),
        ({"labels": {"pod-template-hash": "beef"}, "owner": ("ReplicaSet", "web-5d4f")}, False, "web-5d4f"),
        ({"owner": ("ReplicaSet", "bare-5d4f")}, False, "bare-5d4f"),
        ({"owner": ("DaemonSet", "agent")}, False, "agent"),
        ({"owner": ("Job", "report-28912345")}, False, "report"),
        ({"owner": ("Job", "once")}, False, "once"),
        ({"owner": ("Rollout", "shiny")}, False, "alone"),
        ({}, False, "alone"),
    ],
)
def test_a_service_is_named_by_the_first_that_there_is(said: dict[str, Any], well_known: bool, expected: str) -> None:
    found = read(pod("alone", **said), service_attributes={"well_known_labels": well_known})
    assert found.attributes["service.name"] == expected


def test_controllers_are_attributes() -> None:
    wanted: list[Metadata] = ["k8s.deployment.name", "k8s.replicaset.name", "k8s.replicaset.uid", "k8s.job.name"]
    owned = pod("a", labels={"pod-template-hash": "5d4f"}, owner=("ReplicaSet", "web-5d4f"))
    assert read(owned, metadata=wanted).attributes == {
        "k8s.deployment.name": "web",
        "k8s.replicaset.name": "web-5d4f",
        "k8s.replicaset.uid": "uid-web-5d4f",
    }
    of_job = read(pod("a", owner=("Job", "report-28912345")), metadata=["k8s.cronjob.name", "k8s.job.name"])
    assert of_job.attributes == {"k8s.cronjob.name": "report", "k8s.job.name": "report-28912345"}


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("nginx", ("nginx", "", "")),
        ("nginx:1.2", ("nginx", "1.2", "")),
        ("host:5000/nginx", ("host:5000/nginx", "", "")),
        ("host:5000/a/nginx:1.2@sha256:ab", ("host:5000/a/nginx", "1.2", "sha256:ab")),
        ("nginx@sha256:ab", ("nginx", "", "sha256:ab")),
        ("", ("", "", "")),
    ],
)
def test_an_image_is_repository_tag_and_digest(image: str, parts: tuple[str, str, str]) -> None:
    assert image_parts(image) == parts


def test_labels_and_annotations_become_attributes_by_key_or_pattern() -> None:
    item = pod("a", labels={"app.kubernetes.io/part-of": "shop", "tier": "web"}, annotations={"note": "x" * 5000})
    rules = [
        {"key": "tier"},
        {"key": "tier", "tag_name": "layer", "from": "pod"},
        {"key_regex": "app.kubernetes.io/(.*)", "tag_name": "k8s.$1"},
        {"key_regex": ".*part.*"},
    ]
    found = read(item, metadata=[], labels=rules, annotations=[{"key": "note"}]).attributes
    assert found == {
        "k8s.pod.labels.tier": "web",
        "layer": "web",
        "k8s.part-of": "shop",
        "k8s.pod.labels.app.kubernetes.io/part-of": "shop",
        "k8s.pod.annotations.note": "x" * VALUE_LIMIT,
    }


def test_a_lone_surrogate_does_not_come_into_an_attribute() -> None:
    item = pod("a", annotations={"k\ud800": "v\ud800", f"{OTEL}service.name": "n\ud800"})
    item["metadata"]["name"] = "a\ud800"
    found = read(item, annotations=[{"key_regex": ".*"}], otel_annotations=True)
    for name, value in found.attributes.items():
        assert f"{name}{value}".encode()
    assert found.attributes["k8s.pod.name"] == "a?"


def test_a_label_that_is_to_name_the_service_does() -> None:
    item = pod("a", labels={"shop": "mine"}, owner=("StatefulSet", "db"))
    assert read(item, labels=[{"key": "shop", "tag_name": "service.name"}]).attributes["service.name"] == "mine"


def test_annotations_of_opentelemetry_become_attributes_if_that_is_asked_for() -> None:
    item = pod("a", annotations={f"{OTEL}team": "checkout", "other": "1"})
    assert read(item, metadata=[]).attributes == {}
    assert read(item, metadata=[], otel_annotations=True).attributes == {"team": "checkout"}


def test_nothing_that_the_api_may_say_breaks_the_reader() -> None:
    whole = pod("a", labels={"a": "b"}, annotations={"c": "d"}, owner=("Job", "j"), ip="10.0.0.1")
    for path in [("metadata",), ("spec",), ("status",), *[("metadata", key) for key in whole["metadata"]]]:
        for junk in (None, 1, "text", [], [1], {}, {"x": None}):
            item = json.loads(json.dumps(whole))
            (item if len(path) == 1 else item[path[0]])[path[-1]] = junk
            reader().pod(item)
    assert reader().pod({}) is None


# ---- finding --------------------------------------------------------------------------------------------------------


def table(*associations: tuple[str, ...], **extract: Any) -> PodTable:
    return PodTable(reader(**extract), associations)


def test_a_pod_is_found_by_uid_and_by_the_ids_of_its_containers() -> None:
    pods = table()
    pods.put(pod("web", containers=[("main", "a:1", ID), ("side", "b:2", OTHER_ID)]))
    by_uid = pods.find({"k8s.pod.uid": "uid-web"})
    assert by_uid is not None
    assert (by_uid.pod.name, by_uid.container) == ("web", None)
    for id_, name in ((ID, "main"), (OTHER_ID, "side")):
        for attributes in ({"container.id": id_}, {"container.id": id_, "k8s.pod.uid": "uid-web"}):
            found = pods.find(attributes)
            assert found is not None
            assert found.container is not None
            assert found.container.name == name
    assert pods.find({"k8s.pod.uid": "uid-other"}) is None
    assert pods.find({"container.id": ("not", "text")}) is None


def test_the_only_container_is_known_before_its_id_is_but_not_beside_an_init_container() -> None:
    pods = table()
    pods.put(pod("one", containers=[("main", "a:1", "")]))
    pods.put(pod("two", containers=[("main", "a:1", "")], init=[("setup", "b", ID)]))
    (one, two) = (pods.find({"k8s.pod.uid": f"uid-{name}", "container.id": OTHER_ID}) for name in ("one", "two"))
    assert one is not None
    assert one.container is not None
    assert one.container.name == "main"
    assert two is not None
    assert two.container is None
    setup = pods.find({"container.id": ID})
    assert setup is not None
    assert setup.container is not None
    assert setup.container.name == "setup"


def test_the_run_before_a_restart_is_still_that_container() -> None:
    item = pod("web", containers=[("main", "a:1", ID)])
    item["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"containerID": f"cri-o://{OTHER_ID}"}}
    pods = table()
    pods.put(item)
    assert pods.find({"container.id": OTHER_ID}) is not None


def test_a_static_pod_is_found_by_its_hash() -> None:
    pods = table()
    pods.put(pod("etcd", uid="uid-of-mirror", annotations={"kubernetes.io/config.mirror": "ab" * 16}))
    found = pods.find({"k8s.pod.uid": "ab" * 16})
    assert found is not None
    assert found.pod.uids == ("uid-of-mirror", "ab" * 16)


def test_a_pod_is_found_by_what_is_configured_and_all_of_it() -> None:
    pods = table(("k8s.pod.name", "k8s.namespace.name"), ("tier",), labels=[{"key": "tier", "tag_name": "tier"}])
    pods.put(pod("web", ip="10.0.0.1", labels={"tier": "front"}))
    assert pods.find({"k8s.pod.name": "web"}) is None
    assert pods.find({"k8s.pod.name": "web", "k8s.namespace.name": "other"}) is None
    assert pods.find({"k8s.pod.name": "web", "k8s.namespace.name": "shop"}) is not None
    assert pods.find({"tier": "front"}) is not None
    assert pods.find({"k8s.pod.ip": "10.0.0.1"}) is None  # it is not among what is configured


def test_an_address_is_that_of_the_pod_that_has_it_and_of_none_in_the_hosts_network() -> None:
    pods = table()
    first, second = pod("first", ip="10.0.0.1"), pod("second", ips=["10.0.0.1", "fd00::1"])
    pods.put(first)
    pods.put(second)
    pods.remove(first)
    for address in ("10.0.0.1", "fd00::1"):
        found = pods.find({"k8s.pod.ip": address})
        assert found is not None
        assert found.pod.name == "second"
        assert pods.find({"k8s.pod.ip": address}, by_address=False) is None
    pods.put(pod("host", ip="10.0.0.9", host_network=True))
    pods.put(pod("done", ip="10.0.0.8", phase="Succeeded"))
    assert not [address for address in ("10.0.0.8", "10.0.0.9") if pods.find({"k8s.pod.ip": address})]


def test_a_pod_that_is_gone_is_known_for_a_while_but_not_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = table()
    gone = pod("web", ip="10.0.0.1", containers=[("main", "a:1", ID)])
    pods.put(gone)
    pods.remove(gone)
    assert pods.find({"k8s.pod.ip": "10.0.0.1"}) is None
    assert pods.find({"container.id": ID}) is not None
    monkeypatch.setattr(pod_table, "GONE_KEPT", 0)
    pods.put(pod("other"))
    assert pods.find({"container.id": ID}) is None
    assert len(pods) == 1


def test_what_is_not_listed_any_more_is_gone() -> None:
    pods = table()
    pods.put(pod("old", ip="10.0.0.1"))
    pods.listing()
    pods.put(pod("new", ip="10.0.0.2"))
    pods.listed(1.0)
    assert pods.find({"k8s.pod.ip": "10.0.0.1"}) is None
    assert pods.find({"k8s.pod.ip": "10.0.0.2"}) is not None


def test_what_says_nothing_new_is_no_new_version() -> None:
    pods = table()
    pods.put(pod("web", ip="10.0.0.1"))
    version = pods.version
    again = pod("web", ip="10.0.0.1")
    again["status"]["conditions"] = [{"type": "Ready"}]
    pods.put(again)
    assert pods.version == version
    pods.put(pod("web", ip="10.0.0.2"))
    assert pods.version > version
