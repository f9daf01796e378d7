"""Fuzzing of the files of a stored queue: whatever they hold, it opens, and gives back nothing that was never put.

Seeds are as in test_fuzz_protocols.py.
"""

from __future__ import annotations

import random
from pathlib import Path

from support.fuzzing import bounded_runs
from support.storing import files, killed, opened, put
from wirespan.pipeline.storage import StorageError


def spoilt(source: random.Random, data: bytes) -> bytes:
    """As disks, power cuts and hands do it: cut, zeroed, flipped, moved, repeated."""
    changed = bytearray(data)
    for _ in range(source.randrange(1, 4)):
        at, length = source.randrange(len(changed) + 1), source.randrange(200)
        match source.randrange(6):
            case 0:
                del changed[at:]
            case 1:
                changed[at : at + length] = bytes(len(changed[at : at + length]))
            case 2:
                changed[at : at + 1] = source.randbytes(len(changed[at : at + 1]))
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[at:at] = source.randbytes(length)
    return bytes(changed)


def test_spoilt_files_cost_what_is_spoilt(tmp_path: Path) -> None:
    for number, source in enumerate(bounded_runs()):
        folder = tmp_path / str(number)
        folder.mkdir()
        requests = {source.randbytes(source.randrange(200)) + i.to_bytes(2, "big") for i in range(20)}
        queue = opened(folder)
        put(queue, *requests)
        killed(queue)
        (file,) = files(folder)
        whole = file.read_bytes()
        data = spoilt(source, whole)
        file.write_bytes(data)
        lost: list[int] = []
        queue = opened(folder, lost=lost)
        found = set()
        for entry in queue.entries():
            try:
                found.add(queue.read(entry))
            except StorageError:
                assert lost
        assert found <= requests
        assert found == requests or lost or whole.startswith(data)  # a cut between two records cannot be seen
        put(queue, b"goes on")
        queue.close()
