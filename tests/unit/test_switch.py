"""A switch between a receiver and its pipelines: nobody is inside when it is turned."""

from __future__ import annotations

import threading
import time
from threading import Event, Thread
from typing import Any

import pytest

from support.waiting import wait_until
from wirespan.pipeline.component import Outcome
from wirespan.pipeline.encoded import EncodedBatch
from wirespan.service.switch import Switch

BATCH: Any = EncodedBatch("logs", b"", 1)


class Consumer:
    """Lets nobody out while the gate is closed."""

    def __init__(self) -> None:
        self.gate, self.got, self.inside = Event(), 0, 0
        self.gate.set()

    def consume(self, batch: Any) -> None:
        self.inside += 1
        assert self.gate.wait(5)
        self.got += 1

    def consume_encoded(self, batch: Any) -> Outcome:
        self.consume(batch)
        return Outcome.BUSY


def test_both_forms_pass_through_and_so_does_the_outcome() -> None:
    consumer = Consumer()
    switch = Switch(consumer)
    switch.consume(BATCH)
    assert switch.consume_encoded(BATCH) is Outcome.BUSY
    assert consumer.got == 2


def test_a_pause_ends_when_those_inside_are_through_and_holds_back_others() -> None:
    before, after = Consumer(), Consumer()
    switch = Switch(before)
    before.gate.clear()
    first = Thread(target=switch.consume, args=(BATCH,), daemon=True)
    first.start()
    wait_until("somebody inside", lambda: before.inside)
    assert not switch.pause(0.05)
    second = Thread(target=switch.consume, args=(BATCH,), daemon=True)
    second.start()
    before.gate.set()
    assert switch.pause(5)
    first.join()
    time.sleep(0.02)
    assert (before.got, after.got, second.is_alive()) == (1, 0, True)
    switch.resume(after)
    second.join()
    assert (before.got, after.got) == (1, 1)


def test_without_another_consumer_it_goes_on_as_before() -> None:
    consumer = Consumer()
    switch = Switch(consumer)
    assert switch.pause(1)
    switch.resume()
    switch.consume(BATCH)
    assert consumer.got == 1


def test_who_fails_inside_is_not_waited_for() -> None:
    class Failing:
        def consume(self, batch: Any) -> None:
            raise ZeroDivisionError

    switch = Switch(Failing())
    with pytest.raises(ZeroDivisionError):
        switch.consume(BATCH)
    assert switch.pause(0.1)


def test_it_turns_under_load_without_anybody_inside() -> None:
    lock = threading.Lock()

    class Counting:
        def __init__(self) -> None:
            self.inside = self.got = 0

        def consume(self, batch: Any) -> None:
            with lock:
                self.inside += 1
            with lock:
                self.inside -= 1
                self.got += 1

    consumers, sent, stopped = [Counting()], [0] * 3, Event()
    switch = Switch(consumers[0])

    def send(which: int) -> None:
        while not stopped.is_set():
            switch.consume(BATCH)
            sent[which] += 1

    threads = [Thread(target=send, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        assert switch.pause(5)
        assert consumers[-1].inside == 0
        consumers.append(Counting())
        switch.resume(consumers[-1])
    stopped.set()
    for thread in threads:
        thread.join()
    assert sum(consumer.got for consumer in consumers) == sum(sent) > 0
