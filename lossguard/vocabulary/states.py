"""States and kinds that the SDK, the store, the detection and the pages all compare: one enumeration for each.

They are stored and sent by value. Transitions between states live in `monitor.detection`.
"""

from enum import StrEnum


class RunState(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    FINISHED = "finished"  # reached its end
    INTERRUPTED = "interrupted"  # stopped on purpose (preemption, Ctrl-C); the same run_id resumes it
    FAILED = "failed"  # the loop raised


class SegmentReason(StrEnum):
    """Why a segment was opened."""

    START = "start"  # the first segment of a run
    RESUME = "resume"  # a new process took the run up again
    ROLLBACK = "rollback"  # an order was executed
    REWIND = "rewind"  # the loop went back by itself


class IncidentKind(StrEnum):
    """What went wrong."""

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


THROUGHPUT_KINDS = frozenset({IncidentKind.STALL, IncidentKind.SLOWDOWN})
"""Kinds of incidents of the speed of a run. No value of a step shows them, and no policy answers them."""
NOT_REPLAYED = frozenset(
    {IncidentKind.PLATEAU, IncidentKind.HELD_OUT_RISE, IncidentKind.REPLAY_MISMATCH, *THROUGHPUT_KINDS}
)
"""Kinds without an anomalous step: a replay has nothing to look for, and no policy answers them."""


class Tier(StrEnum):
    """Where a checkpoint is kept. A collector takes other names too."""

    MEMORY = "memory"  # of the host: it is lost with the process
    DISK = "disk"  # or whatever else another process can restore from
    REMOTE = "remote"  # at a URL, from where a restore downloads it


class IncidentState(StrEnum):
    """How an incident stands."""

    WARNING = "warning"  # a precursor (grad norm, log Z, an advisory signal) is out of band; the loss has not moved
    OPEN = "open"  # the incident is in progress
    TREATED = "treated"  # a rollback was ordered for it and is not verified yet
    CLOSED = "closed"  # over: see the incident's outcome


class Outcome(StrEnum):
    """How an incident ended."""

    RECOVERED = "recovered"  # back in its band
    ONGOING = "ongoing"  # not back (yet), or back only because the new level became the baseline
    DIVERGED = "diverged"  # not back, and far above where it came from or not finite


class OrderKind(StrEnum):
    """What an intervention, and the order that carries it, asks of the trainer."""

    ROLLBACK = "rollback"  # restore a checkpoint, skip batches, continue
    HOLD = "hold"  # stop at the step boundary until an operator decides
    RELEASE = "release"  # an operator ended the hold: continue


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
    """How an order stands."""

    OPEN = "open"
    APPLIED = "applied"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # withdrawn before the trainer executed it


class InterventionState(StrEnum):
    """How an intervention stands."""

    PROPOSED = "proposed"  # waits for an operator
    APPROVED = "approved"  # an operator agreed; about to be ordered
    ORDERED = "ordered"  # on its way to the trainer
    APPLIED = "applied"  # the trainer did it; the outcome is open
    VERIFIED = "verified"  # it worked
    RECURRED = "recurred"  # the incident came back
    FAILED = "failed"  # the trainer could not do it
    REJECTED = "rejected"  # an operator said no
    WITHDRAWN = "withdrawn"  # the run recovered, or another intervention took its place
    RELEASED = "released"  # a hold that an operator ended


class Cause(StrEnum):
    """The cause of an incident, as a replay found it."""

    HARDWARE = "hardware"  # or anything transient: the same state with the same batches does not do it again
    DATA = "data"  # these batches do it from another state too
    STATE = "state"  # this state does it with other batches too
    DATA_X_STATE = "data_x_state"  # only this state with these batches (what PaLM saw)
    UNDETERMINED = "undetermined"  # the outcomes contradict each other, or show too little


class Layer(StrEnum):
    """Where a value of a policy is set, in the order in which the layers apply: the last one counts."""

    COLLECTOR = "collector"  # for all runs
    PROJECT = "project"
    RUN = "run"
