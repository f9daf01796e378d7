"""What was compiled says of which sources: with others beside it, it is not run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wirespan.native.library import library
from wirespan.native.sources import of_library, of_programs
from wirespan.receiver.kernel.libbpf import BpfObject
from wirespan.receiver.kernel.session import object_path

ROOT = Path(__file__).parents[2]
LOAD_LIBRARY = "from wirespan.native.library import library; library()"
LOAD_PROGRAMS = """
from wirespan.native.sources import of_programs
from wirespan.receiver.kernel.programs import load
from wirespan.receiver.kernel.session import object_path
load(object_path(), [], sources=of_programs())
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of a copy of the package, with what was compiled in it."""
    shutil.copytree(ROOT / "wirespan", tmp_path / "wirespan", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "wirespan"


def errors_of(program: str, package: Path) -> str:
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=package.parent, capture_output=True, text=True, timeout=60)
    return "" if result.returncode == 0 else result.stderr.splitlines()[-1]


def test_what_is_compiled_here_is_of_these_sources() -> None:
    assert library().sources() == of_library()
    with BpfObject.open(object_path()) as programs:
        assert programs.variable("sources") == of_programs()


@pytest.mark.parametrize("changed", ["native/otlp.c", "native/key_table.h", "bpf/record.h", "bpf/postgresql.h"])
def test_a_library_that_is_older_than_its_sources_is_refused(changed: str, package: Path) -> None:
    assert errors_of(LOAD_LIBRARY, package) == ""
    with (package / changed).open("a") as source:
        source.write("\n/* another */\n")
    said = errors_of(LOAD_LIBRARY, package)
    assert said.endswith("libwirespan.so.1 was compiled from other sources; run make setup")


def test_programs_that_are_older_than_their_sources_are_refused(package: Path) -> None:
    with (package / "bpf" / "lock.h").open("a") as source:
        source.write("\n/* another */\n")
    said = errors_of(LOAD_PROGRAMS, package)
    assert said.endswith("wirespan.bpf.o was compiled from other sources; run make setup")


@pytest.mark.parametrize(
    "program", [LOAD_LIBRARY, "from wirespan.native.sources import *; assert of_programs() is None"]
)
def test_without_sources_nothing_is_compared(program: str, package: Path) -> None:
    for source in [*package.glob("native/*.[ch]"), *package.glob("bpf/*.[ch]")]:
        source.unlink()
    assert errors_of(program, package) == ""


def test_comparing_takes_less_than_four_milliseconds() -> None:
    durations = []
    for _ in range(20):
        began = time.perf_counter()
        of_programs(), of_library()
        durations.append(time.perf_counter() - began)
    assert min(durations) < 0.004
