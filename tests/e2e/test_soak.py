"""The soak of `make soak`, for a moment: that all of it works, and that the account is exact."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # bench/ is run, not installed

from bench.soak import soak

pytestmark = [
    pytest.mark.requires_bpf,
    pytest.mark.requires_command("nginx", "ab", "h2load", "redis-server", "redis-benchmark"),
    pytest.mark.alone("its load is that of a whole machine"),
]

#: MB. In its first minute the agent still meets what it keeps (processes, texts, buffers of the largest batch), and a size
#: is the median of three samples only.
WARMING_UP = 20.0


def test_everything_at_once_is_accounted_for(tmp_path: Path) -> None:
    said = list[str]()
    found = soak(20, tmp_path, said.append)
    print(*said, found.ledger, f"{found.drift:+.1f} MB", sep="\n")
    assert found.flaws(drift_limit=WARMING_UP) == []
    assert len(said) == 1
