"""The Dockerfile: built for real, and run with a read-only root and four capabilities, not privileged.

`make test-image`; minutes, and programs that nothing else needs, so `make test` leaves it out.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import containers
from support.agent import READY
from support.capabilities import NEEDED, as_user
from support.exchanges import PROGRAMS
from support.processes import Process, free_port
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
DECLARED = "declared"

pytestmark = [
    pytest.mark.image,
    pytest.mark.requires_bpf,
    pytest.mark.requires_command("buildah", "runc", "debootstrap", "setpriv"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's file system."""
    folder = tmp_path_factory.mktemp("image")
    store = containers.Store(folder)
    store.make_base(folder / "base")
    store.build(ROOT, "wirespan")
    with store.mounted("wirespan") as mounted:
        yield mounted
    store.call("rmi", "--all", "--force")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """The port of an echo server of the host, of another user, who declares a service name."""
    port = free_port()
    command = [*as_user(["CAP_DAC_READ_SEARCH"], user=65534), sys.executable, PROGRAMS / "echo_server.py", str(port)]
    with Process("echo", command, tmp_path, {"OTEL_SERVICE_NAME": DECLARED}) as process:
        process.wait_for_port(port)
        yield port


def test_the_image_has_no_compiler_and_no_pip(root: Path) -> None:
    found = [path.name for folder in ("usr/bin", "opt/wirespan/bin") for path in (root / folder).iterdir()]
    assert "wirespan" in found
    assert [name for name in found if re.match(r"(clang|gcc|cc|pip|llvm-strip)", name)] == []


@pytest.mark.parametrize("own_network", [False, True], ids=["the host's network", "a network of its own"])
def test_a_container_with_four_capabilities_sees_the_hosts_requests(
    root: Path, server: int, tmp_path: Path, own_network: bool
) -> None:
    command = ["wirespan", "run", "--set", f"receivers.ebpf.select.ports=[{server}]"]
    with containers.run(root, tmp_path, command, NEEDED, own_network) as container:
        container.wait_for_log(READY)
        with socket.create_connection(("127.0.0.1", server)) as connection:
            connection.sendall(b"hello")
            assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
        line = re.compile(rf"^\S+ {DECLARED} +← 127\.0\.0\.1:\d+ +TCP {server} +ok ", re.MULTILINE)
        wait_until("a line of the span", lambda: line.search(container.log), timeout=10)
        assert "warning" not in container.log
        assert container.stop() == 0, container.log
    assert "unaccounted=0" in container.log


def test_check_finds_all_that_it_needs_in_the_container(root: Path, tmp_path: Path) -> None:
    with containers.run(root, tmp_path, ["wirespan", "check"], NEEDED, own_network=True) as container:
        assert container.popen.wait(30) == 0, container.log
    assert "wirespan can run here." in container.log


def test_the_image_runs_wirespan_without_being_told(root: Path) -> None:
    result = subprocess.run(["chroot", root, "/opt/wirespan/bin/wirespan", "version"], capture_output=True, text=True)
    assert re.fullmatch(r"wirespan \d+\.\d+\.\d+\n", result.stdout), result.stderr
