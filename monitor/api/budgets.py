"""Budgets of concurrent work: no client can use up one of them, so that there is room for the others."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from starlette.types import Scope

from monitor import problems

CLIENT_SHARE, PARTY_SHARE = 0.5, 0.75
"""The largest part of a budget for one token at one address; and for one token at all addresses, as for one address
with all tokens. Many trainers may share either, so both are large. They differ, so that there is still room for other
trainers behind the address of a hostile one, and for those elsewhere with the same token."""


Shares = Sequence[tuple[tuple[str, ...], float]]


class Client(NamedTuple):
    """Whose work it is: the name of the token, and the address."""

    principal: str
    address: str

    @classmethod
    def of(cls, scope: Scope) -> "Client":
        """The client of a request after its authentication."""
        principal, address = scope.get("state", {}).get("principal"), scope.get("client")
        return cls("" if principal is None else principal.name, "" if address is None else address[0])

    def shares(self) -> Shares:
        """The three that its work counts for, each with its largest part of a budget."""
        token, address = ("token", self.principal), ("address", self.address)
        return [(token + address, CLIENT_SHARE), (token, PARTY_SHARE), (address, PARTY_SHARE)]


class Budget:
    """So much at once; one request always has room. Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._taken_by: Counter[tuple[str, ...]] = Counter()

    @contextmanager
    def holding(self, client: Client) -> Iterator[Callable[[int], None]]:
        """A function that takes so much for the client, and raises Problem 429 if there is no room. What was taken is
        given back at the end."""
        shares = client.shares()
        held = 0

        def take(amount: int) -> None:
            nonlocal held
            is_alone = self.taken == held
            if amount and not is_alone and not self._has_room(shares, amount):
                raise problems.busy()
            self._add(shares, amount)
            held += amount

        try:
            yield take
        finally:
            self._add(shares, -held)

    def _has_room(self, shares: Shares, amount: int) -> bool:
        if self.taken + amount > self._limit:
            return False
        taken = [(self._taken_by[holder], share * self._limit) for holder, share in shares]
        return all(not before or before + amount <= most for before, most in taken)

    def _add(self, shares: Shares, amount: int) -> None:
        self.taken += amount
        for holder, _ in shares:
            self._taken_by[holder] += amount
            if not self._taken_by[holder]:
                del self._taken_by[holder]
