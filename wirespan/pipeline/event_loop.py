"""An event loop in a thread of its own, for components that serve many connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import Any

from .scheduling import schedule_as_batch


class EventLoop:
    """Runs from construction to ``stop``. name: of the thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait_for(self, work: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
        """Have the loop do it; raises what the work raises, and TimeoutError."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        schedule_as_batch()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()
