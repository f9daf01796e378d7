"""What `make dist` makes: an sdist and a wheel, which runs where there is Python and libbpf but no compiler.

They are built in a copy of the tree, because building writes beside the sources. pip is all that makes the environment
in which the wheel runs; PATH names an empty folder there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import servers
from support.agent import Agent
from support.exchanges import PROGRAMS, assert_paired

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
COMPILED = ("wirespan/bpf/wirespan.bpf.o", "wirespan/native/libwirespan.so.1")
#: Neither what was built in the tree before nor its environment.
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", ".*_cache", "*.o", "*.so.1")
BUILD_TIMEOUT = 120.0
COMMIT_TIME = "1767225600"  # 2026-01-01
CONFIGURATION = """
receivers: {{ebpf: {{select: {{ports: [{port}]}}}}}}
exporters: {{file: }}
service: {{pipelines: {{traces: {{receivers: [ebpf], exporters: [file]}}}}}}
"""

pytestmark = pytest.mark.requires_command("clang", "llvm-strip", "readelf")


@dataclass(frozen=True)
class Built:
    """tree: the copy that they were built from."""

    tree: Path
    sdist: Path
    wheel: Path


def call(*command: str | Path, folder: Path, environment: dict[str, str] | None = None) -> str:
    """What a command prints; AssertionError with all of it unless it succeeds."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}"
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """By the script of `make dist`, in a copy of the tree that borrows the environment of these tests."""
    tree, folder = tmp_path_factory.mktemp("tree") / "wirespan", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=NOT_COPIED)
    (tree / ".venv").symlink_to(sys.prefix)
    call(tree / "scripts" / "build-dist", folder, folder=tree, environment={"SOURCE_DATE_EPOCH": COMMIT_TIME})
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert len(list(folder.iterdir())) == 2
    return Built(tree, sdist, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and what it depends on, none of which was compiled."""
    environment = tmp_path_factory.mktemp("clean") / "environment"
    call(sys.executable, "-m", "venv", environment, folder=environment.parent)
    options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    call(
        environment / "bin" / "pip",
        "install",
        *options,
        built.wheel,
        folder=environment.parent,
        environment=no_programs(environment.parent),
    )
    return environment / "bin"


def no_programs(folder: Path) -> dict[str, str]:
    """An environment without a compiler, or any other program."""
    (folder / "empty").mkdir(exist_ok=True)
    return {"PATH": str(folder / "empty")}


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def members(sdist: Path) -> list[str]:
    """The files of an sdist, by their paths below its only folder."""
    with tarfile.open(sdist) as archive:
        return [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]


def test_the_wheel_holds_what_is_compiled_and_nothing_of_a_general_name(built: Built) -> None:
    assert set(COMPILED) <= set(names(built.wheel))
    assert {name.partition("/")[0] for name in names(built.wheel)} == {"wirespan", f"wirespan-{VERSION}.dist-info"}


def test_the_wheel_holds_every_component_and_every_configuration_with_its_schema(built: Built) -> None:
    folders = ("receiver", "processors", "exporters", "config")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    expected = {f"wirespan/{path.relative_to(ROOT)}" for path in files if "__pycache__" not in path.parts}
    assert expected <= set(names(built.wheel))


def test_the_wheel_is_of_the_platform_that_its_library_runs_on(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        declared = archive.read(f"wirespan-{VERSION}.dist-info/WHEEL").decode()
        library = archive.extract("wirespan/native/libwirespan.so.1", tmp_path)
    tag = re.search(r"^Tag: py3-none-(manylinux_2_(\d+)_x86_64)$", declared, re.MULTILINE)
    assert tag, declared
    assert built.wheel.name == f"wirespan-{VERSION}-py3-none-{tag[1]}.whl"
    assert "Root-Is-Purelib: false" in declared
    text = call("readelf", "--wide", "--dynamic", "--version-info", library, folder=tmp_path)
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", text) == ["libc.so.6"]
    needed = [int(minor) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", text)]
    assert needed
    assert max(needed) <= int(tag[2])


def test_the_sdist_holds_sources_only(built: Built) -> None:
    held = members(built.sdist)
    assert {"setup.py", "scripts/build-bpf", "scripts/build-native", "LICENSE"} <= set(held)
    assert {"wirespan/bpf/wirespan.bpf.c", "wirespan/native/otlp.c", "wirespan/receiver/ebpf.py"} <= set(held)
    assert [name for name in held if name.endswith((".o", ".so.1", ".pyc"))] == []


def test_the_wheel_of_the_tree_is_that_of_the_sdist(built: Built, tmp_path: Path) -> None:
    environment = {"SOURCE_DATE_EPOCH": COMMIT_TIME}
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, built.tree]
    call(*command, folder=tmp_path, environment=environment)
    assert names(tmp_path / built.wheel.name) == names(built.wheel)
    assert (tmp_path / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def test_only_wirespan_becomes_importable(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib.metadata, importlib.util
files = importlib.metadata.files("wirespan")
print(*sorted({file.parts[0] for file in files if file.parts[0] != ".."}))
print([name for name in ("receiver", "exporters", "processors", "bpf", "config", "native") if importlib.util.find_spec(name)])
print(importlib.util.find_spec("wirespan").origin)
"""
    top_level, general, origin = call(installed / "python", "-c", code, folder=tmp_path).splitlines()
    assert top_level.split() == ["wirespan", f"wirespan-{VERSION}.dist-info"]
    assert general == "[]"
    assert Path(origin).is_relative_to(installed.parent)


def run(installed: Path, folder: Path, *arguments: str) -> str:
    return call(installed / "wirespan", *arguments, folder=folder, environment=no_programs(folder))


def test_the_installed_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "version") == f"wirespan {VERSION}\n"


@pytest.mark.requires_bpf
def test_the_installed_command_finds_all_that_it_needs(installed: Path, tmp_path: Path) -> None:
    report = json.loads(run(installed, tmp_path, "check", "--json"))
    found = {entry["requirement"]: entry["found"] for entry in report["checks"]}
    assert report["ok"], report
    for requirement, file in zip(("compiled programs", "compiled library"), COMPILED, strict=True):
        assert Path(found[requirement]).is_relative_to(installed.parent)
        assert found[requirement].endswith(file)


@pytest.mark.requires_bpf
def test_the_installed_command_sees_a_request(installed: Path, tmp_path: Path) -> None:
    command: Sequence[str | Path] = (installed / "wirespan",)
    with servers.python_server(PROGRAMS / "echo_server.py", tmp_path) as server:
        configuration = CONFIGURATION.format(port=server.port)
        with Agent(configuration, tmp_path, environment=no_programs(tmp_path), command=command) as agent:
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
            assert_paired(agent.wait_for_spans(2), 1)
