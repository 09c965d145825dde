"""Guards of several ranks that agree, on checkpoints in memory. Each function is one scenario."""

import math
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

import lossguard
from lossguard import Guard, Order, OrderKind, RanksError, Run
from lossguard.run.ranks import RankState, current_ranks
from lossguard.torch import Drawn, LossTerms, TorchRanks, over_ranks
from lossguard.vocabulary.errors import CheckpointMismatch
from tests.lossguard import windows
from tests.lossguard.scripted import Indices, Memory, ScriptedRun, new_order, rollback
from tests.waiting import pause

Result = dict[str, Any]


def run_of(orders: dict[int, Order] | None = None) -> Any:
    """Rank 0 has the orders; the others have the run that records nothing."""
    size, rank = dist.get_world_size(), dist.get_rank()
    if rank > 0:
        return Run(id="r", rank=rank, num_ranks=size)
    run = ScriptedRun(orders)
    run.num_ranks = size
    return run


def fail_on_last(changes: list[str]) -> None:
    if dist.get_rank() == dist.get_world_size() - 1:
        raise RuntimeError("no such group")
    changes.append("on here")


def follow(run: Run, checkpoints: Memory, until: int, kill_at: int | None = None) -> Result:
    changes: list[str] = []
    guard = Guard(run, checkpoints=checkpoints, every=2, ranks=TorchRanks(pause=0))
    guard.remedy("raise", lambda: changes.append("on"), lambda: changes.append("off"), lasts=3)
    guard.remedy("fail_on_last", lambda: fail_on_last(changes), lambda: changes.append("undone"))
    seen = []
    for step, batch in guard.steps(Indices(), until):
        checkpoints.model.append(batch)
        seen.append([step, batch])
        if step == kill_at and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
    result = {"seen": seen, "model": checkpoints.model, "steps": checkpoints.steps(), "by": guard.interrupted_by}
    return result | {"recorded": getattr(run, "recorded", []), "lr_scale": guard.lr_scale, "changes": changes}


def an_order_of_rank_0(folder: Path) -> Result:
    order = rollback(rewind_to=4, skip_from=4, skip_to=9, lr_scale=0.5, reason="spike")
    return follow(run_of({7: order}), Memory([]), 9)


def an_order_with_remedies(folder: Path) -> Result:
    return follow(run_of({7: rollback(rewind_to=4, remedies=("raise", "fail_on_last"))}), Memory([]), 9)


def an_older_checkpoint_that_rank_0_was_given(folder: Path) -> Result:
    """The others were given another one."""
    checkpoints, run = Memory([]), run_of()
    follow(run, checkpoints, 9)
    chosen = 4 if dist.get_rank() == 0 else 6
    guard = Guard(run, checkpoints=checkpoints, every=2, ranks=TorchRanks(pause=0), resume_from=chosen)
    steps = [step for step, _ in guard.steps(Indices(), 8)]
    refused = Guard(run, checkpoints=checkpoints, every=2, ranks=TorchRanks(pause=0), resume_from=chosen + 1)
    try:
        next(refused.steps(Indices(), 9))
    except lossguard.ConfigurationError as problem:
        return {"steps": steps, "left": checkpoints.steps(), "refused": str(problem)}
    raise AssertionError("no rank has refused the step")


def an_order_at_the_last_step(folder: Path) -> Result:
    return follow(run_of({7: rollback(rewind_to=4)}), Memory([]), 6)


def a_signal_on_the_last_rank(folder: Path) -> Result:
    return follow(run_of(), Memory([]), 100, kill_at=3)


def a_hold_and_its_release(folder: Path) -> Result:
    hold, release = new_order(OrderKind.HOLD, 1), new_order(OrderKind.RELEASE, 2)
    return follow(run_of({3: hold, 9: release}), Memory([]), 6)


def a_kill_file_while_held(folder: Path) -> Result:
    run = run_of({3: new_order(OrderKind.HOLD, 1)})
    if dist.get_rank() == 0:
        run.directory, accept, kill_file = folder, run.accept, folder / "no-orders"
        kill_file.unlink(missing_ok=True)
        run.accept = lambda order, detail="": (accept(order, detail), kill_file.write_text(""))
    return follow(run, Memory([]), 6)


def a_signal_while_held(folder: Path) -> Result:
    run = run_of({3: new_order(OrderKind.HOLD, 1)})
    if dist.get_rank() == 0:
        held = run.take_order
        run.take_order = lambda: os.kill(os.getpid(), signal.SIGTERM) if run.calls > 5 else held()
    return follow(run, Memory([]), 100)


class Failing(Memory):
    """Fails once to load on the last rank, with the model half loaded."""

    def __init__(self, problem: Exception) -> None:
        super().__init__([])
        self.problem: Exception | None = problem if dist.get_rank() == dist.get_world_size() - 1 else None

    def load(self, step: int, *, not_before: int = 0) -> dict[str, Any]:
        state = super().load(step, not_before=not_before)
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem
        return state


def a_restore_that_fails_on_the_last_rank(folder: Path) -> Result:
    return follow(run_of({7: rollback(rewind_to=2)}), Failing(RuntimeError("out of memory")), 9)


def a_restore_that_is_not_exact_on_the_last_rank(folder: Path) -> Result:
    run = run_of({7: rollback(rewind_to=2)})
    try:
        return follow(run, Failing(CheckpointMismatch("the lr was 1 and is 2")), 9)
    except CheckpointMismatch as mismatch:
        return {"raised": str(mismatch), "recorded": getattr(run, "recorded", [])}


class Samples:
    """Batches of 4 samples, others on each rank. On the last rank, the skipped samples come again from batch 60 on.

    `is_broken`: a batch of the last rank is another one each time.
    """

    def __init__(self, is_broken: bool) -> None:
        self.is_last = dist.get_rank() == dist.get_world_size() - 1
        self.is_broken, self.num_read = is_broken, 0

    def __getitem__(self, index: int) -> torch.Tensor:
        self.num_read += 1
        if self.is_last:
            index = 10_000 + self.num_read if self.is_broken else min(index, index % 20 + 40)
        return 1000 * (4 * index + torch.arange(4)[:, None]) + torch.arange(3) + dist.get_rank() * 10**6


def _compare(is_broken: bool) -> Result:
    """From step 50 back to step 38, past batches 40 to 59; a second order to skip comes 20 steps later."""
    run = run_of(
        {51: rollback(rewind_to=38, skip_from=40, skip_to=60), 72: rollback(2, rewind_to=50, skip_from=70, skip_to=72)}
    )
    guard = Guard(run, checkpoints=Memory([]), every=2, ranks=TorchRanks(pause=0))
    steps = [step for step, _ in guard.steps(Samples(is_broken), 80)]
    result = {"steps": steps, "skips": len(guard.ledger.skips), "recorded": getattr(run, "recorded", [])}
    return result | {"events": getattr(run, "events", []), "can_skip": getattr(run, "skips", None)}


def a_skipped_sample_that_returns_on_the_last_rank(folder: Path) -> Result:
    return _compare(is_broken=False)


def data_that_does_not_repeat_itself_on_the_last_rank(folder: Path) -> Result:
    return _compare(is_broken=True)


def skipped_samples_of_each_kind_of_data(folder: Path) -> Result:
    """What was trained on this rank before and after a rollback."""
    rank, size = dist.get_rank(), dist.get_world_size()
    sampler: Any = DistributedSampler(windows.Windows(), num_replicas=size, rank=rank)
    kinds: dict[str, Any] = {
        "loader": DataLoader(windows.Windows(), batch_size=windows.SIZE, sampler=sampler),
        "drawn": Drawn(windows.get_batch),
    }
    result: Result = {}
    for kind, data in kinds.items():
        past_the_bad = rollback(rewind_to=windows.REWIND_TO, skip_from=windows.BAD.start, skip_to=windows.BAD.stop)
        run = run_of({windows.LEFT + 1: past_the_bad})
        where = folder / f"{kind}-{size}"
        trained = windows.train(where, data, run=run, ranks=TorchRanks(pause=0))
        result[kind] = {"before": trained.before, "after": trained.after, "bad_after": trained.bad_after}
        result[kind] |= {"events": getattr(run, "events", [])}
    return result


def ranks_at_different_steps(folder: Path) -> Result:
    ranks = current_ranks()
    try:
        ranks.exchange(RankState(7 + dist.get_rank()), wait=True)
    except RanksError as problem:
        return {"raised": str(problem)}
    return {}


def an_order_from_the_fourth_boundary_on(folder: Path) -> Result:
    """The boundary at which all ranks know of the order: with one exchange per step, and with short steps."""
    boundaries = {}
    for between in (0.0, 60.0):
        ranks = TorchRanks(pause=between)
        received = [ranks.exchange(RankState(step, order=step >= 3 and ranks.rank == 0)).order for step in range(40)]
        boundaries[f"{between:g} s"] = received.index(True)
        ranks.exchange(RankState(40), wait=True)
    return boundaries


def an_exchange_after_a_close(folder: Path) -> Result:
    """The number of threads before, during and after two exchanges, and whether the second one delivers the order."""
    ranks = TorchRanks()
    threads = [num_threads()]
    for _ in range(2):
        received = ranks.exchange(RankState(3, order=ranks.rank == 0), wait=True)
        threads.append(num_threads())
        ranks.close()
        threads.append(num_threads())
    return {"threads": threads, "received_order": received.order}


def a_restart_for_an_order(folder: Path) -> Result:
    """An order of rank 0 ends all processes at the same boundary; a hold before it holds them all."""
    hold, release = new_order(OrderKind.HOLD, 1), new_order(OrderKind.RELEASE, 2)
    run = run_of({2: hold, 6: release, 8: rollback(3, rewind_to=2)})
    plan = lossguard.restart(run, ranks=TorchRanks(pause=0))
    num_steps = 0
    try:
        plan.resumed(plan.newest([0, 2] if dist.get_rank() == 0 else []) or 0)
        while num_steps < 99:
            num_steps += 1
            plan.check()
    except SystemExit as left:
        return {"code": left.code, "steps": num_steps, "recorded": getattr(run, "recorded", [])}
    raise AssertionError("no rank has left")


def num_threads() -> int:
    """Once it no longer changes: the kernel has a thread of Python for a moment longer than `join` waits."""
    numbers: list[int] = []
    while len(numbers) < 10 or len(set(numbers[-10:])) > 1:
        numbers.append(len(os.listdir("/proc/self/task")))
        pause(0.02)
    return numbers[-1]


def a_nan_on_the_last_rank(folder: Path) -> Result:
    rank = dist.get_rank()
    bad = rank == dist.get_world_size() - 1
    number, non_finite = torch.tensor(float(rank)), torch.tensor(math.nan if bad else 1.0)
    terms, norm = over_ranks(LossTerms(number, number, number, number, number), non_finite)
    other, _ = over_ranks(LossTerms(number, non_finite, number, number, non_finite), number)
    fields = [terms.cross_entropy, terms.log_z_max, norm, other.cross_entropy, other.log_z_max, other.log_z]
    return {"numbers": [repr(each.item()) for each in fields]}


def one_run_for_all(folder: Path) -> Result:
    first, second = (lossguard.init("p", mode="offline", directory=folder) for _ in range(2))
    result = {"ids": [first.id, second.id], "records": first.directory is not None}
    first.finish()
    second.finish()
    return result


SCENARIOS = [
    an_order_of_rank_0,
    an_order_with_remedies,
    an_older_checkpoint_that_rank_0_was_given,
    an_order_at_the_last_step,
    a_signal_on_the_last_rank,
    a_hold_and_its_release,
    a_kill_file_while_held,
    a_signal_while_held,
    a_restore_that_fails_on_the_last_rank,
    a_restore_that_is_not_exact_on_the_last_rank,
    a_skipped_sample_that_returns_on_the_last_rank,
    data_that_does_not_repeat_itself_on_the_last_rank,
    skipped_samples_of_each_kind_of_data,
    ranks_at_different_steps,
    an_order_from_the_fourth_boundary_on,
    an_exchange_after_a_close,
    a_restart_for_an_order,
    a_nan_on_the_last_rank,
    one_run_for_all,
]
