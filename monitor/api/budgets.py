"""Budgets of concurrent work: no client can use up one of them, so that there is room for the others."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from starlette.types import Scope

from monitor import problems

CLIENT_SHARE, PARTY_SHARE = 0.5, 0.75
"""The largest part of a budget for one token at one address; and for one token at all addresses, as for one address
with all tokens. Many trainers may share either, so both are large. They differ, so that there is still room for other
trainers behind the address of a hostile one, and for those elsewhere with the same token."""


Principal, Address = tuple[Literal["principal"], str], tuple[Literal["address"], str]


class Client(NamedTuple):
    """Whose work it is."""

    principal: Principal
    address: Address

    @classmethod
    def of(cls, scope: Scope) -> "Client":
        """The client of a request after its authentication."""
        principal, address = scope.get("state", {}).get("principal"), scope.get("client")
        return cls(
            ("principal", "" if principal is None else principal.name),
            ("address", "" if address is None else address[0]),
        )


Holder = Client | Principal | Address


class Budget:
    """So much at once; one request always has room. Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._taken_by: Counter[Holder] = Counter()

    @contextmanager
    def holding(self, client: Client) -> Iterator[Callable[[int], None]]:
        """A function that takes so much for the client, and raises Problem 429 if there is no room. What was taken is
        given back at the end."""
        holders = [(client, CLIENT_SHARE), (client.principal, PARTY_SHARE), (client.address, PARTY_SHARE)]
        held = 0

        def take(amount: int) -> None:
            nonlocal held
            if not self._has_room(holders, amount):
                raise problems.busy()
            self._add(holders, amount)
            held += amount

        try:
            yield take
        finally:
            self._add(holders, -held)

    def _has_room(self, holders: Sequence[tuple[Holder, float]], amount: int) -> bool:
        if not self.taken:
            return True
        if self.taken + amount > self._limit:
            return False
        taken = [(self._taken_by[holder], share * self._limit) for holder, share in holders]
        return all(not before or before + amount <= most for before, most in taken)

    def _add(self, holders: Sequence[tuple[Holder, float]], amount: int) -> None:
        self.taken += amount
        for holder, _ in holders:
            self._taken_by[holder] += amount
            if not self._taken_by[holder]:
                del self._taken_by[holder]
