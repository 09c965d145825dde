"""Ranks that agree by torch.distributed, over a gloo group of their own: no device is ever waited for.

At a step boundary each rank sends four integers to all others and takes up those of an earlier boundary, which have
long arrived: the decision is the same on all ranks, and a step late. Where steps are short they do so twice a
second only, as an exchange costs the CPU of a few system calls on each rank.
"""

import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lossguard.errors import ConfigurationError, RanksError
from lossguard.ranks import Ranks, RankState

T = TypeVar("T")
PAUSE = 0.5
"""Seconds between two exchanges, at least; steps that take longer have one each."""
MOST_STEPS = 16
"""Steps between two exchanges, at most, however short they are."""
GRACE = 1.0
"""Seconds in which a process whose connection broke is looked for."""
_num_runs = count()


class TorchRanks(Ranks):
    """The ranks of the default process group, which must be initialised.

    `timeout`: seconds after which a rank that is silent counts as gone. One whose process dies is noticed at once.
    `pause`: seconds between two exchanges, at least; 0 for one at every step.
    """

    def __init__(self, timeout: float = 600.0, pause: float = PAUSE) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.timeout = timeout
        self.pause = pause
        self._under_way: tuple[dist.Work, list[Tensor]] | None = None
        self._interval = 1  # boundaries from one exchange to the next, the same on all ranks
        self._boundaries = 0  # since the last exchange, which began
        self._since = time.monotonic()
        self._processes: list[tuple[str, int]] = []  # host and process of each rank

    def name_run(self, given: str | None, otherwise: str) -> str:
        """By the store, so that rank 0 may do this alone. Raises ConfigurationError when rank 0 does not.

        `torchrun --max-restarts` keeps the store, and so the id, when it starts the processes again.
        """
        store, key = _store(), f"lossguard/run/{next(_num_runs)}"
        if self.rank == 0:
            if given is not None or not store.check([key]):
                store.set(key, given or otherwise)
            return str(store.get(key), "utf-8")
        try:
            store.wait([key], timedelta(seconds=min(60.0, self.timeout)))
        except RuntimeError as problem:
            raise ConfigurationError("rank 0 has not called lossguard.init: call it on every rank") from problem
        return str(store.get(key), "utf-8")

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        self._collectively(dist.all_gather_object, values, value, group=self.group)
        return values

    def share(self, value: T) -> T:
        values = [value]
        self._collectively(dist.broadcast_object_list, values, group=self.group, group_src=0)
        return values[0]

    def meet(self, word: RankState, *, wait: bool = False) -> RankState:
        self._boundaries += 1
        if not wait and self._boundaries < self._interval:
            return RankState(word.step)
        before = self._hear()
        self._say(word)
        now = self._hear() if wait else before
        return now or RankState(word.step)

    @contextmanager
    def telling_who_left(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            if gone := self.gone():
                raise self._left(gone) from problem
            raise

    def gone(self) -> list[int]:
        """Ranks on this machine whose process has ended."""
        here = socket.gethostname()
        deadline = time.monotonic() + GRACE
        while True:
            left = [rank for rank, (host, pid) in enumerate(self._processes) if host == here and not _lives(pid)]
            if left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)

    @cached_property
    def group(self) -> dist.ProcessGroup:
        """Made when it is first used, by all ranks at the same place."""
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.timeout))
        processes: list[Any] = [None] * self.size
        dist.all_gather_object(processes, (socket.gethostname(), os.getpid()), group=group)
        self._processes = processes
        return group

    def close(self) -> None:
        if "group" in vars(self):
            self._hear()
            dist.destroy_process_group(vars(self).pop("group"))

    def _say(self, word: RankState) -> None:
        now = time.monotonic()
        pace = round(1e6 * (now - self._since) / self._boundaries)  # microseconds of a step
        self._since, self._boundaries = now, 0
        mine = torch.tensor([word.signal, int(word.order), word.step, pace])
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        self._under_way = self._collectively(dist.all_gather, everyone, mine, self.group, async_op=True), everyone

    def _hear(self) -> RankState | None:
        """What all ranks said in the exchange that is under way. Raises RanksError."""
        if self._under_way is None:
            return None
        (work, everyone), self._under_way = self._under_way, None
        self._collectively(work.wait)
        signals, orders, steps, paces = zip(*(each.tolist() for each in everyone), strict=True)
        if min(steps) != max(steps):
            raise RanksError(
                f"the ranks are at different steps, {min(steps)} to {max(steps)}: they cannot go on together"
            )
        self._interval = min(MOST_STEPS, max(1, math.ceil(1e6 * self.pause / max(1, *paces))))
        return RankState(steps[0], max(signals), any(orders))

    def _collectively(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except RuntimeError as problem:
            raise self._left(self.gone()) from problem

    def _left(self, gone: list[int]) -> RanksError:
        names = ", ".join(f"rank {rank} (process {self._processes[rank][1]})" for rank in gone)
        return RanksError(
            f"{names or f'a rank elsewhere, or one that has not answered in {self.timeout:g} s,'} left, and the others "
            "cannot go on without it: start again, and the run goes on from its newest checkpoint"
        )


def _store() -> Any:
    """The store of the default process group, without the prefixes that differ from one restart to the next."""
    assert dist.group.WORLD is not None
    store = dist.group.WORLD.get_group_store()
    while isinstance(store, dist.PrefixStore):  # type: ignore[attr-defined]  # its own list lacks it
        store = store.underlying_store
    return store


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()  # gone just now, or a system without /proc
