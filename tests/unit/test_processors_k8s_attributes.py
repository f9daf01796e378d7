"""The processor ``k8s_attributes`` against a double of the API server: what comes into resources, and what goes wrong."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.certificates import certificate
from support.foreign_batches import encoded, every_request
from support.kubernetes_api import KubernetesApi, kubeconfig, pod, service, serving
from support.metric_batches import text
from support.otlp_batches import batch_of
from support.passing import Behind
from support.waiting import wait_until
from wirespan.pipeline.component import Context, StartError
from wirespan.pipeline.counters import Counters
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.pipeline.spans import ResourceTable
from wirespan.processors.k8s_attributes import reflector
from wirespan.processors.k8s_attributes.pods import PodReader
from wirespan.processors.k8s_attributes.processor import FACTORY, K8sAttributesProcessor
from wirespan.processors.k8s_attributes.settings import K8sAttributesSettings
from wirespan.processors.values import MessageAttributes

ID = "c" * 64
PODS = "/api/v1/pods"
INFERRED = {
    "service.name": "nginx",
    "service.instance.id": "guess",
    "container.id": ID,
    "k8s.pod.uid": "uid-web-1",
    "wirespan.resource.inferred": ("service.name", "service.instance.id"),
}
WEB = pod(
    "web-1",
    ip="10.0.0.1",
    labels={"pod-template-hash": "5d4f"},
    owner=("ReplicaSet", "web-5d4f"),
    containers=[("main", "registry.example/web:1.2", ID)],
)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(reflector, "_LONGEST_WAIT", 0.2)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    made = KubernetesApi()
    with serving(made) as port:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, port)))
        yield made


class Running:
    """A processor that runs, and what is behind it."""

    def __init__(self, processor: K8sAttributesProcessor, behind: Behind, counters: Counters) -> None:
        self.processor, self.behind, self.counters = processor, behind, counters

    def resource(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What becomes of a resource of columns."""
        table = ResourceTable()
        table.intern(attributes)
        self.processor.consume(replace(batch_of(3), resources=table))
        batch = self.behind.columns[-1]
        return dict(batch.resources.resources[batch.resource[0]])

    def peer(self) -> object:
        """The pod at the other end of a span to 10.0.0.1 that began now."""
        batch = batch_of(1)
        batch.start[:] = time.time_ns()
        self.processor.consume(batch)
        behind = self.behind.columns[-1]
        attributes = [dict(column.table.fragments[column.ids[0]].attributes) for column in behind.fragments[1:]]
        return attributes[0].get("wirespan.peer.k8s.pod.name") if attributes else None

    def count(self, name: str, **attributes: str) -> int:
        key = (name, tuple(sorted({"processor": "k8s_attributes", **attributes}.items())))
        return self.counters.snapshot().get(key, 0)


@contextmanager
def running(**settings: Any) -> Iterator[Running]:
    chosen = {"auth_type": "kubeConfig", "wait_for_metadata": True, **settings}
    behind, counters = Behind(), Counters()
    processor = K8sAttributesProcessor(
        K8sAttributesSettings.model_validate(chosen), Context("k8s_attributes", counters), behind
    )
    processor.start()
    try:
        yield Running(processor, behind, counters)
    finally:
        began = time.monotonic()
        processor.shutdown(began + 2.0)
        assert time.monotonic() - began < 1.0


def soon(what: str, condition: Callable[[], object]) -> None:
    wait_until(what, condition, 5.0)


# ---- what comes into resources ---------------------------------------------------------------------------------------


def test_a_process_in_a_pod_gets_its_pods_names_in_place_of_what_was_inferred(api: KubernetesApi) -> None:
    api.put(WEB)
    with running() as k8s:
        assert k8s.resource({**INFERRED, "process.pid": 7}) == {
            "process.pid": 7,
            "container.id": ID,
            "k8s.namespace.name": "shop",
            "k8s.pod.name": "web-1",
            "k8s.pod.uid": "uid-web-1",
            "k8s.pod.start_time": "2026-01-01T00:00:00Z",
            "k8s.node.name": "node-1",
            "k8s.deployment.name": "web",
            "k8s.container.name": "main",
            "container.image.name": "registry.example/web",
            "container.image.tag": "1.2",
            "service.namespace": "shop",
            "service.name": "web",
            "service.version": "1.2",
            "service.instance.id": "shop.web-1.main",
        }


def test_what_a_process_declares_wins_but_not_what_sdks_call_what_has_no_name(api: KubernetesApi) -> None:
    api.put(WEB)
    declared = {**INFERRED, "service.name": "mine", "wirespan.resource.inferred": ("service.instance.id",)}
    with running() as k8s:
        assert k8s.resource(declared)["service.name"] == "mine"
        assert k8s.resource({"container.id": ID, "service.name": "unknown_service:java"})["service.name"] == "web"
        assert k8s.resource({"container.id": ID, "service.version": "7"})["service.version"] == "7"


def test_only_what_is_asked_for_is_added_and_what_is_not_replaced_stays_inferred(api: KubernetesApi) -> None:
    api.put(WEB)
    with running(extract={"metadata": ["k8s.pod.name", "service.name"]}) as k8s:
        assert k8s.resource(INFERRED) == {
            **INFERRED,
            "service.name": "web",
            "k8s.pod.name": "web-1",
            "wirespan.resource.inferred": ("service.instance.id",),
        }


def test_annotations_name_version_and_instance(api: KubernetesApi) -> None:
    names = {"service.name": "a", "service.namespace": "b", "service.version": "c", "service.instance.id": "d"}
    api.put(
        {
            **WEB,
            "metadata": {
                **WEB["metadata"],
                "annotations": {f"resource.opentelemetry.io/{k}": v for k, v in names.items()},
            },
        }
    )
    with running() as k8s:
        assert k8s.resource(INFERRED).items() >= names.items()


def test_a_static_pod_gets_the_uid_by_which_the_api_knows_it(api: KubernetesApi) -> None:
    api.put(pod("etcd", uid="mirror", annotations={"kubernetes.io/config.mirror": "ab" * 16}))
    with running() as k8s:
        found = k8s.resource({"k8s.pod.uid": "ab" * 16, "service.name": "etcd"})
        assert (found["k8s.pod.uid"], found["k8s.pod.name"]) == ("mirror", "etcd")


def test_a_resource_without_a_pod_is_left_alone(api: KubernetesApi) -> None:
    api.put(WEB)
    with running() as k8s:
        for attributes in ({"service.name": "host"}, {"service.name": "docker", "container.id": "e" * 64}):
            assert k8s.resource(attributes) == attributes


def test_a_pod_that_is_not_known_is_said_to_be_until_it_is(api: KubernetesApi) -> None:
    with running() as k8s:
        assert k8s.resource(INFERRED) == {**INFERRED, "wirespan.k8s.metadata.missing": True}
        api.put(WEB)
        soon("the pod is known", lambda: k8s.resource(INFERRED).get("k8s.pod.name") == "web-1")
        assert "wirespan.k8s.metadata.missing" not in k8s.resource(INFERRED)


def test_requests_of_every_signal_get_the_same_and_keep_their_items(api: KubernetesApi) -> None:
    api.put(WEB)
    with running() as k8s:
        for signal, request in every_request().items():
            (_, groups) = request.ListFields()[0]
            for group in groups:
                group.resource.attributes.append(text("container.id", ID))
            before = [group.resource.attributes for group in groups]
            k8s.processor.consume_encoded(encoded(request))
            changed = type(request).FromString(k8s.behind.batches[-1].data)
            (_, after) = changed.ListFields()[0]
            assert k8s.behind.batches[-1].signal == signal
            for group, old in zip(after, before, strict=True):
                names = {item.key: item.value.string_value for item in group.resource.attributes}
                assert (names["k8s.pod.name"], names["k8s.deployment.name"]) == ("web-1", "web")
                assert names["service.name"] == next(
                    item.value.string_value for item in old if item.key == "service.name"
                )


def test_metrics_keep_an_inferred_instance_because_a_container_may_be_several(api: KubernetesApi) -> None:
    api.put(WEB)
    with running() as k8s:
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add().resource
        MessageAttributes(resource.attributes).update(INFERRED)
        k8s.processor.consume_encoded(EncodedBatch("metrics", request.SerializeToString(), 0))
        changed = ExportMetricsServiceRequest.FromString(k8s.behind.batches[-1].data)
        found = MessageAttributes(changed.resource_metrics[0].resource.attributes)
        assert (found["service.name"], found["service.instance.id"]) == ("web", "guess")
        assert found["wirespan.resource.inferred"] == ("service.instance.id",)


def test_a_sender_is_found_by_what_is_configured(api: KubernetesApi) -> None:
    api.put(WEB)
    sources = [{"from": "resource_attribute", "name": name} for name in ("k8s.pod.name", "k8s.namespace.name")]
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend([text("k8s.pod.name", "web-1"), text("k8s.namespace.name", "shop")])
    group.scope_spans.add().spans.add(name="x")
    with running(pod_association=[{"sources": sources}]) as k8s:
        k8s.processor.consume_encoded(encoded(request))
        changed = ExportTraceServiceRequest.FromString(k8s.behind.batches[-1].data)
        assert "k8s.pod.uid" in {item.key for item in changed.resource_spans[0].resource.attributes}


def test_a_sender_is_found_by_the_address_that_it_sends_from(api: KubernetesApi) -> None:
    api.put(WEB, pod("other", ip="10.0.0.2", labels={"tier": "back"}), pod("host", ip="10.0.0.3", host_network=True))
    request = encoded(every_request()["traces"])

    def names(k8s: Running, sender: str) -> set[str]:
        k8s.processor.consume_encoded(replace(request, sender=sender))
        changed = ExportTraceServiceRequest.FromString(k8s.behind.batches[-1].data)
        found = [item for group in changed.resource_spans for item in group.resource.attributes]
        return {item.value.string_value for item in found if item.key == "k8s.pod.name"}

    with running() as k8s:
        for sender, expected in (("10.0.0.1", {"web-1"}), ("10.0.0.2", {"other"}), ("10.0.0.3", set()), ("", set())):
            assert names(k8s, sender) == expected
        api.delete(WEB)
        soon("the address is nobody's", lambda: names(k8s, "10.0.0.1") == set())
    with running(pod_association=[{"sources": [{"from": "resource_attribute", "name": "k8s.pod.name"}]}]) as k8s:
        assert names(k8s, "10.0.0.2") == set()
    by_both = [{"from": "connection"}, {"from": "resource_attribute", "name": "k8s.node.name"}]
    with running(pod_association=[{"sources": by_both}]) as k8s:
        assert names(k8s, "10.0.0.2") == set()


# ---- which pods are followed -----------------------------------------------------------------------------------------


def test_of_the_own_node_all_is_known_and_of_others_the_address(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(WEB, pod("far", node="node-2", ip="10.0.0.2", containers=[("main", "b:1", "d" * 64)]))
    monkeypatch.setenv("K8S_NODE_NAME", "node-1")
    with running(filter={"node_from_env_var": "K8S_NODE_NAME"}) as k8s:
        assert k8s.processor.facts() == {"pods": 1, "peers": 2, "services": 0}
        assert k8s.peer() == "web-1"
        assert "k8s.pod.name" not in k8s.resource({"container.id": "d" * 64})
        selectors = {parameters.get("fieldSelector") for path, parameters in api.requests if path == PODS}
        assert selectors == {"spec.nodeName=node-1", "status.phase!=Succeeded,status.phase!=Failed"}


def test_without_a_filter_all_pods_are_followed_once(api: KubernetesApi) -> None:
    api.put(WEB, pod("far", node="node-2", ip="10.0.0.2"), service("front", "10.96.0.1"))
    with running() as k8s:
        assert k8s.processor.facts() == {"pods": 2, "peers": 2, "services": 1}
        soon("both watches", lambda: api.watches == 2)
        assert sorted(path for path, _ in api.requests) == [PODS, PODS, "/api/v1/services", "/api/v1/services"]


def test_pods_can_be_left_out_by_label_namespace_and_name(api: KubernetesApi) -> None:
    api.put(WEB, pod("other", labels={"tier": "web"}), pod("jaeger-agent-1", labels={"tier": "web"}))
    with running(
        filter={"namespace": "shop", "labels": [{"key": "tier", "value": "web"}]},
        exclude={"pods": [{"name": "jaeger-agent"}]},
        peers={"enabled": False},
    ) as k8s:
        assert k8s.processor.facts() == {"pods": 1, "peers": 0, "services": 0}
        assert api.requests[0][0] == "/api/v1/namespaces/shop/pods"


def test_more_pods_than_a_page_holds_are_listed_in_pages(api: KubernetesApi) -> None:
    api.put(*(pod(f"p{number}", ip=f"10.1.{number // 250}.{number % 250}") for number in range(1_203)))
    with running() as k8s:
        assert k8s.processor.facts() == {"pods": 1_203, "peers": 1_203, "services": 0}
        assert [parameters.get("continue") for path, parameters in api.requests if path == PODS][:3] == [
            None,
            "500",
            "1000",
        ]


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_what_happens_is_known_at_once_and_goes_on_after_a_disconnect(api: KubernetesApi) -> None:
    with running() as k8s:
        for number in range(3):
            api.put(pod(f"p{number}", ip="10.0.0.9", uid=f"u{number}"))
            soon(
                "the pod is known", lambda number=number: "k8s.pod.name" in k8s.resource({"k8s.pod.uid": f"u{number}"})
            )
            api.disconnect()
        lists = [parameters for path, parameters in api.requests if path == PODS and "watch" not in parameters]
        assert len(lists) == 1


def test_a_version_that_is_too_old_means_to_list_anew(api: KubernetesApi) -> None:
    api.put(WEB, pod("gone", uid="gone", ip="10.0.0.7"))
    with running() as k8s:
        soon("both watches", lambda: api.watches == 2)
        api.silent = True
        api.delete_unseen(pod("gone", uid="gone"))
        api.put(pod("new", uid="new"))
        api.compact()
        api.silent = False
        api.disconnect()
        soon("the new pod", lambda: "k8s.pod.name" in k8s.resource({"k8s.pod.uid": "new"}))
        soon("the interruption", lambda: k8s.count("wirespan.k8s.watch.interruptions", path=PODS, reason="gone"))
        soon("it is listed anew", lambda: "k8s.pod.name" not in k8s.resource({"k8s.pod.ip": "10.0.0.7"}))
        lists = [parameters for path, parameters in api.requests if path == PODS and "watch" not in parameters]
        assert [parameters.get("resourceVersion") for parameters in lists] == ["0", None]


def test_a_watch_that_is_silent_is_begun_anew_and_meanwhile_nobody_has_the_address(api: KubernetesApi) -> None:
    api.put(WEB)
    with running(peers={"stale_after": "1s"}) as k8s:
        assert k8s.peer() == "web-1"
        assert "k8s.pod.name" in k8s.resource({"k8s.pod.ip": "10.0.0.1"})
        api.silent = True
        soon("nobody has the address", lambda: k8s.peer() is None)
        assert "k8s.pod.name" not in k8s.resource({"k8s.pod.ip": "10.0.0.1"})
        assert k8s.resource(INFERRED)["k8s.pod.name"] == "web-1"  # a uid is never another pod's
        soon("the interruption", lambda: k8s.count("wirespan.k8s.watch.interruptions", path=PODS, reason="network"))
        assert k8s.count("wirespan.k8s.peers.unknown", reason="stale")
        api.silent = False
        soon("the address is known again", lambda: k8s.peer() == "web-1")


@pytest.mark.parametrize(("status", "reason"), [(401, "denied"), (403, "denied"), (429, "refused"), (500, "refused")])
def test_a_server_that_refuses_is_asked_again(api: KubernetesApi, status: int, reason: str) -> None:
    api.refuse = status
    with running(wait_for_metadata=False) as k8s:
        soon(
            "the interruption",
            lambda: k8s.count("wirespan.k8s.watch.interruptions", path=PODS, reason=reason) >= 2,
        )
        assert k8s.resource(INFERRED)["wirespan.k8s.metadata.missing"] is True
        api.put(WEB)
        api.refuse = 0
        soon("the pod is known", lambda: "k8s.pod.name" in k8s.resource(INFERRED))


def test_a_server_that_is_away_at_the_start_and_later_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = KubernetesApi()
    api.put(WEB)
    with serving(api) as port:
        pass
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, port)))
    with running(wait_for_metadata=False) as k8s:
        soon("it was tried", lambda: k8s.count("wirespan.k8s.watch.interruptions", path=PODS, reason="network") >= 2)
        for number in range(2):
            with serving(api, port):
                api.put(pod("later", uid=f"later-{number}"))
                soon("it is known", lambda n=number: "k8s.pod.name" in k8s.resource({"k8s.pod.uid": f"later-{n}"}))


def test_a_defect_costs_one_object(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    read = PodReader.pod

    def fail(reader: PodReader, item: Mapping[str, Any]) -> Any:
        assert item["metadata"]["name"] != "bad"
        return read(reader, item)

    monkeypatch.setattr(PodReader, "pod", fail)
    api.put(pod("bad"), WEB)
    with running(peers={"enabled": False}) as k8s:
        assert k8s.resource(INFERRED)["k8s.pod.name"] == "web-1"
        api.put(pod("bad"), pod("later"))
        soon("it is known", lambda: "k8s.pod.name" in k8s.resource({"k8s.pod.uid": "uid-later"}))
        assert k8s.count("wirespan.k8s.watch.interruptions", path=PODS, reason="defect") == 2
        assert len([path for path, parameters in api.requests if "watch" not in parameters]) == 1


def test_metadata_that_is_waited_for_in_vain_is_no_start(api: KubernetesApi) -> None:
    api.refuse = 403
    with (
        pytest.raises(StartError, match=r"pods and Services were not known in 0\.2 s"),
        running(wait_for_metadata_timeout="200ms"),
    ):
        pass


def test_a_node_that_is_not_named_is_no_start(api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("K8S_NODE_NAME", raising=False)
    with (
        pytest.raises(StartError, match="K8S_NODE_NAME is not set"),
        running(filter={"node_from_env_var": "K8S_NODE_NAME"}),
    ):
        pass


@pytest.mark.parametrize("auth_type", ["serviceAccount", "kubeConfig", "none"])
def test_no_access_is_no_start_and_says_what_to_do(
    auth_type: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with (
        pytest.raises(StartError, match=f"no access to the API server by auth_type {auth_type}"),
        running(auth_type=auth_type),
    ):
        pass


def test_a_service_account_is_used_with_tls_and_its_token_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token is renewed in its file while the agent runs; the client reads the file once a minute, which is now here."""
    from kubernetes.config import incluster_config

    made, key = certificate(tmp_path, "localhost")
    token = tmp_path / "token"
    token.write_text("first")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(made))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made, key)
    api = KubernetesApi()
    api.token = "first"
    api.put(WEB)
    with serving(api, tls=tls) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        with running(auth_type="serviceAccount", peers={"enabled": False}) as k8s:
            assert k8s.resource(INFERRED)["k8s.pod.name"] == "web-1"
            loader = (
                k8s.processor._reflectors[0]._server._configuration.refresh_api_key_hook.__closure__[0].cell_contents
            )
            loader.token_expires_at = datetime.now()
            token.write_text("second")
            api.token = "second"
            api.disconnect()
            api.put(pod("later"))
            soon("it is known", lambda: "k8s.pod.name" in k8s.resource({"k8s.pod.uid": "uid-later"}))
            api.token = "third"
            api.disconnect()
            soon("it is refused", lambda: k8s.count("wirespan.k8s.watch.interruptions", path=PODS, reason="denied"))


def test_the_former_name_is_accepted() -> None:
    assert FACTORY.deprecated_names == ("k8sattributes",)
