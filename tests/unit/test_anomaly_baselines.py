"""What is normal for each key: quantiles that forget, floors, what a young key borrows, and how many keys there are."""

from __future__ import annotations

import numpy as np
import pytest

from wirespan.processors.anomaly.baselines import Baselines
from wirespan.processors.anomaly.features import CALLS, DURATION, FEATURES, Values
from wirespan.processors.anomaly.keys import Identity, KeyTable, Level, template

HOUR = 3600.0


def identity(operation: str = "GET /", service: str = "shop") -> Identity:
    return Identity(service, 2, 8080, "http", operation)


class Known:
    """Baselines of durations, in ms."""

    def __init__(self, limit: int = 100, least_change: float = 0.001) -> None:
        self.keys = KeyTable(limit)
        self.baselines = Baselines(self.keys, least_change)

    def add(self, key: int, *milliseconds: float, weights: object = None, failed: bool = False) -> None:
        count = len(milliseconds)
        rows, errors = np.full(count, key, np.int32), np.full(count, failed)
        each = np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32)
        self.baselines.observe(rows, self.values(*milliseconds), errors, each)

    def values(self, *milliseconds: float) -> Values:
        values = np.full((len(milliseconds), len(FEATURES)), np.nan, np.float32)
        values[:, DURATION] = np.log1p(np.array(milliseconds) * 1000)
        return values

    def z(self, key: int, *milliseconds: float) -> list[float]:
        rows = np.full(len(milliseconds), key, np.int32)
        found: list[float] = self.baselines.deviations(rows, self.values(*milliseconds))[:, DURATION].tolist()
        return found


def lognormal(median: float, count: int = 2000, seed: int = 0, sigma: float = 0.2) -> list[float]:
    found: list[float] = (median * np.random.default_rng(seed).lognormal(0, sigma, count)).tolist()
    return found


def test_a_distance_is_in_standard_deviations_of_the_key() -> None:
    known = Known()
    key = known.keys.row(identity())
    known.add(key, *lognormal(100.0))
    known.baselines.refresh(0)
    usual, high, low = known.z(key, 100, 100 * np.exp(0.6), 100 * np.exp(-0.6))
    assert abs(usual) < 0.3
    assert high == pytest.approx(3, abs=0.5)
    assert low == pytest.approx(-3, abs=0.5)


def test_what_stands_for_many_counts_for_many() -> None:
    known = Known()
    key = known.keys.row(identity())
    known.add(key, *[500.0] * 500, *[10.0] * 50, weights=[1.0] * 500 + [100.0] * 50)  # slow ones are all kept
    known.baselines.refresh(0)
    low, high = np.expm1(known.baselines.usual(key, DURATION)) / 1000
    assert low == pytest.approx(10, rel=0.1)
    assert high == pytest.approx(500, rel=0.15)
    assert abs(known.z(key, 10)[0]) < 0.5


def test_nobody_feels_less_than_the_least_change() -> None:
    known = Known()
    key = known.keys.row(identity())
    known.add(key, *[0.03] * 1000)
    known.baselines.refresh(0)
    assert known.z(key, 0.9) == [0]
    assert known.z(key, 100)[0] > 20


def test_a_constant_has_a_scale_all_the_same() -> None:
    known = Known()
    key = known.keys.row(identity())
    known.add(key, *[200.0] * 1000)
    known.baselines.refresh(0)
    assert abs(known.z(key, 205)[0]) < 1
    assert np.isfinite(known.z(key, 400)[0])


def test_a_new_normal_is_accepted_within_the_hour_and_the_old_one_is_not_forgotten() -> None:
    known = Known()
    key = known.keys.row(identity())
    for _ in range(24):
        known.add(key, *lognormal(10, 500))
        known.baselines.refresh(HOUR)
    assert known.z(key, 40)[0] > 3
    for _ in range(4):
        known.add(key, *lognormal(40, 150))
        known.baselines.refresh(HOUR / 4)
    assert abs(known.z(key, 40)[0]) < 1
    assert abs(known.z(key, 10)[0]) < 1


def test_a_young_operation_borrows_from_its_service() -> None:
    known = Known()
    old, young = known.keys.row(identity("GET /old")), known.keys.row(identity("GET /young"))
    known.add(old, *lognormal(100))
    known.add(young, 1.0)
    known.baselines.refresh(0)
    assert abs(known.z(young, 100)[0]) < 1
    assert known.baselines.support(np.array([young], np.int32)).tolist() == [1]


def test_an_operation_that_came_after_the_last_look_is_everythings() -> None:
    known = Known()
    known.add(known.keys.row(identity("GET /old")), *lognormal(100))
    known.baselines.refresh(0)
    new = known.keys.row(identity("GET /new"))
    assert abs(known.z(new, 100)[0]) < 1
    assert known.baselines.support(np.array([new], np.int32)).tolist() == [0]


def test_an_error_surprises_where_there_are_few() -> None:
    known = Known()
    good, bad = known.keys.row(identity("GET /good")), known.keys.row(identity("GET /bad"))
    known.add(good, *[1.0] * 1000)
    known.add(bad, *[1.0] * 1000, failed=True)
    known.baselines.refresh(0)
    rows = np.array([good, bad, good], np.int32)
    surprise = known.baselines.error_surprise(rows, np.array([True, True, False]))
    assert surprise[0] > 3
    assert surprise[1] < 0.1
    assert surprise[2] == 0


def test_what_was_never_measured_is_not_unusual() -> None:
    known = Known()
    key = known.keys.row(identity())
    known.add(key, *lognormal(100))
    known.baselines.refresh(0)
    values = known.values(100)
    values[0, CALLS] = 3
    assert known.baselines.deviations(np.array([key], np.int32), values)[0, CALLS] == 0


def test_keys_are_bounded_and_what_finds_no_room_shares_a_row() -> None:
    keys = KeyTable(40)
    rows = [
        keys.row(identity(f"GET /{letter * 3}", f"service{number // 10 % 20}"))
        for number, letter in enumerate("abcdefghij" * 40)
    ]
    assert len(keys) <= 40
    assert {keys.levels[row] for row in rows} == {Level.PROTOCOL, Level.SERVICE, Level.OPERATION}
    assert keys.row(identity("GET /aaa", "service0")) == rows[0]
    known = Known()
    crowded = Baselines(keys, 0.001)
    crowded.observe(
        np.array(rows, np.int32),
        known.values(*[10.0] * len(rows)),
        np.zeros(len(rows), bool),
        np.ones(len(rows), np.float32),
    )
    crowded.refresh(0)
    assert np.abs(crowded.deviations(np.array(rows, np.int32), known.values(*[10.0] * len(rows)))).max() < 1


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("GET /users/17/orders/3", "GET /users/*/orders/*"),
        ("GET /api/v1/items", "GET /api/v1/items"),
        ("job 0b7c1e2a-9d1f-4a57-9a43-0d1d9f7c11aa", "job *"),
        ("fetch 5f2b9c01de", "fetch *"),
        ("TCP 6379", "TCP 6379"),
        ("SELECT deadbeef", "SELECT deadbeef"),
        ("s3_upload", "s3_upload"),
    ],
)
def test_what_identifies_one_thing_is_left_out_of_names(name: str, found: str) -> None:
    assert template(name) == found
