"""How many connections there are, out of the sockets that the kernel lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from support.edges import KEY, NAMES, described
from wirespan.receiver.edges import OVERFLOW
from wirespan.receiver.open_connections import OpenConnections
from wirespan.receiver.scopes import Records

OPEN = np.dtype([("cookie", "<u8"), ("edge", KEY), ("comm", "u1", 16)])


def listed(*sockets: tuple[int, int, str]) -> Records:
    """cookie, thread group and command of each."""
    found = np.zeros(len(sockets), OPEN)
    for row, (cookie, tgid, comm) in zip(found, sockets, strict=True):
        row["cookie"], row["edge"]["process"]["tgid"] = cookie, tgid
        row["edge"]["server_port"], row["edge"]["role"], row["edge"]["transport"] = 80, 2, 6
        row["comm"][: len(comm)] = list(comm.encode())
    return found


def by_service(connections: OpenConnections) -> dict[str, int]:
    return {
        str(dict(found.series.resource).get("service.name", "")): found.connections for found in connections.counts()
    }


def opened(limit: int = 100) -> OpenConnections:
    return OpenConnections(NAMES, described, limit)


def test_processes_of_a_service_are_one_series() -> None:
    connections = opened()
    connections.look(listed((1, 10, "shop"), (2, 10, "shop"), (3, 11, "shop"), (4, 12, "till")), 1_000)
    assert by_service(connections) == {"shop": 3, "till": 1}


def test_a_connection_that_several_processes_have_counts_once_for_the_first() -> None:
    connections = opened()
    connections.look(listed((1, 10, "shop"), (1, 11, "child"), (2, 11, "child")), 1_000)
    assert by_service(connections) == {"shop": 1, "child": 1}


def test_where_there_is_none_any_more_is_said_for_a_while() -> None:
    connections = opened()
    connections.look(listed((1, 10, "shop"), (2, 12, "till")), 1_000)
    for look in range(39):
        connections.look(listed((2, 12, "till")), 2_000 + look)
        assert by_service(connections) == {"shop": 0, "till": 1}
    connections.look(listed((2, 12, "till")), 3_000)
    assert by_service(connections) == {"till": 1}
    assert [found.start for found in connections.counts()] == [1_000]


def test_nothing_is_open() -> None:
    connections = opened()
    connections.look(listed(), 1_000)
    assert by_service(connections) == {}


def test_there_are_no_more_series_than_there_may_be() -> None:
    connections = opened(limit=10)
    many: Sequence[tuple[int, int, str]] = [(number, number, f"s{number}") for number in range(50)]
    connections.look(listed(*many), 1_000)
    counted = by_service(connections)
    assert len(counted) == 11
    assert counted[""] == 40
    assert sum(counted.values()) == 50
    assert OVERFLOW in {found.series for found in connections.counts()}
