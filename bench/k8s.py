"""What ``k8s_attributes`` costs: ``.venv/bin/python bench/k8s.py``.

Attributes and peers of batches of 10,000 spans of 100 processes with 1,000 other ends, once these are known: the fastest of
several rounds, in microseconds a span, and the median. Then what following 20,000 pods of the usual size, 6 KB each, takes, by
their addresses, as on a node, and with all that is extracted, as at a gateway: an agent of its own lists them from a double
of the API server in this process, which shares the machine with it. How many of its seconds are its own is said, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.kubernetes_api import KubernetesApi, kubeconfig, pod, serving  # noqa: E402
from support.otlp_batches import batch_of  # noqa: E402
from support.passing import Behind  # noqa: E402
from wirespan.pipeline.component import Context  # noqa: E402
from wirespan.pipeline.counters import Counters  # noqa: E402
from wirespan.pipeline.spans import Fragment, FragmentColumn, FragmentTable, ResourceTable, SpanBatch  # noqa: E402
from wirespan.processors.k8s_attributes.processor import K8sAttributesProcessor  # noqa: E402
from wirespan.processors.k8s_attributes.settings import K8sAttributesSettings  # noqa: E402

SPANS: Final = 10_000
PROCESSES, PEERS = 100, 1_000
NODE = "node-1"


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def pods(count: int, padding: int) -> list[dict[str, Any]]:
    """The first PROCESSES of them on the own node. padding: bytes of what pods have and nobody asks for."""
    made = []
    for number in range(count):
        item = pod(
            f"web-{number // 20}-5d4f8b7c9-{number:05x}",
            uid=f"{number:08x}-0000-4000-8000-{number:012x}",
            namespace=f"namespace-{number % 50}",
            node=NODE if number < PROCESSES else f"node-{number // 40 + 2}",
            ip=address(number),
            labels={"pod-template-hash": "5d4f8b7c9", "app": f"web-{number // 20}"},
            owner=("ReplicaSet", f"web-{number // 20}-5d4f8b7c9"),
            containers=[("main", "registry.example/web:1.2", f"{number:064x}")],
        )
        item["metadata"]["managedFields"] = [{"manager": "kubelet", "fields": "x" * 50}] * (padding // 90)
        made.append(item)
    return made


def spans() -> SpanBatch:
    resources, fragments = ResourceTable(), FragmentTable()
    for number in range(PROCESSES):
        resources.intern({"service.name": "nginx", "container.id": f"{number:064x}", "process.pid": number})
    for number in range(PEERS):
        fragments.intern(Fragment("GET", (("network.peer.address", address(number)),)))
    rows = np.arange(SPANS)
    return replace(
        batch_of(SPANS),
        start=np.full(SPANS, time.time_ns(), np.uint64),
        resource=rows % PROCESSES,
        resources=resources,
        fragments=(FragmentColumn(fragments, rows % PEERS),),
    )


def following(behind: Behind, node: str = NODE) -> K8sAttributesProcessor:
    chosen = {
        "auth_type": "kubeConfig",
        "wait_for_metadata": True,
        "wait_for_metadata_timeout": "5m",
        "filter": {"node": node},
    }
    settings = K8sAttributesSettings.model_validate(chosen)
    processor = K8sAttributesProcessor(settings, Context("k8s_attributes", Counters()), behind)
    processor.start()
    return processor


class _Nowhere(Behind):
    def consume(self, batch: SpanBatch) -> None:
        """Look that all is in it, and forget it."""
        resource = batch.resources.resources[batch.resource[-1]]
        assert "k8s.pod.name" in resource
        column = batch.fragments[-1]
        assert column.ids.all()
        assert column.table.fragments[column.ids[-1]].attributes[0][0] == "service.peer.name"


def warm(rounds: int) -> list[float]:
    processor, batch = following(_Nowhere()), spans()
    processor.consume(batch)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        processor.consume(batch)
        times.append((time.perf_counter() - begin) / SPANS * 1e6)
    processor.shutdown(time.monotonic())
    return times


def resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def follow(node: str) -> None:
    """In a process of its own: print what following all pods took."""
    import kubernetes.client.rest  # noqa: F401 - what it takes is another figure

    before, began, cpu = resident(), time.perf_counter(), time.process_time()
    processor = following(_Nowhere(), node)
    took, own = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"mb": resident() - before, "seconds": took, "cpu": own, **processor.facts()}))
    processor.shutdown(time.monotonic())


@click.command(help=__doc__)
@click.option("--pods", "count", default=20_000, show_default=True)
@click.option("--rounds", default=50, show_default=True)
@click.option("--follow", "node", hidden=True)
def main(count: int, rounds: int, node: str | None) -> None:
    if node is not None:
        follow(node)
        return
    api = KubernetesApi(bookmarks=30.0)
    api.put(*pods(count, padding=5_000))
    with tempfile.TemporaryDirectory() as folder, serving(api) as port:
        os.environ["KUBECONFIG"] = str(kubeconfig(Path(folder), port))
        for node, what in ((NODE, "addresses"), ("", "all that is extracted")):
            words = [sys.executable, __file__, "--follow", node]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            cost = f"{found['mb']:.1f} MB, {found['seconds']:.1f} s, of these {found['cpu']:.1f} s its own"
            click.echo(f"{found['peers']:,} pods, {what}: {cost}")
        times = warm(rounds)
    click.echo(f"batch of {SPANS:,}, warm: {min(times):.4f} us a span (median {statistics.median(times):.4f})")


if __name__ == "__main__":
    main()
