"""Another configuration for an agent that runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from support.agent import Agent
from support.waiting import wait_until

REPLACED = "The configuration was replaced"


def reload(agent: Agent, folder: Path, change: Callable[[dict[str, Any]], None], says: str = REPLACED) -> None:
    """Change the agent's file, and have it read again."""
    file = folder / "wirespan.yaml"
    configuration = yaml.safe_load(file.read_text())
    change(configuration)
    file.write_text(yaml.safe_dump(configuration, sort_keys=False))
    before = agent.log.count(says)
    os.kill(agent.pid, signal.SIGHUP)
    wait_until(f"{says} {before + 1}", lambda: agent.log.count(says) > before, timeout=20)
