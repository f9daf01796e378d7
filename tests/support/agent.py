"""The agent as its users run it: the installed command, a YAML file, signals."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from support.processes import Process
from support.spans import Span, count_in_file, read_file
from support.waiting import wait_until

READY = "Everything is ready. Begin running and processing data."
COMMAND = Path(sys.executable).with_name("wirespan")


class Agent:
    """A running ``wirespan run --config``; as a context manager it is ready inside of the block.

    configuration: YAML text or the same as a mapping. An exporter ``file`` without a ``path`` writes to
    ``folder/spans.jsonl``, where ``spans`` looks for it. command: the installed one, or what starts it.
    """

    def __init__(
        self,
        configuration: str | Mapping[str, Any],
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str | Path] = (COMMAND,),
    ) -> None:
        loaded = yaml.safe_load(configuration) if isinstance(configuration, str) else configuration
        exporters, receivers = dict(loaded["exporters"]), dict(loaded["receivers"])
        for name in [name for name in receivers if name.startswith("ebpf")]:  # all spans, unless a test says otherwise
            receivers[name] = {"spans": {"probability": 1}, **(receivers[name] or {})}
        self._spans: Path | None = None
        if "file" in exporters:
            exporters["file"] = {"path": str(folder / "spans.jsonl"), **(exporters["file"] or {})}
            self._spans = Path(exporters["file"]["path"])
        path = folder / "wirespan.yaml"
        path.write_text(yaml.safe_dump({**loaded, "receivers": receivers, "exporters": exporters}, sort_keys=False))
        self.process = Process("wirespan", [*command, "run", "--config", path, *arguments], folder, environment)
        try:
            self.process.wait_for_log(READY)
        except AssertionError:
            self.process.stop()
            raise

    @property
    def log(self) -> str:
        return self.process.log

    @property
    def pid(self) -> int:
        return self.process.pid

    def spans(self) -> list[Span]:
        """What the file exporter has written so far."""
        assert self._spans is not None, "the configuration has no file exporter"
        return read_file(self._spans)

    def wait_for_spans(self, count: int, timeout: float = 10.0) -> list[Span]:
        """The spans, as soon as there are at least ``count``."""
        assert self._spans is not None, "the configuration has no file exporter"
        file = self._spans
        try:
            wait_until(f"{count} spans", lambda: count_in_file(file) >= count, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {len(self.spans())}\n{self.log}") from None
        return self.spans()

    def stop(self) -> list[Span]:
        """SIGTERM; it has to exit with status 0. Returns all spans of the file exporter, if it has one."""
        self._stop()
        return [] if self._spans is None else self.spans()

    def _stop(self) -> None:
        status = self.process.stop()
        assert status == 0, f"exit status {status}\n{self.log}"

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._stop()
        else:
            self.process.stop()
