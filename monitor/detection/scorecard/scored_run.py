"""Scores runs: each site with what the policy would have done, what happened, and the GPU-hours of the run."""

from dataclasses import dataclass
from functools import partial

from lossguard.vocabulary.protocol import CAN_ROLL_BACK
from lossguard.vocabulary.states import NOT_REPLAYED
from monitor.detection.effects import Incident, Intervention
from monitor.detection.encoding import load, restore_row
from monitor.detection.interventions import run_policy
from monitor.detection.interventions.preflight import devices_of
from monitor.detection.scorecard.endings import Balance, Ending, after, balance, ending_of
from monitor.detection.scorecard.sites import RunRecord, Site, sites_of
from monitor.detection.settings import Mode, Policy

ONLY_REPORTS = "only reports"
"""Stands for the mode of a run that cannot roll back, whatever its policy says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSite:
    """A site with its ending and what the action would have saved, None where nothing can be compared."""

    site: Site
    ending: Ending
    balance: Balance | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRun:
    """One run of the scorecard."""

    id: str
    project: str
    name: str | None
    mode: str
    """Mode of the policy: observe or approve; `ONLY_REPORTS`."""
    sites: tuple[ScoredSite, ...]
    num_advisories: int
    """Incidents that no policy answers."""
    num_unreadable: int
    """Incidents that this release cannot read."""
    num_steps: int
    step_seconds: float | None
    num_devices: int
    devices_are_known: bool
    """True if the configuration says how many there are; otherwise they are those that the process listed."""

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours; None: it is not known how long a step took."""
        return None if self.step_seconds is None else self.hours(self.num_steps)

    def hours(self, steps: float) -> float | None:
        """Steps of this run as GPU-hours."""
        return None if self.step_seconds is None else steps * self.step_seconds * self.num_devices / 3600


def is_scored(run: RunRecord) -> bool:
    """True if the policy gives no orders to the run by itself."""
    return CAN_ROLL_BACK not in run.capabilities or run_policy.policy_of(run.policy).mode is not Mode.AUTO


def score_run(run: RunRecord) -> ScoredRun:
    """Score one run, whatever its mode."""
    policy = run_policy.policy_of(run.policy)
    can_roll_back = CAN_ROLL_BACK in run.capabilities
    read = [(record.segment, restore_row(partial(load, Incident), record.details)) for record in run.incidents]
    readable = [(segment, incident) for segment, incident in read if incident is not None]
    proposed: dict[int, list[Intervention]] = {}
    for each in (restore_row(partial(load, Intervention), details) for details in run.interventions):
        if each is not None and each.incident is not None and each.mode is not None:  # the policy's have a mode
            proposed.setdefault(each.incident, []).append(each)
    answered = [
        Site(incidents=(incident,), segment=segment, interventions=tuple(proposed.get(incident.number, ())))
        for segment, incident in readable
        if incident.kind not in NOT_REPLAYED
    ]
    num_devices, known = devices_of(run.config, run.devices)
    return ScoredRun(
        id=run.id,
        project=run.project,
        name=run.name,
        mode=policy.mode.value if can_roll_back else ONLY_REPORTS,
        sites=tuple(_scored(site, run, policy) for site in sites_of(answered, policy, can_roll_back=can_roll_back)),
        num_advisories=len(readable) - len(answered),
        num_unreadable=len(read) - len(readable),
        num_steps=run.num_steps,
        step_seconds=run.step_seconds,
        num_devices=num_devices,
        devices_are_known=known,
    )


def _scored(site: Site, run: RunRecord, policy: Policy) -> ScoredSite:
    then = after(site, run.segments, policy)
    ending = ending_of(site, then, policy, run_state=run.state)
    return ScoredSite(site=site, ending=ending, balance=balance(site, ending, then, policy))
