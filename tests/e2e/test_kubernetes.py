"""Two pods, as far as the kernel can tell: network namespaces with an address each, processes in control groups as the kubelet
names them, and a double of the API server that knows of both. Each end is named, and so is its peer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.asking import control_group, move
from support.exchanges import PROGRAMS, RINGS, assert_paired, of_kind
from support.kubernetes_api import KubernetesApi, kubeconfig, pod, service, serving
from support.namespaces import Network
from support.nodes import inside
from support.waiting import wait_until

pytestmark = pytest.mark.requires_bpf

EXCHANGES = 400
CLIENT = """
import socket, sys
address, port, exchanges = sys.argv[1:]
with socket.create_connection((address, int(port))) as connection:
    for _ in range(int(exchanges)):
        connection.sendall(b"\\0\\0\\0\\4ping")
        assert connection.recv(8, socket.MSG_WAITALL) == b"\\0\\0\\0\\4pong"
    print("done", flush=True)
    sys.stdin.read()
"""
REQUEST, RESPONSE = b"\0\0\0\4ping", b"\0\0\0\4pong"
UIDS = {"server": "11111111-0000-4000-8000-000000000001", "client": "22222222-0000-4000-8000-000000000002"}
IDS = {"server": "5" * 64, "client": "c" * 64}


@contextmanager
def groups(version: str) -> Iterator[dict[str, Path]]:
    """The control groups of both pods' containers."""
    with ExitStack() as stack:
        for name in ("kubepods", "kubepods/burstable"):
            stack.enter_context(control_group(version, name))
        found = {}
        for name, uid in UIDS.items():
            stack.enter_context(control_group(version, f"kubepods/burstable/pod{uid}"))
            found[name] = stack.enter_context(control_group(version, f"kubepods/burstable/pod{uid}/{IDS[name]}"))
        yield found


def described(name: str, address: str) -> dict[str, object]:
    return pod(
        f"{name}-0",
        uid=UIDS[name],
        ip=address,
        owner=("StatefulSet", name),
        containers=[("main", f"registry.example/{name}:1.2", IDS[name])],
    )


def configuration(port: int, folder: Path) -> dict[str, object]:
    names = ("traces", "metrics")
    return {
        "receivers": {"ebpf": {"select": {"ports": [port]}, "rings": RINGS, "metrics": {"interval": "1s"}}},
        "processors": {"k8s_attributes": {"auth_type": "kubeConfig", "wait_for_metadata": True}},
        "exporters": {"file": {}, "file/metrics": {"path": str(folder / "metrics.jsonl")}},
        "service": {
            "pipelines": {
                name: {
                    "receivers": ["ebpf"],
                    "processors": ["k8s_attributes"],
                    "exporters": ["file" if name == "traces" else "file/metrics"],
                }
                for name in names
            }
        },
    }


def pods_of_metrics(folder: Path) -> set[tuple[str, str]]:
    """Service and pod of the resources that metrics of exchanges have had so far."""
    path, found = folder / "metrics.jsonl", set()
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        for group in json.loads(line)["resourceMetrics"] if line.endswith("\n") else ():
            names = {item["key"]: item["value"].get("stringValue", "") for item in group["resource"]["attributes"]}
            if "k8s.pod.uid" in names:
                found.add((names["service.name"], names.get("k8s.pod.name", "")))
    return found


@pytest.mark.parametrize(("version", "through_service"), [("v1", False), ("v2", True)])
def test_both_ends_of_an_exchange_and_its_metrics_say_which_pods_they_are(
    version: str, through_service: bool, tmp_path: Path, two_nodes: Network
) -> None:
    api, address = KubernetesApi(), two_nodes.server.address
    api.put(described("server", address), described("client", two_nodes.client.address))
    api.put(service("front", two_nodes.service))
    with ExitStack() as stack:
        group = stack.enter_context(groups(version))
        with inside(two_nodes.server):
            script, size = PROGRAMS / "fixed_server.py", str(len(REQUEST))
            words = ["--request-size", size, "--response", RESPONSE.hex(), "--address", address]
            server = stack.enter_context(servers.python_server(script, tmp_path, *words, address=address))
        move(server.process.pid, group["server"])
        path = kubeconfig(tmp_path, stack.enter_context(serving(api)))
        agent = stack.enter_context(
            Agent(configuration(server.port, tmp_path), tmp_path, environment={"KUBECONFIG": str(path)})
        )
        asked = two_nodes.service if through_service else address
        with asking(two_nodes, asked, server.port, group["client"]):
            wait_until("metrics of both", lambda: len(pods_of_metrics(tmp_path)) == 2)
        spans = agent.stop()
    assert pods_of_metrics(tmp_path) == {("server", "server-0"), ("client", "client-0")}
    assert_paired(spans, EXCHANGES)
    for kind, own, other in (("SERVER", "server", "client"), ("CLIENT", "client", "server")):
        for span in of_kind(spans, kind):
            resource, attributes = span["resource"], span["attributes"]
            assert resource.get("k8s.pod.name") == f"{own}-0"
            assert (resource["k8s.pod.uid"], resource["container.id"]) == (UIDS[own], IDS[own])
            assert resource["k8s.container.name"] == "main"
            assert (resource["service.name"], resource["service.namespace"]) == (own, "shop")
            assert resource["service.instance.id"] == f"shop.{own}-0.main"
            assert "wirespan.resource.inferred" not in resource
            peer = "front" if through_service and kind == "CLIENT" else other
            assert attributes["service.peer.name"] == attributes["peer.service"] == peer
            assert attributes.get("wirespan.peer.k8s.pod.name", "front") == (
                "front" if peer == "front" else f"{other}-0"
            )


@contextmanager
def asking(nodes: Network, address: str, port: int, group: Path) -> Iterator[None]:
    """A client that has had EXCHANGES with its server; it was in the group before it became the client, and stays."""
    enter = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group)]
    words = [*enter, sys.executable, "-c", CLIENT, address, str(port), str(EXCHANGES)]
    with inside(nodes.client):  # not by `ip netns exec`, which has a /sys of its own
        client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with client:
        assert client.stdout is not None
        assert client.stdout.readline() == "done\n"
        yield
        client.communicate(timeout=10)
