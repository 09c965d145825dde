"""Input and output of a policy. Values in, values out.

A policy is any function that takes (settings, situation, batch_of) and returns a decision: see `Decide`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossguard.vocabulary.states import Arm, IncidentKind, OrderKind
from lossguard.vocabulary.wording import plural
from monitor.detection.interventions.restorable import RestorableStep
from monitor.detection.settings import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """An earlier rollback at the site of the incident, after which the trouble came back."""

    number: int
    """1 for the first rollback at the site."""
    onset_step: int
    """Onset of the incident that the attempt answered."""
    rewind_to: int
    skip_from: int | None
    """First skipped batch; None: the attempt replayed the same batches."""
    skip_to: int | None
    executed: bool = True
    """False: the trainer could not carry it out, so it shows nothing about the cause."""
    remedies: Sequence[str] = ()
    """Remedies that were switched on with the attempt."""
    refused: bool = False
    """True: the trainer would not carry it out, so the checkpoint may be as good as any."""

    @property
    def num_skipped(self) -> int:
        return 0 if self.skip_from is None or self.skip_to is None else self.skip_to - self.skip_from

    def describe(self) -> str:
        """A clause such as "40 steps before the onset, 120 batches skipped, with learning_rate"."""
        num_skipped = plural(self.num_skipped, "batch", "batches")
        skipped = f"{num_skipped} skipped" if self.num_skipped else "the same batches again"
        remedies = f", with {', '.join(self.remedies)}" if self.remedies else ""
        failed = "" if self.executed else " (not carried out)"
        return f"{plural(self.onset_step - self.rewind_to, 'step')} before the onset, {skipped}{remedies}{failed}"


# Verdict of the arms that were tried (see `lossguard.Guard.arms`).

PRIOR_ARMS = 4.0
"""Tried arms that weigh as much as the chance that the policy takes without any."""
MIN_ARMS = 3
"""Minimum tried arms that may speak for another treatment than the policy chooses without any."""
DEPTHS = (25, 100, 400)
"""Steps before the onset up to which a checkpoint is of one class of depth."""


@dataclass(frozen=True, slots=True)
class Tried:
    """Arms of one class."""

    num: int = 0
    num_past: int = 0
    """Number that got past."""

    def chance(self, prior: float) -> float:
        """The probability of getting past: `prior` counts as PRIOR_ARMS arms, and is exact without any others."""
        return (PRIOR_ARMS * prior + self.num_past) / (PRIOR_ARMS + self.num) if self.num else prior


@dataclass(frozen=True, slots=True)
class Records:
    """The arms of a project, counted. Those of first attempts: later ones are about sites that are hard already."""

    classes: Mapping[tuple[str, ...], Tried] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: Iterable[Mapping[str, Any]]) -> "Records":
        """`stored`: the details of arms, as the store holds them; what cannot be read is left out."""
        num, past = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
        for each in stored:
            if each.get("attempt") == 1 and isinstance(each.get("depth"), int):
                key = _class_of(each.get("kind"), each.get("arm"), each.get("tier"), each["depth"], each.get("remedy"))
                num[key] += 1
                past[key] += each.get("got_past") is True
        return cls({key: Tried(num[key], past[key]) for key in num})

    def tried(
        self, kind: IncidentKind, arm: Arm, *, tier: str | None = None, depth: int = 0, remedy: str | None = None
    ) -> Tried:
        """The arms that were like this one."""
        return self.classes.get(_class_of(kind, arm, tier, depth, remedy)) or Tried()


def _class_of(kind: Any, arm: Any, tier: Any, depth: int, remedy: Any) -> tuple[str, ...]:
    if arm == Arm.WAIT:  # of which no checkpoint is part
        return str(kind), str(arm)
    return str(kind), str(arm), str(tier), str(sum(depth > bound for bound in DEPTHS)), str(remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """Facts about an open incident at a step. Excess is nats above the expected loss."""

    kind: IncidentKind
    onset_step: int
    detected_step: int
    step: int
    non_finite: bool
    """A signal is not finite at this step."""
    loss_finite: bool = True
    """The loss was finite at every row of the incident."""
    norm_first: bool = False
    """The gradient norm left its band before the loss did."""
    sure: bool = True
    """The evidence is enough for an action: an incident needs less."""
    loss_moved: bool
    """The loss itself is, or was, out of band (not a precursor alone)."""
    expected: float
    """Value of the signal behind the incident that was expected at detection."""
    scale: float
    """Robust standard deviation of the signal at detection."""
    peak_excess: float
    """The largest excess so far."""
    excess: float
    check_excess: float
    """The excess when the present span of patience began, at `check_step`."""
    check_step: int
    rising_rows: int
    """Consecutive rows, up to this one, on which the loss rose while out of band."""
    falls: int
    rises: int
    """Rows since detection on which the loss fell, or rose: together, all that had a loss."""
    lasting_probability: float | None = None
    """Probability that the loss does not recover by itself; None: too little is known."""
    others_recovered: bool = False
    """A spike of this run has recovered by itself."""
    attempts: Sequence[Attempt]
    """The earlier rollbacks at this site, oldest first."""
    rollbacks_used: int
    """Rollbacks by the policy that were ordered in this run."""
    hard_sites: int = 0
    """Earlier sites of this run at which a rollback did not help."""
    easy_sites: int = 0
    """Earlier sites that the first rollback got past."""
    restorable: Sequence[RestorableStep]
    """Ascending. How deep one lies, and what loading it costs: see `depth` and `load_steps`."""
    can_roll_back: bool
    can_skip: bool = True
    """True if the run can leave batches out; otherwise it is only rewound."""
    data_repeats: bool = True
    """False: a batch index does not stand for the same samples again. Then a rewind alone is no answer."""
    step_seconds: float | None = None
    """Median seconds of a training step; None: not known."""
    structural: bool = False
    """A slow rise whose cause is the recipe: no rollback can be deep enough, or two did not stop it."""
    signals: Sequence[str] = ()
    """The signals that raised an alarm during the incident."""
    remedies: Sequence[str] = ()
    """The remedies that the loop has registered, by name."""
    records: Records = field(default_factory=Records)
    """Counts of the arms that were tried in this project."""

    @property
    def attempt(self) -> int:
        """The number of the next intervention at this site, from 1."""
        return self.attempts[-1].number + 1 if self.attempts else 1

    def depth(self, each: RestorableStep) -> int:
        """Steps from a restorable step to the onset; below 0 if it lies after the onset."""
        return self.onset_step - each.step

    def load_steps(self, each: RestorableStep) -> float | None:
        """Return the cost of loading the checkpoint in steps of training; None: not measured."""
        if each.load_seconds is None or self.step_seconds is None:
            return None
        return each.load_seconds / self.step_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One treatment of an incident, with the numbers behind it. Costs are in steps of training."""

    arm: Arm
    rewind_to: int | None = None
    skip_from: int | None = None
    skip_to: int | None = None
    remedy: str | None = None
    tier: str | None = None
    depth: int = 0
    prior: float
    """The chance of getting past, as it is taken without any records."""
    tried: Tried = Tried()
    """The records."""
    certain: float
    """Cost in any case: the steps that the option gives up, and the worth of its dropped batches."""
    failing: float
    """Additional cost if it does not get past."""

    @property
    def chance(self) -> float:
        """Chance of getting past."""
        return self.tried.chance(self.prior)

    @property
    def cost(self) -> float:
        """The expected cost."""
        return self.certain + (1 - self.chance) * self.failing

    @property
    def num_skipped(self) -> int:
        return 0 if self.skip_from is None or self.skip_to is None else self.skip_to - self.skip_from

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON."""
        names = ("rewind_to", "skip_from", "skip_to", "remedy", "tier", "depth", "prior", "certain", "failing")
        known = {name: getattr(self, name) for name in (*names, "chance", "cost")}
        return {"arm": self.arm.value, **known, "tried": self.tried.num, "past": self.tried.num_past}


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to roll back."""

    source: RestorableStep
    choice: Choice
    lost: float
    """Steps of training that the option gives up, with the cost of loading the checkpoint."""

    def describe(self) -> str:
        """A clause such as "4980 (from memory, 0.1 s), skip 48: 62 steps"."""
        origin = self.source.describe()
        skip = f"skip {self.choice.num_skipped}"
        return f"{self.source.step}{origin and f' ({origin})'}, {skip}: {self.choice.cost:.0f} steps"


@dataclass(frozen=True, slots=True)
class Decision:
    """`kind` None: wait. Reasons are whole sentences with their numbers."""

    kind: OrderKind | None
    rewind_to: int | None = None
    skip_from: int | None = None
    skip_to: int | None = None
    lr_scale: float | None = None
    reasons: list[str] = field(default_factory=list)
    unavailable: OrderKind | None = None
    """Action that is impossible because the run cannot roll back."""
    afterwards: str = ""
    """The reason that is added to a decision to wait when the incident is over."""
    remedies: Sequence[str] = ()
    """Remedies to switch on with the rollback."""
    choices: Sequence[Choice] = ()
    """The treatments that were compared, the cheapest first; of a policy that compares none, empty."""
    is_final: bool = False
    """True with `kind` None: nothing is done about this incident, and nothing more is decided about it."""


BatchOf = Callable[[int], int]
"""The batch index with which a step began."""


Decide = Callable[[Policy, Situation, BatchOf], Decision]
"""A policy: it is called at every row of an open incident for which nothing has been decided yet."""
