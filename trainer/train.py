"""The training loop, and what it needs around it.

    python -m trainer run --recipe tiny [--fault corrupted_batches@320] [--url http://127.0.0.1:8000]

Shapes: B sequences, T positions, V vocabulary.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

import lossguard
from lossguard.batches import Indexable
from lossguard.torch import Checkpoints, causal_lm_loss, over_ranks
from trainer.config import Recipe
from trainer.data.batches import Batch, Batches, tokenizer
from trainer.display import Display
from trainer.errors import UserMistake
from trainer.faults import FAULTS, Fault, FaultyBatches, StateFaults
from trainer.model import GPT
from trainer.objective import objective, own_inputs
from trainer.origin import Origin
from trainer.parts import Parts, build
from trainer.probes import Probes
from trainer.ranks import part_of
from trainer.schedule import learning_rate, set_learning_rate
from trainer.throughput import Throughput

EVALUATION = 300.0
"""Seconds within which an evaluation is over, or something hangs."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Job:
    """What concerns one launch of a recipe and not the recipe itself."""

    directory: Path
    """Folder that holds the runs' folders."""
    run_id: str | None = None
    """A run to resume, or the name of a new one."""
    mode: str | None = None
    """online, offline or off; None leaves it to the SDK."""
    url: str | None = None
    """The collector; None leaves it to LOSSGUARD_URL."""
    faults: Sequence[Fault] = ()
    """Trouble planted on purpose."""
    skips: Sequence[lossguard.Skip] = ()
    """Batch ranges left out from the start, as after a rollback."""
    faults_at_steps: bool = False
    """See FaultyBatches: whether a fault in the data is placed by the step, also after batches were skipped."""
    instead: Callable[[FaultyBatches], Indexable] | None = None
    """Makes what is trained on of the run's batches: for a replay, which takes other ones at the same steps."""
    run: lossguard.Run | None = None
    """The run to report to, in place of one that `lossguard.init` begins."""
    accepts: Callable[[float, float], bool] | None = None
    """Whether the optimizer may take the step with this loss and gradient norm. Costs a host sync."""
    on_step: Callable[[int, int, dict[str, float]], None] | None = None
    """Called after every step with its batch index and metrics."""
    quiet: bool = False
    """Whether nothing is printed."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Outcome:
    """How a run ended."""

    run_id: str
    steps_done: int
    """Optimizer steps on the live line."""
    interrupted_by: signal.Signals | None
    """The signal that stopped it before its end."""
    model: GPT
    """As it was at the end."""
    throughput: Throughput
    """How fast it trained."""


def train(recipe: Recipe, job: Job) -> Outcome:
    """Train, from the run's newest checkpoint on where there is one. Raises UserMistake and LossguardError."""
    parts = build(recipe)
    batches = FaultyBatches(parts.batches, job.faults, at_steps=job.faults_at_steps)
    probes = Probes(recipe, bytewise=parts.batches.windows.bytewise)
    state_faults = StateFaults(job.faults, recipe.seed)
    run, guard = begin(recipe, job, parts)
    console = Console(highlight=False, soft_wrap=True, quiet=job.quiet or parts.rank > 0)
    showing = Display(recipe, run, guard, throughput=parts.throughput, console=console)
    with run, guard.ranks.reporting_lost_ranks(), showing as display:
        finished_last = time.perf_counter()
        feed = batches if job.instead is None else job.instead(batches)
        for step, batch in guard.steps(feed, until=recipe.steps):
            batches.reach(step + 1, guard.ledger.next_free(batch.index + 1))
            state_faults.begin(step, parts.model, parts.optimizer)
            lr = guard.lr_scale * learning_rate(step, recipe.optimizer, recipe.steps)
            set_learning_rate(parts.optimizer, lr * state_faults.lr_factor)
            metrics = learn(recipe, parts, batch, job.accepts)
            metrics |= {"lr": lr, "tokens": (step + 1) * recipe.tokens_per_step}
            if parts.held_out is not None and recipe.evaluate_every and (step + 1) % recipe.evaluate_every == 0:
                run.expect(next_report_in=EVALUATION)
                metrics |= judge(recipe, parts, parts.held_out)
            now = time.perf_counter()
            metrics["step_seconds"], finished_last = now - finished_last, now
            metrics |= parts.throughput.after(step, now)
            run.log(step, **metrics)
            if probes.due(step):
                probes.take(parts.model, run, step, parts.device)
            display.show(step, metrics)
            if job.on_step is not None:
                job.on_step(step, batch.index, metrics)
    return Outcome(
        run_id=run.id,
        steps_done=guard.step,
        interrupted_by=guard.interrupted_by,
        model=parts.model,
        throughput=parts.throughput,
    )


def begin(recipe: Recipe, job: Job, parts: Parts) -> tuple[lossguard.Run, lossguard.Guard]:
    """Open the run and its checkpoints. Raises UserMistake and LossguardError."""
    run = job.run or _open_run(recipe, job, parts)
    folder = run.directory or job.directory / recipe.project / run.id
    origin = Origin(recipe, num_windows=parts.batches.size)
    checkpoints = open_checkpoints(folder, recipe, origin=origin, model=parts.model, optimizer=parts.optimizer)
    guard = lossguard.Guard(run, checkpoints=checkpoints, every=recipe.checkpoint.every)
    for skip in job.skips:
        guard.ledger.add(skip)
    return run, guard


def _open_run(recipe: Recipe, job: Job, parts: Parts) -> lossguard.Run:
    facts = {"ranks": parts.num_ranks, "tokenizer": tokenizer(recipe, parts.batches.windows)}
    try:
        return lossguard.init(
            recipe.project,
            name=recipe.name,
            config=describe(recipe, job) | parts.throughput.facts() | facts,
            run_id=job.run_id,
            mode=job.mode,
            url=job.url,
            directory=job.directory,
            total_steps=recipe.steps,
        )
    except lossguard.ConfigurationError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        why = error.__cause__.strerror
        raise UserMistake(f"{job.directory} cannot hold runs ({why}): name another folder with --out.") from None


def learn(
    recipe: Recipe, parts: Parts, batch: Batch, accepts: Callable[[float, float], bool] | None
) -> dict[str, float]:
    """One optimizer step on `batch`, and its numbers, over all ranks. `accepts` is as in Job."""
    batch = part_of(batch).to(parts.device)
    with torch.autocast(parts.device.type, torch.bfloat16, enabled=parts.device.type == "cuda"):
        inputs_BT = own_inputs(parts.model, batch.inputs_BT, recipe.objective.own_inputs)
        logits_BTV = parts.network(inputs_BT)
    terms = objective(logits_BTV, batch.targets_BT, recipe.objective, z_weight=recipe.optimizer.z_weight)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    grad_norm = nn.utils.clip_grad_norm_(parts.model.parameters(), recipe.optimizer.clip_norm or math.inf)
    terms, grad_norm = over_ranks(terms, grad_norm)
    if accepts is None or accepts(terms.cross_entropy.item(), grad_norm.item()):
        parts.optimizer.step()
    parts.optimizer.zero_grad(set_to_none=True)
    # The one host sync of the step: every number in one transfer, after all work was queued.
    numbers = torch.stack((terms.cross_entropy, grad_norm, terms.log_z, terms.log_z_max, terms.z_loss)).tolist()
    return dict(zip(("loss", "grad_norm", "log_z", "log_z_max", "z_loss"), numbers, strict=True))


def judge(recipe: Recipe, parts: Parts, held_out: Batches) -> dict[str, float]:
    """The held-out loss, and its bits per byte where the bytes of a token are known."""
    loss = evaluate(parts.model, held_out, recipe.evaluate_batches, parts.device)
    if parts.token_bytes is None:
        return {"held_out_loss": loss}
    return {"held_out_loss": loss, "held_out_bits_per_byte": loss / math.log(2) / parts.token_bytes}


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches, num_batches: int, device: torch.device) -> float:
    """The mean loss of the first `num_batches` batches, in nats per token."""
    model.eval()
    total = torch.zeros((), device=device)
    for index in range(num_batches):
        batch = batches[index].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_BTV = model(batch.inputs_BT)
        total += causal_lm_loss(logits_BTV, batch.targets_BT).cross_entropy
    model.train()
    return total.item() / num_batches


def open_checkpoints(folder: Path, recipe: Recipe, **objects: Any) -> Checkpoints:
    """Raises UserMistake for a folder that cannot hold them."""
    try:
        return Checkpoints(folder / "checkpoints", keep=recipe.checkpoint.keep, blocking=False, **objects)
    except ValueError as mistake:
        raise UserMistake(f"{mistake}.") from None


def describe(recipe: Recipe, job: Job) -> dict[str, object]:
    """The configuration that is recorded with the run. It alone names the planted faults."""
    return recipe.to_dict() | {
        "faults": [str(fault) for fault in job.faults],
        "faults_in_data": [str(fault) for fault in job.faults if FAULTS[fault.kind].on_data is not None],
        "faults_at_steps": job.faults_at_steps,
        "skips": [[skip.skip_from, skip.skip_to] for skip in job.skips],
    }
