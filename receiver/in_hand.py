"""Exchanges that are counted as observed and on their way between a ring and what is next: one number for all of them."""

from __future__ import annotations


class InHand:
    """Changed by the drain's thread; any may ask."""

    def __init__(self) -> None:
        self.exchanges = 0

    def take(self, exchanges: int) -> None:
        self.exchanges += exchanges

    def let_go(self, exchanges: int) -> None:
        """Others have them, or they are counted as what became of them."""
        self.exchanges -= exchanges
