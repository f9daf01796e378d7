"""Pairing by order: the n-th response answers the n-th request.

Such a protocol has no ids, so one message missed shifts every pair behind it. Nothing is guessed:

- A gap over the beginning of a *request*: the requests before it still get their responses, in order; what follows
  cannot be paired.
- A gap over the beginning of a *response*, a response that nobody asked for, or joining in the middle: nothing
  pending can be paired.
- Both end where a *turn* begins: request bytes after response bytes, the first of which certainly begin a message.
  Some of the older responses may still be on their way then. So the pairs found from there are held until the next
  turn, and given out only if the turn balanced: every request answered, every response asked for, no message cut.
- A client that keeps requests under way all the time (it has sent one before the last was answered, after others
  were) balances by chance with pairs that are all shifted. Its connection stays lost until it was *quiet*.

A response whose request was not seen yet waits for it, since the call that sends a request may return long after its
answer was read: see :attr:`OrderedConnection.starved`.

What is left is a client that begins to overlap its requests in the very turn that had the gap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import Generic, TypeVar

from .parser import StreamExchange, UnansweredRequest
from .stream import Stream

#: requests without response that are kept (4 times the I/Os whose times are); the ones beyond are as if not captured
PENDING_LIMIT = 16_384
#: bytes of memory of a request under way, or of an exchange that is held back, about
_KEPT_A_REQUEST = 160

_request_start, _request_end = attrgetter("request_start"), attrgetter("request_end")

RequestsT = TypeVar("RequestsT", bound=Stream)
ResponsesT = TypeVar("ResponsesT", bound=Stream)


class OrderedConnection(ABC, Generic[RequestsT, ResponsesT]):
    """A :class:`~.parser.ConnectionParser` of two streams. A protocol says how messages are told apart; exchanges
    are collected in ``_found``. ``_switched``: the connection is no longer of this protocol."""

    __slots__ = (
        "_found",
        "_overlaps",
        "_requests",
        "_responses",
        "_switched",
        "_timed_out_to",
        "_trial",
        "_turned",
        "late",
        "unpaired",
    )

    def __init__(self, requests: RequestsT, responses: ResponsesT) -> None:
        self._requests = requests
        self._responses = responses
        self._found: list[StreamExchange] = []
        self._turned = False
        self._overlaps = False
        self._trial = False
        self._switched = False
        self._timed_out_to = 0
        self.late = 0
        self.unpaired = 0

    @property
    def skipped_bytes(self) -> int:
        return self._requests.skipped_bytes + self._responses.skipped_bytes

    @property
    def starved(self) -> bool:
        return self._responses.starved

    def feed_request(self, position: int, data: bytes, size: int) -> list[StreamExchange]:
        requests, responses = self._requests, self._responses
        if responses.starved and position > requests.end:
            self._give_up()  # its request is in the gap
        if self._turned:
            self._turned = False
            if requests.lost or self._trial:
                self._begin_turn(position, data)
            elif responses.starved or (self._waiting() and requests.at_boundary()):
                self._overlaps = True
        requests.feed(position, data, size)
        if responses.starved:
            responses.resume()
        return self._take_and_judge()

    def feed_response(self, position: int, data: bytes, size: int) -> list[StreamExchange]:
        self._turned = True
        if self._responses.starved:
            self.stop_waiting()
        self._responses.feed(position, data, size)
        return self._take_and_judge()

    def stop_waiting(self) -> None:
        if self._responses.starved:
            self._give_up()

    def quiet(self) -> None:
        if not self._responses.starved:
            self._overlaps = False

    def time_out(self, position: int) -> list[UnansweredRequest]:
        """A request whose turn it is does not wait: its response has begun. In doubt nobody knows who waits."""
        if self._trial or not self._responses.at_boundary():
            return []
        waiting = self.unanswered()
        overdue = waiting[: bisect_right(waiting, position, key=_request_end)]
        if overdue:
            self._timed_out_to = overdue[-1].request_end
        return overdue

    def finish(self) -> list[StreamExchange]:
        self.stop_waiting()
        self._end_streams()
        if self._trial:
            if self._balanced():
                self._trial = False
            else:
                self._discard()
        return self._take()

    @abstractmethod
    def unanswered(self) -> list[UnansweredRequest]: ...

    def pending(self) -> int:
        return len(self.unanswered()) + len(self._found)

    def kept_bytes(self) -> int:
        held = (self._waiting() + len(self._found)) * _KEPT_A_REQUEST
        return held + self._requests.kept_bytes + self._responses.kept_bytes

    def needed_from(self) -> tuple[int, int]:
        request, response = self._oldest_waiting()
        request = max(request, self._timed_out_to)
        if self._found:
            oldest = self._found[0]
            return min(request, oldest.request_start), min(response, oldest.response_start)
        return request, response

    @abstractmethod
    def _oldest_waiting(self) -> tuple[int, int]:
        """Where in each stream the first message begins that is in no exchange yet, complete or not."""

    @abstractmethod
    def _begins_message(self, data: bytes) -> bool:
        """Whether these first bytes of an I/O certainly begin a request."""

    @abstractmethod
    def _waiting(self) -> int:
        """Requests whose response is yet to come, those timed out included."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop every request that is in no exchange yet."""

    def _collect(self) -> None:
        """Put what has become complete into ``_found``, by :meth:`_add`."""

    def _add(self, exchanges: list[StreamExchange]) -> None:
        """Keep those that are not timed out; they come in the order of their positions."""
        if exchanges[0].request_start < self._timed_out_to:
            late = bisect_left(exchanges, self._timed_out_to, key=_request_start)
            self.late += late
            exchanges = exchanges[late:]
        self._found += exchanges

    def _end_streams(self) -> None:
        """The connection has ended; complete what that completes, a response that has begun as far as it came."""

    def _switch(self) -> None:
        """What follows is of another protocol."""
        self._switched = True
        self._give_up()

    def _take(self) -> list[StreamExchange]:
        self._collect()
        found = self._found
        if not found or self._trial:
            return []
        self._found = []
        return found

    def _take_and_judge(self) -> list[StreamExchange]:
        found = self._take()
        if self._responses.lost or (self._responses.starved and not self._may_have_unseen_requests()):
            self._give_up()
        return found

    def _may_have_unseen_requests(self) -> bool:
        """Whether what is seen of the requests has no gap, so that only younger ones can be missing."""
        return not self._trial and not self._requests.lost and self._requests.end >= 0

    def _begin_turn(self, position: int, data: bytes) -> None:
        if self._trial:
            if self._balanced():
                self._trial = False
                return
            self._overlaps = not (self._requests.lost or self._responses.lost)
        elif self._switched or self._waiting():
            return  # requests seen before the gap still get their responses
        if self._overlaps or not self._begins_message(data):
            self._give_up()
            return
        self._discard()
        self._trial = True
        self._requests.restart(position)
        self._responses.restart(-1)

    def _balanced(self) -> bool:
        streams = (self._requests, self._responses)
        complete = all(not stream.lost and stream.at_boundary() for stream in streams)
        return complete and not self._waiting() and bool(self._found)

    def _give_up(self) -> None:
        """It is unknown which responses come next."""
        self._discard()
        self._requests.lose()
        self._responses.lose()

    def _discard(self) -> None:
        if self._trial:
            self._trial = False
            self.unpaired += len(self._found)
            self._found = []
        self.unpaired += len(self.unanswered())
        self._forget()
