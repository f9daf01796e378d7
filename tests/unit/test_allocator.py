"""Memory that was freed leaves the process; asked of a process of its own, because a setting of malloc is for good."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PEAK = """
import re, sys
from pathlib import Path
from wirespan.service.allocator import return_freed_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

if sys.argv[1] == "set":
    return_freed_memory()
bytes(30_000_000)  # freed at once: without the setting such blocks are no longer mapped on their own
blocks = [b"x" * 300_000 for _ in range(150)]
top = b"x" * 1_000
before = resident()
del blocks
print((before - resident()) // 1024)
"""


def freed_megabytes(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", PEAK, how], capture_output=True, text=True, check=True, timeout=60)
    return int(ran.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc of another C library than glibc")
def test_freed_requests_leave_the_process() -> None:
    assert freed_megabytes("set") > 35
