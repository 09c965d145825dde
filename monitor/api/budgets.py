"""Budgets of concurrent work: no client can use up one of them, so that there is room for the others."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from starlette.types import Scope

from monitor import problems

CLIENT_SHARE, PARTY_SHARE = 0.5, 0.75
"""The largest part of a budget for one token at one address; and for one token at all addresses, as for one address
with all tokens. Many trainers may share either, so both are large. They differ, so that there is still room for other
trainers behind the address of a hostile one, and for those elsewhere with the same token."""
RUN_SHARE = 1 / 16
"""The largest part of a budget for what writes one run. Its writes wait for each other, and each holds a thread and a
connection to the database meanwhile; a trainer sends one or two at a time."""


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

    @lru_cache(maxsize=1024)  # noqa: B019 - of values, not of objects that would be kept alive
    def shares(self) -> Shares:
        """The three that its work counts for, each with its largest part of a budget."""
        token, address = ("token", self.principal), ("address", self.address)
        return [(token + address, CLIENT_SHARE), (token, PARTY_SHARE), (address, PARTY_SHARE)]


class Budget:
    """So much at once; one request always has room. Lives in the event loop's thread, so that it needs no lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._taken_by: dict[tuple[str, ...], int] = {}

    def holding(self, client: Client, *, run_id: str | None = None) -> "Holding":
        """A context in which so much may be taken for the client, and which gives it back at its end.

        `run_id`: the run that is written.
        """
        shares = client.shares()
        return Holding(self, shares if run_id is None else (*shares, (("run", run_id), RUN_SHARE)))

    def take(self, shares: Shares, amount: int, held: int) -> None:
        """Take `amount` for a request that has `held` already. Raises Problem 429 if there is no room."""
        is_alone = self.taken == held
        if amount and not is_alone and not self._has_room(shares, amount):
            raise problems.busy()
        self.add(shares, amount)

    def _has_room(self, shares: Shares, amount: int) -> bool:
        if self.taken + amount > self._limit:
            return False
        taken = [(self._taken_by.get(holder, 0), share * self._limit) for holder, share in shares]
        return all(not before or before + amount <= most for before, most in taken)

    def add(self, shares: Shares, amount: int) -> None:
        """Count so much more, or less."""
        if not amount:
            return
        self.taken += amount
        for holder, _ in shares:
            left = self._taken_by.get(holder, 0) + amount
            if left:
                self._taken_by[holder] = left
            else:
                del self._taken_by[holder]


class Holding:
    """What one request holds of a budget. Not a generator: every request enters three of these."""

    __slots__ = ("_budget", "_held", "_shares")

    def __init__(self, budget: Budget, shares: Shares) -> None:
        self._budget, self._shares, self._held = budget, shares, 0

    def __enter__(self) -> Callable[[int], None]:
        return self._take

    def __exit__(self, *error: object) -> None:
        self._budget.add(self._shares, -self._held)

    def _take(self, amount: int) -> None:
        self._budget.take(self._shares, amount, self._held)
        self._held += amount
