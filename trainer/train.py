"""The training loop and its preparation.

    python -m trainer run --recipe tiny [--fault corrupted_batches@320] [--url http://127.0.0.1:8000]

Shapes: B sequences, T positions, V vocabulary.
"""

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import torch
from rich.console import Console
from torch import nn

import lossguard
from lossguard.torch import Checkpoints, Gate, over_ranks, tokens_per_rank
from trainer.components import Components, build_components
from trainer.config import Recipe
from trainer.data.held_out import HeldOut
from trainer.data.tokenizer import batch_text
from trainer.data.windows import Batch
from trainer.display import Display
from trainer.errors import Stopped, UsageError
from trainer.faults import FAULTS, Fault, FaultyBatches, StateFaults
from trainer.measurement.evaluation import HeldOutLoss, evaluate, perplexity
from trainer.measurement.probes import Probes
from trainer.optimization.objective import objective
from trainer.optimization.schedule import learning_rate
from trainer.optimization.scheduled_sampling import training_inputs
from trainer.process.checkpoint_place import checkpoint_place
from trainer.process.provenance import Provenance
from trainer.process.ranks import local_batch, rank_and_size
from trainer.process.signals import ExtraSignals
from trainer.remedies import Knobs, register_remedies

MAX_EVALUATION_SECONDS = 300.0
"""An evaluation that takes longer hangs."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Job:
    """The settings of one launch of a recipe."""

    directory: Path
    """Folder that contains the folders of the runs."""
    checkpoints: str | None = None
    """A folder, or a URL, that contains the checkpoints of the runs; None: each in the folder of its run."""
    run_id: str | None = None
    """A run to resume, or the name of a new one."""
    mode: str | None = None
    """online, offline or off; None: as LOSSGUARD_MODE says."""
    url: str | None = None
    """The collector's address; None: as LOSSGUARD_URL says."""
    faults: Sequence[Fault] = ()
    """Injected faults."""
    skips: Sequence[lossguard.Skip] = ()
    """Batch ranges to skip from the start, as after a rollback."""
    resume_from: int | None = None
    """The step of an older checkpoint from which to resume, once; None: from the newest one."""
    faults_at_steps: bool = False
    """True if a fault in the data is placed by its step even after batches were skipped: see FaultyBatches."""
    replace_batches: Callable[[FaultyBatches], lossguard.Indexable] | None = None
    """Returns the batches to train on, given those of the run: a replay trains on other batches at the same steps."""
    run: lossguard.Run | None = None
    """The run to report to, instead of one from `lossguard.init`."""
    accepts: Callable[[float, float], bool] | None = None
    """True if the optimizer may take the step, given its loss and gradient norm. Costs a host sync."""
    gate: bool = False
    """True if the guard's gate skips poisoned updates."""
    arms: float | None = None
    """The share of its steps on which the run tries the arms of its rollbacks; None: it tries none."""
    on_step: Callable[[int, int, dict[str, float]], None] | None = None
    """Called after every step with the step, its batch index and its metrics."""
    signals: Sequence[str] = ()
    """Signals to report beside the usual metrics, by their names in `trainer.process.signals`."""
    quiet: bool = False
    """Print nothing."""


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainingResult:
    """The result of a run."""

    steps_done: int
    """Optimizer steps, without those that a rollback discarded."""
    interrupted_by: signal.Signals | None
    """The signal that stopped the run early."""
    components: Components
    """At the end of the run: the model as it was trained, and the speed."""
    held_out: HeldOutLoss | None
    """The last evaluation; None if there was none."""

    def complete(self) -> Self:
        """Return this result. Raises Stopped if a signal ended the run."""
        if self.interrupted_by is not None:
            raise Stopped(self.interrupted_by)
        return self


def train(recipe: Recipe, job: Job) -> TrainingResult:
    """Train, starting from the run's newest checkpoint if there is one. Raises UsageError and LossguardError."""
    components = build_components(recipe)
    batches = FaultyBatches(components.batches, job.faults, at_steps=job.faults_at_steps)
    probes = Probes(recipe, components.batches.tokenizer)
    state_faults = StateFaults(job.faults, recipe.seed)
    run, guard = open_run(recipe, job, components)
    knobs = register_remedies(guard, recipe, components)
    gate = guard.gate(components.optimizer) if job.gate else None
    if job.arms is not None:
        guard.arms(arm_losses(recipe, components), share=job.arms)
    extra = ExtraSignals(job.signals, components.model, components.optimizer)
    console = Console(highlight=False, soft_wrap=True, quiet=job.quiet or rank_and_size()[0] > 0)
    display = Display(recipe, run, guard, throughput=components.throughput, console=console)
    with run, guard.ranks.reporting_lost_ranks(), display:
        last_end = time.perf_counter()
        evaluation = None
        source = batches if job.replace_batches is None else job.replace_batches(batches)
        for step, batch in guard.steps(source, until=recipe.steps):
            if guard.arm is None:
                batches.reach(step + 1, guard.ledger.next_free(batch.index + 1))
            state_faults.begin(step, components.model, components.optimizer, strikes=guard.arm is None)
            lr = guard.lr_scale * learning_rate(step, recipe.optimizer, recipe.steps)
            for group in components.optimizer.param_groups:
                group["lr"] = lr * state_faults.lr_factor
            metrics = training_step(recipe, components, batch, job.accepts, knobs, gate, extra)
            if guard.arm is not None:
                last_end = time.perf_counter()
                continue
            metrics |= {"lr": lr, "tokens": (step + 1) * recipe.tokens_per_step}
            if components.held_out is not None and recipe.evaluate_every and (step + 1) % recipe.evaluate_every == 0:
                run.expect(next_report_in=MAX_EVALUATION_SECONDS)
                began = time.perf_counter()
                evaluation = evaluate(components.model, components.held_out, components.device)
                metrics["evaluation_seconds"] = time.perf_counter() - began
                metrics["held_out_loss"] = evaluation.mean
                if len(evaluation.sums) > 1:
                    metrics["held_out_loss_se"] = evaluation.standard_error
                if components.token_bytes is not None:
                    metrics["held_out_bits_per_byte"] = evaluation.mean / math.log(2) / components.token_bytes
            now = time.perf_counter()
            metrics["step_seconds"], last_end = now - last_end, now
            metrics |= components.throughput.after(step, now)
            run.log(step, **metrics)
            probes.take(components.model, run, step, components.device)
            display.show(step, metrics)
            if job.on_step is not None:
                job.on_step(step, batch.index, metrics)
    return TrainingResult(
        steps_done=guard.step,
        interrupted_by=guard.interrupted_by,
        components=components,
        held_out=evaluation,
    )


def arm_losses(recipe: Recipe, components: Components) -> Callable[[], Sequence[float]]:
    """Return the losses that arms are measured with, one per document of the evaluation set.

    A recipe that learns a little text by heart is measured on that. Raises UsageError.
    """
    held_out, windows, size = components.held_out, components.batches.windows, components.batches.size
    if recipe.data.max_windows:
        places = [windows.place(number) for number in range(size)]
        documents = [windows.shards[shard][begin : begin + windows.context + 1] for shard, begin in places]
        held_out = HeldOut(documents, windows.context, num_windows=size, vocab_size=components.batches.vocab_size)
    if held_out is None:
        raise UsageError("data.held_out = 0.0 cannot be used with --arms, which compare held-out losses.")
    return lambda: evaluate(components.model, held_out, components.device).per_document()


def open_run(recipe: Recipe, job: Job, components: Components) -> tuple[lossguard.Run, lossguard.Guard]:
    """Open the run and its checkpoints. Raises UsageError and LossguardError."""
    run = job.run or _init_run(recipe, job, components)
    try:
        return run, _open_guard(run, recipe, job, components)
    except (ValueError, lossguard.LossguardError):
        run.finish("failed")
        raise


def _open_guard(run: lossguard.Run, recipe: Recipe, job: Job, components: Components) -> lossguard.Guard:
    folder = run.directory or job.directory / recipe.project / run.id
    place, plan = checkpoint_place(job.checkpoints, folder) or folder / "checkpoints", recipe.checkpoint
    origin = Provenance(
        recipe,
        num_windows=len(components.batches.windows),
        held_out=components.held_out,
        tokenizer=components.batches.tokenizer,
    )
    try:
        checkpoints = Checkpoints(
            place,
            staging=folder / "staging",
            keep=plan.keep,
            memory=plan.memory,
            memory_every=plan.memory_every,
            origin=origin,  # the names of objects are those of their files
            model=components.model,
            optimizer=components.optimizer,
        )
    except ValueError as mistake:
        raise UsageError(f"{mistake}.") from None
    decode = partial(batch_text, tokenizer=components.batches.tokenizer)
    guard = lossguard.Guard(run, checkpoints=checkpoints, every=plan.every, decode=decode, resume_from=job.resume_from)
    for skip in job.skips:
        guard.ledger.add(skip)
    return guard


def _init_run(recipe: Recipe, job: Job, components: Components) -> lossguard.Run:
    data, held_out = components.batches, components.held_out
    facts = {"ranks": rank_and_size()[1], "tokenizer": data.tokenizer.name, "padding": data.windows.padding}
    if held_out is not None:
        facts["evaluation_set"] = held_out.digest()  # equal ones make held-out losses comparable
    try:
        return lossguard.init(
            recipe.project,
            name=recipe.name,
            config=describe(recipe, job) | components.throughput.facts() | facts,
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
        raise UsageError(f"{job.directory} cannot hold runs ({why}): choose another folder with --out.") from None


def training_step(
    recipe: Recipe,
    components: Components,
    batch: Batch,
    accepts: Callable[[float, float], bool] | None,
    knobs: Knobs,
    gate: Gate | None,
    extra: ExtraSignals,
) -> dict[str, float]:
    """Take one optimizer step on `batch`; return its metrics over all ranks.

    `accepts`: see Job; `knobs`: what remedies may change; `gate`: takes the step; `extra`: measured too.
    """
    batch = local_batch(batch).to(components.device)
    num_tokens = tokens_per_rank(batch.targets_BT)
    autocast = partial(torch.autocast, components.device.type, torch.bfloat16, enabled=components.device.type == "cuda")
    with autocast():
        inputs_BT = training_inputs(components.model, batch.inputs_BT, recipe.objective)
    # in the first one, earlier releases of torch keep the weights that were cast without a gradient
    with autocast(), extra.watching():
        logits_BTV = components.network(inputs_BT)
    targets_BT = batch.targets_BT if recipe.objective.shift else batch.inputs_BT
    terms = objective(logits_BTV, targets_BT, recipe.objective, z_weight=knobs.z_weight.value)
    share = terms.num_tokens / num_tokens  # a token weighs the same on every rank
    (terms.loss * share).backward()  # type: ignore[no-untyped-call]
    extra.read_gradients()
    grad_norm = nn.utils.clip_grad_norm_(components.model.parameters(), knobs.clip_norm.value)
    terms, grad_norm = over_ranks(terms, grad_norm)
    skipped = torch.zeros_like(grad_norm)
    if gate is not None:
        skipped = gate.step(terms.cross_entropy, grad_norm)
    elif accepts is None or accepts(terms.cross_entropy.item(), grad_norm.item()):
        components.optimizer.step()
    components.optimizer.zero_grad(set_to_none=True)
    # The only host sync of the step: all metrics in one transfer, after all work was queued.
    scalars = {"loss": terms.cross_entropy, "grad_norm": grad_norm, "log_z": terms.log_z, "log_z_max": terms.log_z_max}
    scalars |= {"z_loss": terms.z_loss, "skipped": skipped} | extra.take()
    numbers = dict(zip(scalars, torch.stack([*scalars.values()]).tolist(), strict=True))
    numbers["perplexity"] = perplexity(numbers["loss"])
    return {name: number for name, number in numbers.items() if name != "skipped" or number}


def describe(recipe: Recipe, job: Job) -> dict[str, object]:
    """The configuration that is recorded with the run; only here are the injected faults named."""
    place = {} if job.checkpoints is None else {"checkpoints": job.checkpoints}  # where a replay finds them
    return {
        **recipe.to_dict(),
        **place,
        "faults": [str(fault) for fault in job.faults],
        "faults_in_data": [str(fault) for fault in job.faults if FAULTS[fault.kind].on_data is not None],
        "faults_at_steps": job.faults_at_steps,
        "skips": [[skip.skip_from, skip.skip_to] for skip in job.skips],
    }
