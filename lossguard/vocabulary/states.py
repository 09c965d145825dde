"""States and kinds that the SDK, the store, the detection and the pages all compare: one enumeration for each.

They are stored and sent by value. Transitions between states live in `monitor.detection`.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple


class RunState(StrEnum):
    """State of a run."""

    RUNNING = "running"
    FINISHED = "finished"  # reached its end
    INTERRUPTED = "interrupted"  # stopped on purpose (preemption, Ctrl-C); the same run_id resumes it
    FAILED = "failed"  # the loop raised


class RunVerdict(StrEnum):
    """Verdict on a run, in one word: see `db.runs.verdicts`."""

    HEALTHY = "healthy"  # the loss is where it was before every incident
    RECOVERING = "recovering"  # it is on its way back, or a rollback is not verified yet
    DIVERGED = "diverged"  # it is far above, or not finite, and does not come back
    HELD = "held"  # the run waits for an operator
    STALLED = "stalled"  # the process reports, but does no steps
    UNWATCHED = "unwatched"  # no report arrives, or none with a loss: a spike would not be caught
    ENDED = "ended"
    ENDED_OPEN = "ended_open"  # with an incident that nobody has answered, or diverged


class SegmentReason(StrEnum):
    """Why a segment was opened."""

    START = "start"  # the first segment of a run
    RESUME = "resume"  # a new process took the run up again
    ROLLBACK = "rollback"  # an order was executed
    REWIND = "rewind"  # the loop went back by itself


class IncidentKind(StrEnum):
    """Kind of an incident."""

    NONFINITE = "nonfinite"  # a signal is NaN or infinite
    LOSS_SPIKE = "loss_spike"  # the loss rose out of its band
    GRAD_SPIKE = "grad_spike"  # the grad norm rose out of its band, the loss did not (yet)
    LOG_Z_DRIFT = "log_z_drift"  # log Z left its band, up or down, the loss did not (yet)
    DIVERGENCE = "divergence"  # the loss rises slowly, row after row
    LOSS_COLLAPSE = "loss_collapse"  # the loss fell in one step as no learning makes it fall
    EARLY_WARNING = "early_warning"  # an advisory signal left its band, loss, grad norm and log Z did not (yet)
    REPLAY_MISMATCH = "replay_mismatch"  # steps that were computed again differ from their record
    PLATEAU = "plateau"  # the loss stopped falling (advisory)
    HELD_OUT_RISE = "held_out_rise"  # the held-out loss rose while the training loss did not (advisory)
    STALL = "stall"  # no step for several times the longest usual time between two
    SLOWDOWN = "slowdown"  # steps take longer than before, or wait for data


class KindFacts(NamedTuple):
    """The facts of all incidents of a kind."""

    label: str
    """The kind in words."""
    severity: Literal["warning", "critical"] | None
    """Severity of the alert while such an incident is open; None: there is no alert."""
    is_replayed: bool = True
    """True if it has an anomalous step, which a policy answers and a replay looks for."""
    may_recover: bool = False
    """True if people ask whether it recovers by itself."""
    needs_a_person: bool = False
    """True if neither a policy nor the run itself gets over it."""
    is_of_speed: bool = False
    """True if it is about the speed of the run: no value of a step shows it."""
    is_of_loss: bool = False
    """True if the loss itself is too high or not finite."""
    spoils_losses: bool = False
    """True if its losses are no reference for steps that are computed again."""
    is_deadly: bool = False
    """True if a run that ends in the middle of it is lost, even if its loop reached the end."""


KINDS: Mapping[str, KindFacts] = {
    IncidentKind.NONFINITE: KindFacts(
        "non-finite value", "critical", may_recover=True, is_of_loss=True, spoils_losses=True, is_deadly=True
    ),
    IncidentKind.LOSS_SPIKE: KindFacts("loss spike", "warning", may_recover=True, is_of_loss=True, spoils_losses=True),
    IncidentKind.GRAD_SPIKE: KindFacts("grad norm spike", "warning", may_recover=True),
    IncidentKind.LOG_Z_DRIFT: KindFacts("log Z drift", "warning", may_recover=True),
    IncidentKind.DIVERGENCE: KindFacts(
        "divergence", "critical", may_recover=True, is_of_loss=True, spoils_losses=True, is_deadly=True
    ),
    IncidentKind.LOSS_COLLAPSE: KindFacts("loss collapse", "warning", spoils_losses=True),
    IncidentKind.EARLY_WARNING: KindFacts("early warning", "warning"),
    IncidentKind.REPLAY_MISMATCH: KindFacts("replay mismatch", "critical", is_replayed=False, needs_a_person=True),
    IncidentKind.PLATEAU: KindFacts("plateau", None, is_replayed=False),
    IncidentKind.HELD_OUT_RISE: KindFacts("rise of the held-out loss", "warning", is_replayed=False),
    IncidentKind.STALL: KindFacts("stall", "critical", is_replayed=False, needs_a_person=True, is_of_speed=True),
    IncidentKind.SLOWDOWN: KindFacts("slowdown", "warning", is_replayed=False, is_of_speed=True),
}
"""All kinds of incidents: a new one is a member of IncidentKind and a row here."""


def _kinds(holds: Callable[[KindFacts], bool]) -> frozenset[str]:
    return frozenset(kind for kind, facts in KINDS.items() if holds(facts))


THROUGHPUT_KINDS = _kinds(lambda kind: kind.is_of_speed)
NOT_REPLAYED = _kinds(lambda kind: not kind.is_replayed)
"""Kinds of incidents without an anomalous step, which no policy answers and no replay looks for."""
MAY_RECOVER = _kinds(lambda kind: kind.may_recover)
NEED_A_PERSON = _kinds(lambda kind: kind.needs_a_person)
LOSS_KINDS = _kinds(lambda kind: kind.is_of_loss)
SPOIL_LOSSES = _kinds(lambda kind: kind.spoils_losses)


class Tier(StrEnum):
    """Place in which a checkpoint is kept. A collector takes other names too."""

    MEMORY = "memory"  # of the host: it is lost with the process
    DISK = "disk"  # or whatever else another process can restore from
    REMOTE = "remote"  # at a URL, from where a restore downloads it


class IncidentState(StrEnum):
    """State of an incident."""

    WARNING = "warning"  # a precursor (grad norm, log Z, an advisory signal) is out of band; the loss has not moved
    OPEN = "open"  # the incident is in progress
    TREATED = "treated"  # a rollback was ordered for it and is not verified yet
    CLOSED = "closed"  # over: see the incident's outcome


class Outcome(StrEnum):
    """The end of an incident."""

    RECOVERED = "recovered"  # back in its band
    ONGOING = "ongoing"  # not back (yet), or back only because the new level became the baseline
    DIVERGED = "diverged"  # not back, and far above where it came from or not finite


class OrderKind(StrEnum):
    """Kind of an intervention, and of the order that carries it to the trainer."""

    ROLLBACK = "rollback"  # restore a checkpoint, skip batches, continue
    HOLD = "hold"  # stop at the step boundary until an operator decides
    RELEASE = "release"  # an operator ended the hold: continue


ORDER_SENTENCES: Mapping[str, str] = {
    OrderKind.HOLD: "Hold until an operator decides.",
    OrderKind.RELEASE: "Resume after the hold.",
}
"""Sentences of the orders without figures, for pages and reports."""


class Arm(StrEnum):
    """One treatment of an incident, tried beside the others from the same checkpoint on the same later batches."""

    WAIT = "wait"  # go on from the state of now, without an intervention
    REWIND = "rewind"  # restore the checkpoint and use the same batches again
    REWIND_AND_SKIP = "rewind_and_skip"  # the same without the batches around the incident
    REWIND_WITH_REMEDY = "rewind_with_remedy"  # restore it and switch a remedy on, on the same batches


class OrderMode(StrEnum):
    """Whether interventions are carried out: what a policy decides and what a trainer obeys have the same three."""

    OBSERVE = "observe"  # record what would be done, do nothing
    APPROVE = "approve"  # propose; an operator approves or rejects
    AUTO = "auto"  # order


class Refusal(StrEnum):
    """Why a trainer did not carry out an order that it could have carried out. Orders fail for other reasons too."""

    LIMITS = "limits"  # beyond a limit of the trainer: a person must decide
    APPROVAL = "approval"  # no person has approved it
    OBSERVES = "observes"  # the trainer carries out no orders now
    UNTRUSTED = "untrusted"  # not signed as the trainer demands
    STALE = "stale"  # it came too late, or is about another state of the run


class OrderState(StrEnum):
    """State of an order."""

    OPEN = "open"
    APPLIED = "applied"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # withdrawn before the trainer executed it


class InterventionState(StrEnum):
    """State of an intervention."""

    PROPOSED = "proposed"  # waits for an operator
    APPROVED = "approved"  # an operator agreed; about to be ordered
    ORDERED = "ordered"  # on its way to the trainer
    APPLIED = "applied"  # the trainer did it; the outcome is open
    VERIFIED = "verified"  # it worked
    RECURRED = "recurred"  # the incident came back
    FAILED = "failed"  # the trainer could not do it
    REJECTED = "rejected"  # an operator said no
    WITHDRAWN = "withdrawn"  # before it was carried out: the run recovered, or another intervention took its place
    REPLACED = "replaced"  # carried out, but an operator's order took its place before it was verified
    RELEASED = "released"  # a hold that an operator ended


INTERVENTIONS_UNDER_WAY = (
    InterventionState.PROPOSED,
    InterventionState.APPROVED,
    InterventionState.ORDERED,
    InterventionState.APPLIED,
)
"""States of interventions to which something is still to happen: a decision, an order, a verification or a release."""


class Cause(StrEnum):
    """The cause of an incident, as a replay found it."""

    HARDWARE = "hardware"  # or anything transient: the same state with the same batches does not do it again
    DATA = "data"  # these batches do it from another state too
    STATE = "state"  # this state does it with other batches too
    DATA_X_STATE = "data_x_state"  # only this state with these batches (what PaLM saw)
    UNDETERMINED = "undetermined"  # the outcomes contradict each other, or show too little


class Layer(StrEnum):
    """Layer in which a value of a policy is set, in the order in which they apply: the last one counts."""

    COLLECTOR = "collector"  # for all runs
    PROJECT = "project"
    RUN = "run"
