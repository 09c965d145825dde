"""Ranks that communicate through torch.distributed, over a gloo group of their own, so that no device is waited for.

At a step boundary the ranks begin to find the maxima of nine integers, and read those of an earlier boundary, which
arrived long ago: the decision is the same on all ranks, and one exchange late. Short steps share an exchange, about two
a second, because an exchange costs each rank a few system calls: log2(ranks) messages (`collectives`).
"""

import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import timedelta
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lossguard.run import collectives
from lossguard.run.ranks import Ranks, RankState, SampleFindings
from lossguard.spool.writer import process_fields
from lossguard.vocabulary.errors import ConfigurationError, RanksError

T = TypeVar("T")
PAUSE = 0.5
"""Minimum seconds between two exchanges; steps that take longer have one each."""
MAX_STEPS_BETWEEN_EXCHANGES = 16
"""However short the steps are."""
GRACE = 1.0
"""Seconds in which the process behind a broken connection is looked for."""
_num_runs = count()


class TorchRanks(Ranks):
    """The ranks of the default process group, which must be initialised.

    `timeout`: seconds after which a silent rank counts as lost. A process that ends is noticed at once.
    `pause`: minimum seconds between two exchanges; 0 for one at every step.
    """

    def __init__(self, timeout: float = 600.0, pause: float = PAUSE) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.timeout = timeout
        self.pause = pause
        self._pending: collectives.MaximaInBackground | None = None
        self._interval = 1  # boundaries from one exchange to the next, the same on all ranks
        self._num_boundaries = 0  # since the last exchange began
        self._last_exchange_at = time.monotonic()
        self._processes: list[tuple[str, int]] = []  # host and process id of each rank

    def agree_on_run_id(self, given: str | None, otherwise: str) -> str:
        """Through the store, so that rank 0 does not wait. Raises ConfigurationError when rank 0 never calls it.

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
        return self.broadcast(self.gather_on_rank_0(value))

    def gather_on_rank_0(self, value: Any) -> list[Any]:
        gathered: list[Any] = self._call(collectives.gather_on_rank_0, value, self.group)
        return gathered

    def maximum(self, number: int) -> int:
        return int(self._call(collectives.maxima, torch.tensor([number], device="cpu"), self.group))

    def broadcast(self, value: T) -> T:
        values = [value]
        self._call(dist.broadcast_object_list, values, group=self.group, group_src=0)
        return values[0]

    def exchange(self, state: RankState, *, wait: bool = False) -> RankState:
        self._num_boundaries += 1
        if not wait and self._num_boundaries < self._interval:
            return RankState(state.step)
        earlier = self._finish_exchange()
        self._start_exchange(state)
        combined = self._finish_exchange() if wait else earlier
        return combined or RankState(state.step)

    @contextmanager
    def reporting_lost_ranks(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:
            if lost := self.lost_ranks():
                raise self._lost_error(lost) from problem
            raise

    def lost_ranks(self) -> list[int]:
        """Ranks on this machine whose process has ended."""
        here = socket.gethostname()
        deadline = time.monotonic() + GRACE
        while True:
            lost = [rank for rank, (host, pid) in enumerate(self._processes) if host == here and not _is_alive(pid)]
            if lost or time.monotonic() > deadline:
                return lost
            time.sleep(0.05)

    @cached_property
    def group(self) -> dist.ProcessGroup:
        """Created at its first use, by all ranks at the same place."""
        group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.timeout))
        processes = [collectives.gather_on_rank_0((socket.gethostname(), os.getpid()), group)]
        dist.broadcast_object_list(processes, group=group, group_src=0)
        self._processes = processes[0]
        return group

    def close(self) -> None:
        if "group" in vars(self):
            self._finish_exchange()
            dist.destroy_process_group(vars(self).pop("group"))

    def _start_exchange(self, state: RankState) -> None:
        now = time.monotonic()
        step_us = round(1e6 * (now - self._last_exchange_at) / self._num_boundaries)
        self._last_exchange_at, self._num_boundaries = now, 0
        # The lowest step is the highest of the negated ones.
        numbers = [state.signal, int(state.order), state.step, -state.step, step_us, *astuple(state.findings)]
        highest = torch.tensor(numbers, device="cpu")
        self._pending = collectives.MaximaInBackground(highest, self.group)

    def _finish_exchange(self) -> RankState | None:
        """The combined state of the pending exchange; None without one. Raises RanksError."""
        if self._pending is None:
            return None
        pending, self._pending = self._pending, None
        signal, order, step, negated_lowest, step_us, *findings = self._call(pending.wait).tolist()
        if -negated_lowest != step:
            raise RanksError(
                f"the ranks are at different steps, {-negated_lowest} to {step}: they cannot continue together"
            )
        steps_per_pause = math.ceil(1e6 * self.pause / max(1, step_us))
        self._interval = min(MAX_STEPS_BETWEEN_EXCHANGES, max(1, steps_per_pause))
        return RankState(step, signal, bool(order), SampleFindings(*findings))

    def _call(self, collective: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return collective(*arguments, **options)
        except RuntimeError as problem:
            raise self._lost_error(self.lost_ranks()) from problem

    def _lost_error(self, lost: list[int]) -> RanksError:
        names = ", ".join(f"rank {rank} (process {self._processes[rank][1]})" for rank in lost)
        return RanksError(
            f"{names or f'a rank elsewhere, or one silent for {self.timeout:g} s,'} left, and the others cannot go on: "
            "start again to resume"
        )


def _store() -> Any:
    """The store of the default process group, without the prefixes that change with each restart."""
    assert dist.group.WORLD is not None
    store = dist.group.WORLD.get_group_store()
    while isinstance(store, dist.PrefixStore):  # type: ignore[attr-defined]  # its own list lacks it
        store = store.underlying_store
    return store


def _is_alive(pid: int) -> bool:
    """Return True if a process is running; a zombie is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    fields = process_fields(pid)
    return fields[0] != "Z" if fields else not Path("/proc/self").exists()  # gone just now, or a system without /proc
