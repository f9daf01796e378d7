"""Fixtures and markers that all tests share; the machinery is in tests/support/."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support import availability
from support.namespaces import Network, network

# Nothing has imported it yet: its assertions are to show what they compared, like those of the tests.
pytest.register_assert_rewrite("support.exchanges")

# How long an example takes depends on what else the machine does.
settings.register_profile("undisturbed", settings.default, deadline=None)
settings.load_profile("undisturbed")


def pytest_collection_finish() -> None:
    """All that is there by now stays, and spans by the ten thousand are no garbage: looking for some again and again took
    half of the time that reading them takes."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests say by markers what they need; see support/availability.py for what happens when it is not there."""
    if item.get_closest_marker("requires_bpf"):
        availability.need_bpf()
    for marker in item.iter_markers("requires_command"):
        for name in marker.args:
            availability.need_command(name)
    for marker in item.iter_markers("requires_tool"):
        for name in marker.args:
            availability.need_tool(name)


@pytest.fixture
def two_nodes() -> Iterator[Network]:
    """Two network namespaces with a Service address between them."""
    with network() as joined:
        yield joined
