"""The rules of the repository itself: layout, layers, packaging, and no trace of the machine it was written on."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import tools
from support.availability import unavailable
from wirespan.service.config import load
from wirespan.service.document import ConfigurationError

ROOT = Path(__file__).parents[2]
LINKED = ["bpf", "config", "exporters", "extensions", "processors", "receiver"]
SOURCE_FOLDERS = [*LINKED, "bench", "docs", "scripts", "tests", "wirespan", ".ci"]
#: Folders of the machine where this was developed, written so that this line does not match itself.
MACHINE_PATHS = re.compile(r"(?<![\w*}])/(?:root|work)/|/tm[p]/w\b")


def sources() -> Iterator[Path]:
    """Every text file of the tree that is written by hand."""
    for folder in SOURCE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".o", ".pyc", ".1"}:
                yield path
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and path.name != ".git":  # in a linked worktree it is a file, with a path of the machine
            yield path


def python_run(code: str) -> str:
    """What a fresh interpreter, in another folder, prints."""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_generic_names_never_become_top_level_modules() -> None:
    code = """
import importlib, pkgutil, sys, wirespan
for module in pkgutil.walk_packages(wirespan.__path__, "wirespan."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted({"receiver", "exporters", "extensions", "processors", "config", "bpf"} & set(sys.modules)))
"""
    assert python_run(code).split() == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, wirespan; print(*sorted({'numpy', 'grpc', 'pydantic', 'opentelemetry'} & set(sys.modules)))"
    assert python_run(code).split() == []


@pytest.mark.parametrize("folder", LINKED)
def test_the_package_reaches_a_top_level_folder_through_a_relative_link(folder: str) -> None:
    assert os.readlink(ROOT / "wirespan" / folder) == f"../{folder}"
    assert (ROOT / folder).is_dir()


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_components_import_each_other_and_the_core_relatively() -> None:
    absolute = [
        str(path.relative_to(ROOT))
        for folder in ("receiver", "processors", "exporters", "extensions")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(
            r"^\s*(from|import) (wirespan|receiver|processors|exporters|extensions)\b", path.read_text(), re.MULTILINE
        )
    ]
    assert absolute == []


@pytest.mark.parametrize("suffix", [".py", ".c", ".h"])
def test_every_source_file_begins_with_its_theory_of_operation(suffix: str) -> None:
    opening = {".py": '"""', ".c": "/*", ".h": "/*"}[suffix]
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.suffix == suffix and opening not in "".join(path.read_text().splitlines(keepends=True)[:3])
    ]
    assert silent == []


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in sources()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert found == []


def test_every_configuration_in_the_tree_and_in_its_documents_is_accepted(tmp_path: Path) -> None:
    shown = [
        block
        for path in sources()
        if path.suffix == ".md"
        for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
        if re.search(r"^service:", block, re.MULTILINE)  # others are fragments
    ]
    for number, text in enumerate(shown):
        (tmp_path / f"{number}.yaml").write_text(text)
    for path in [*sorted((ROOT / "config").glob("*.yaml")), *sorted(tmp_path.iterdir())]:
        try:
            load(path, {})
        except ConfigurationError as error:
            pytest.fail(f"{path.read_text()}\n{error}")


def test_scripts_are_executable_and_stop_at_the_first_error() -> None:
    for path in [ROOT / ".ci" / "run", *(ROOT / "scripts").iterdir()]:
        assert os.access(path, os.X_OK), path
        assert "\nset -eu\n" in path.read_text(), path


def test_every_dependency_has_bounds_and_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reasons = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.+)", requirement).groups()  # type: ignore[union-attr]
        assert re.fullmatch(r"==[\d.]+|>=[\d.]+,<\d+", bounds), requirement
        assert f"`{name}`" in reasons, name


def test_the_installed_command_is_the_one_of_this_tree() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="wirespan")
    assert command.value == "wirespan.service.cli:main"
    assert Path(sys.executable).with_name("wirespan").exists()


def test_make_without_a_target_lists_what_there_is() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "run", "test", "lint", "bench", "fuzz", "test-tools", "test-image", "dist", "clean"):
        assert f"make {target} " in listed


def test_setup_has_nothing_to_do_the_second_time() -> None:
    stamp = ROOT / ".venv" / ".setup-dev"
    if not stamp.exists() or stamp.stat().st_mtime <= (ROOT / "pyproject.toml").stat().st_mtime:
        unavailable("pyproject.toml changed since `make setup-dev`")
    result = subprocess.run([ROOT / "scripts" / "setup", "dev"], capture_output=True, text=True, timeout=2)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_missing_go_is_said_clearly(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools.py"],
        env={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "test-tools: building the test tools needs Go 1.26 or later (https://go.dev/dl/), and there is no go in PATH\n"
    )


def test_a_tool_is_looked_for_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "wirespan" / "tools"
    folder.mkdir(parents=True)
    (folder / "otelcol-0.1.0").touch()
    assert tools.find("otelcol") is None
    (folder / f"otelcol-{tools.TOOLS['otelcol'].version}").touch()
    assert tools.find("otelcol") == tools.TOOLS["otelcol"].path
