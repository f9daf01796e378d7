"""Images built from a Dockerfile by buildah, and run by runc: neither needs a daemon.

The base of an image is not pulled but made by debootstrap, from the mirror that this machine's apt uses.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from support.availability import need_command, unavailable
from support.processes import Process

BASE = "docker.io/library/debian:bookworm-slim"
BASE_TIMEOUT, BUILD_TIMEOUT = 240.0, 600.0
#: where the base has the certificates of a machine that reaches the package index through a proxy of its own
_CERTIFICATES = "/usr/local/share/certificates.crt"


class Store:
    """Images and containers of buildah in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        storage = ["--storage-driver", "vfs", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._command = [str(need_command("buildah")), *storage]

    def call(self, *words: str | Path, timeout: float = BASE_TIMEOUT) -> str:
        """What buildah prints; AssertionError with all of it unless it succeeds."""
        command = [*self._command, *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        assert result.returncode == 0, f"{words}\n{result.stdout[-4000:]}{result.stderr[-4000:]}"
        return result.stdout.strip()

    def make_base(self, folder: Path) -> None:
        """The image BASE. Unavailable if the mirror is."""
        command = [need_command("debootstrap"), "--variant=minbase", "bookworm", folder]
        made = subprocess.run(command, capture_output=True, text=True, timeout=BASE_TIMEOUT)
        if made.returncode:
            unavailable(f"debootstrap cannot make a base: {made.stdout[-300:]}", obtainable=False)
        container = self.call("from", "scratch")
        self.call("add", "--quiet", container, folder, "/")
        if certificates := os.environ.get("PIP_CERT"):
            self.call("add", "--quiet", container, certificates, _CERTIFICATES)
            self.call("config", "--env", f"PIP_CERT={_CERTIFICATES}", container)
        self.call("commit", "--quiet", "--rm", container, BASE)

    def build(self, tree: Path, name: str) -> None:
        """The image of the Dockerfile in a tree."""
        options = ["--isolation", "chroot", "--pull-never", "--tag", name]
        self.call("bud", *options, tree, timeout=BUILD_TIMEOUT)

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The file system of a container of an image."""
        container = self.call("from", "--pull-never", image)
        try:
            yield Path(self.call("mount", container))
        finally:
            self.call("rm", container)


@contextmanager
def run(
    root: Path, folder: Path, command: Sequence[str], capabilities: Sequence[str], own_network: bool
) -> Iterator[Process]:
    """A container as `docker run --pid=host --read-only --cap-drop ALL --cap-add …` makes it."""
    runc = str(need_command("runc"))
    subprocess.run([runc, "spec", "--bundle", folder], check=True)
    specification = json.loads((folder / "config.json").read_text())
    process, linux = specification["process"], specification["linux"]
    process["terminal"] = False
    process["args"] = list(command)
    process["env"] = ["PATH=/opt/wirespan/bin:/usr/bin:/bin"]
    process["noNewPrivileges"] = True
    process["capabilities"] = {kind: list(capabilities) for kind in ("bounding", "effective", "permitted")}
    specification["root"] = {"path": str(root), "readonly": True}
    shared = {"pid", "cgroup"} if own_network else {"pid", "cgroup", "network"}
    linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] not in shared]
    specification["mounts"] = [mount for mount in specification["mounts"] if mount["type"] != "cgroup"]
    (folder / "config.json").write_text(json.dumps(specification))
    name = f"wirespan-test-{uuid4().hex[:12]}"
    words = [runc, "--root", str(folder / "state"), "run", "--bundle", str(folder), name]
    with Process("container", words, folder) as running:
        yield running
