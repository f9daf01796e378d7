"""A double of the API server of Kubernetes: lists and watches of pods and Services, over HTTP, with what goes wrong with them.

It keeps objects and a log of events. A list is what there is, in pages; a watch goes on from a version in the log, with bookmarks,
and with 410 for a version that was compacted away. Selectors are those that the processor sends.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Item = dict[str, Any]

CREATED = "2026-01-01T00:00:00Z"


def pod(name: str, **said: Any) -> Item:
    """A running pod of one container. said: uid, namespace, node, ip, phase, started, labels, annotations, owner (kind, name),
    containers (name, image, id), init, host_network, ended (when its containers did)."""
    uid = said.get("uid", f"uid-{name}")
    containers = said.get(
        "containers", [("main", f"registry.example/{name}:1.2", f"{name}".encode().hex().ljust(64, "0"))]
    )
    ended = said.get("ended")
    state = {"terminated": {"finishedAt": ended}} if ended else {"running": {"startedAt": CREATED}}
    metadata: Item = {
        "name": name,
        "namespace": said.get("namespace", "shop"),
        "uid": uid,
        "creationTimestamp": CREATED,
    }
    metadata |= {key: said[key] for key in ("labels", "annotations") if key in said}
    if "owner" in said:
        kind, owner = said["owner"]
        metadata["ownerReferences"] = [{"kind": kind, "name": owner, "uid": f"uid-{owner}", "controller": True}]
    spec: Item = {"nodeName": said.get("node", "node-1"), "containers": [_spec(one) for one in containers]}
    status: Item = {
        "phase": said.get("phase", "Running"),
        "startTime": said.get("started", CREATED),
        "containerStatuses": [_status(one, state) for one in containers],
    }
    if "init" in said:
        spec["initContainers"] = [_spec(one) for one in said["init"]]
        status["initContainerStatuses"] = [_status(one, state) for one in said["init"]]
    if said.get("host_network"):
        spec["hostNetwork"] = True
    addresses = said.get("ips", [said["ip"]] if "ip" in said else [])
    if addresses:
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    return {"metadata": metadata, "spec": spec, "status": status}


def service(name: str, *addresses: str) -> Item:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-of-service-{name}", "creationTimestamp": CREATED}
    spec = {"clusterIP": addresses[0], "clusterIPs": list(addresses)}
    return {"kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}}


def _spec(container: tuple[str, str, str]) -> Item:
    return {"name": container[0], "image": container[1]}


def _status(container: tuple[str, str, str], state: Item) -> Item:
    name, image, id_ = container
    described = {"name": name, "imageID": f"{image.partition(':')[0]}@sha256:{'ab' * 32}", "state": state}
    return {**described, **({"containerID": f"containerd://{id_}"} if id_ else {})}


class KubernetesApi:
    """refuse: the status that every request gets. token: what has to be sent. silent: no event and no bookmark goes out.
    bookmarks: seconds between them. requests: the path and parameters of each, as they came."""

    def __init__(self, bookmarks: float = 0.2) -> None:
        self.refuse = 0
        self.token: str | None = None
        self.silent = False
        self.bookmarks = bookmarks
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.watches = 0
        self._changed = threading.Condition()  # guards what follows
        self._items: dict[str, Item] = {}
        self._encoded: dict[str, bytes] = {}
        self._log: list[tuple[int, str, Item]] = []
        self._version = 100
        self._oldest = 0
        self._epoch = 0
        self.closing = False

    def put(self, *items: Item) -> None:
        for item in items:
            self._happen("MODIFIED" if item["metadata"]["uid"] in self._items else "ADDED", item)

    def delete(self, item: Item) -> None:
        self._happen("DELETED", item)

    def delete_unseen(self, item: Item) -> None:
        """As if by compaction: no watch will tell."""
        with self._changed:
            del self._items[item["metadata"]["uid"]]
            del self._encoded[item["metadata"]["uid"]]
            self._version += 1

    def compact(self) -> None:
        with self._changed:
            self._version += 1
            self._oldest = self._version

    def disconnect(self) -> None:
        """End all watches."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    def _happen(self, kind: str, item: Item) -> None:
        with self._changed:
            self._version += 1
            item = copy.deepcopy(item)
            item["metadata"]["resourceVersion"] = str(self._version)
            uid = item["metadata"]["uid"]
            if kind == "DELETED":
                self._items.pop(uid, None)
                self._encoded.pop(uid, None)
            else:
                self._items[uid] = item
                self._encoded[uid] = json.dumps(item).encode()
            self._log.append((self._version, kind, item))
            self._changed.notify_all()

    def page(self, path: str, parameters: Mapping[str, str]) -> bytes:
        with self._changed:
            items = [self._encoded[uid] for uid, item in self._items.items() if selected(item, path, parameters)]
            version = str(self._version)
        begin, limit = int(parameters.get("continue", 0)), int(parameters.get("limit", len(items) + 1))
        metadata = {"resourceVersion": version}
        if begin + limit < len(items):
            metadata["continue"] = str(begin + limit)
        head = b'{"kind":"List","apiVersion":"v1","metadata":%s,"items":[' % json.dumps(metadata).encode()
        return head + b",".join(items[begin : begin + limit]) + b"]}\n"

    def events(self, path: str, parameters: Mapping[str, str]) -> Iterator[bytes]:
        """Lines of a watch until it is ended."""
        version = int(parameters["resourceVersion"])
        if version < self._oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired"}
            yield _line("ERROR", status)
            return
        epoch, known = self._epoch, set(self._items)
        until = time.monotonic() + int(parameters["timeoutSeconds"])
        while self._epoch == epoch and not self.closing and time.monotonic() < until:
            with self._changed:
                if self.silent or self._version <= version:
                    self._changed.wait(self.bookmarks)
                news = [event for event in self._log if event[0] > version]
                current = self._version
            if self.silent:
                continue
            if not news:
                version = current
                yield _line("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})
            for number, kind, item in news:
                version = number
                if selected(item, path, parameters):
                    known.add(item["metadata"]["uid"])
                    yield _line(kind, item)
                elif (
                    selected(item, path, {}) and item["metadata"]["uid"] in known
                ):  # as a watch with selectors says that one has left it
                    yield _line("DELETED", item)


def selected(item: Item, path: str, parameters: Mapping[str, str]) -> bool:
    if item.get("kind", "Pod") != ("Service" if path.endswith("/services") else "Pod"):
        return False
    labels = item["metadata"].get("labels", {})
    for part in filter(None, parameters.get("labelSelector", "").split(",")):
        key, _, value = part.partition("=")
        if labels.get(key) != value:
            return False
    values = {"spec.nodeName": item["spec"].get("nodeName"), "status.phase": item["status"].get("phase")}
    for part in filter(None, parameters.get("fieldSelector", "").split(",")):
        key, _, value = part.partition("!=") if "!=" in part else part.partition("=")
        if (values[key] == value) is ("!=" in part):
            return False
    return True


def _line(kind: str, item: Item) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: KubernetesApi

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        url, api = urlsplit(self.path), self.api
        parameters = {key: values[0] for key, values in parse_qs(url.query).items()}
        api.requests.append((url.path, parameters))
        wrong = api.token is not None and self.headers.get("Authorization", "").lower() != f"bearer {api.token}"
        if api.refuse or wrong:
            self.send_response(api.refuse or 401)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif parameters.get("watch"):
            self._watch(url.path, parameters)
        else:
            body = api.page(url.path, parameters)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _watch(self, path: str, parameters: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.api.watches += 1
        try:
            for line in self.api.events(path, parameters):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the watcher went
            self.close_connection = True
        finally:
            self.api.watches -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def serving(api: KubernetesApi, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port at which it answers."""
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", port), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        api.closing = True
        api.disconnect()
        server.shutdown()
        server.server_close()
        thread.join()
        api.closing = False


def kubeconfig(folder: Path, port: int, token: str = "secret") -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path
