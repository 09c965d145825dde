"""A replay of an incident: trains checkpoints again on chosen batches, and finds the cause and the culprit batches.

    python -m trainer replay RUN/NUMBER [--out .lossguard] [--url http://127.0.0.1:8000] [--json]

An anomaly is a step that is not finite, or that is further from the expected value than normal steps are. The earlier
state with other batches is the run itself while it was normal: comparing it with the record, step by step, shows how
exact a repetition is on this machine (bit for bit on the CPU that the run used).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from lossguard import Cause
from lossguard.torch import token_losses
from trainer.data.batches import open_batches
from trainer.data.tokenizer import Tokenizer, printable
from trainer.data.windows import PADDING, Batch
from trainer.errors import UsageError
from trainer.faults import FaultyBatches
from trainer.model import GPT
from trainer.replay.experiment import MAX_TRIES, STEPS_AFTER_DETECTION, Experiment, Report, batches_of
from trainer.replay.incident import ReplayedIncident
from trainer.replay.record import RunRecord
from trainer.replay.rerun import Rerun
from trainer.replay.verdict import Excerpt, ReplayVerdict

BATCHES_BEHIND = 50
"""Batches after the replayed ones that are searched for culprits if none were skipped."""
MAX_CHARACTERS = 500
"""Maximum characters of an excerpt."""


def replay(incident: ReplayedIncident, record: RunRecord, *, report: Report) -> ReplayVerdict:
    """Replay from the newest checkpoint before the incident, or from an older one if the incident began before it.

    Then search for the culprit batches. `report` gets progress messages. Raises UsageError, Stopped, and LossguardError
    for a checkpoint that is not intact.
    """
    experiment, verdict = _find_cause(incident, Rerun(record), report)
    if verdict.cause in (Cause.DATA, Cause.DATA_X_STATE):
        report("searching for the batches that reproduce it")
        verdict = find_culprits(experiment, verdict)
    return verdict


def _find_cause(incident: ReplayedIncident, rerun: Rerun, report: Report) -> tuple[Experiment, ReplayVerdict]:
    checkpoints = sorted(rerun.record.checkpoints)
    states = [step for step in reversed(checkpoints) if step <= incident.onset]
    if not states:
        raise UsageError(
            f"No checkpoint of run {incident.run_id} at or before step {incident.onset} is left: the incident "
            f"cannot be replayed. Available steps: {', '.join(map(str, checkpoints)) or 'none'}."
        )
    for state, older in zip(states[:MAX_TRIES], [*states[1:], None], strict=False):
        experiment = Experiment(incident, rerun, state, report)
        verdict = experiment.run()
        damaged = any(arm.reproduced for arm in verdict.arms if (arm.state, arm.batches) == ("same", "other"))
        if not damaged or older is None:
            break
        if not experiment.begins_before(older):
            if verdict.cause is Cause.STATE:
                verdict = verdict.adding(f"It was damaged between step {older} and step {state}.")
            break
        verdict = verdict.adding(
            f"The incident begins before step {state}: the run from step {older} on reproduces it."
        )
    return experiment, verdict


def find_culprits(experiment: Experiment, verdict: ReplayVerdict) -> ReplayVerdict:
    """Find the culprits by bisection, among the replayed batches and those that were skipped after them.

    Each attempt ends with normal batches, in which a late anomaly may show.
    """
    same, state = batches_of(experiment.recorded), experiment.state
    behind, skipped = same[-1] + 1, experiment.rerun.record.skipped
    window = [*same, *range(behind, behind + BATCHES_BEHIND if skipped is None else skipped[1])]
    normal = experiment.earlier.batches[:STEPS_AFTER_DETECTION]
    replayed = enumerate(verdict.arms[0].steps)
    anomaly = next(place for place, step in replayed if experiment.reference.is_anomaly(state + place, step))
    first, end = bisect(window, lambda part: experiment.reproduces(state, [*part, *normal]), first_end=anomaly + 1)
    found = f"batch {first}" if end == first + 1 else f"batches {first} to {end - 1}"
    verdict = verdict.adding(f"Culprits among batches {window[0]} to {window[-1]}: {found}.")
    # Rows of the first, middle and last culprit, the hardest ones to the model before the incident.
    rerun = experiment.rerun
    source, _ = open_batches(rerun.recipe)
    batches = rerun.batches(FaultyBatches(source, rerun.faults, at_steps=rerun.faults_at_steps))
    model, chosen = rerun.model(state), sorted({first, (first + end) // 2, end - 1})
    excerpts = [excerpt(model, batches[index], source.tokenizer) for index in chosen]
    return replace(verdict, culprits=[(first, end)], excerpts=excerpts)


def bisect(window: Sequence[int], reproduces: Callable[[Sequence[int]], bool], *, first_end: int) -> tuple[int, int]:
    """The batches [from, to) of `window`, from the first culprit to the last one.

    `reproduces`: whether a part of the window alone reproduces the incident. `first_end`: the length of a prefix that
    is known to. The shortest prefix that does ends with the first culprit, and the shortest suffix begins with the last
    one: about 2 log2(length) replays. Batches that reproduce it only in combination are all within the range.
    """
    low, high = 0, first_end  # window[:high] reproduces it, window[:low] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reproduces(window[:middle]) else (middle, high)
    first = window[high - 1]
    low, high = 0, len(window)  # window[low:] reproduces it, window[high:] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reproduces(window[middle:]) else (low, middle)
    last = window[low]
    return min(first, last), max(first, last) + 1


@torch.no_grad()
def excerpt(model: GPT, batch: Batch, tokenizer: Tokenizer) -> Excerpt:
    """The row with the highest loss (the first one that is not finite, if any), as text.

    Shapes: B sequences, T positions, V vocabulary.
    """
    device = next(model.parameters()).device
    model.eval()
    logits_BTV = model(batch.inputs_BT.to(device))
    model.train()
    targets_BT = batch.targets_BT.to(device)
    losses_B = token_losses(logits_BTV, targets_BT).sum(dim=1)
    losses_B /= (targets_BT != PADDING).sum(dim=1)
    row = int(losses_B.nan_to_num(nan=torch.inf).argmax())
    real_T = batch.targets_BT[row] != PADDING
    rows = (batch.inputs_BT[row][real_T], batch.targets_BT[row][real_T])
    inputs, targets = (printable(tokens_T, tokenizer, max_characters=MAX_CHARACTERS) for tokens_T in rows)
    return Excerpt(batch.index, row, losses_B[row].item(), inputs, targets)
