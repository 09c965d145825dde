"""The policies by name. A package adds one of its own with an entry point:

    [project.entry-points."lossguard.policies"]
    careful = "my_package.policies:careful"          # a function like `palm`: see `decision.Decide`

It is then chosen with {"name": "careful"} in a run's policy.
"""

import logging
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from lossguard.vocabulary.states import OrderKind
from monitor.detection.interventions.adaptive import adaptive
from monitor.detection.interventions.decision import BatchOf, Decide, Decision, Situation
from monitor.detection.interventions.palm import palm
from monitor.detection.interventions.rules import NO_ANSWER, give_up
from monitor.detection.settings import Policy

log = logging.getLogger(__name__)

CANNOT_SKIP = "This run cannot leave batches out: it is only rewound."
ENTRY_POINTS = "lossguard.policies"
BUILT_IN: dict[str, Decide] = {"adaptive": adaptive, "palm": palm}


def names() -> list[str]:
    """The policies that can be chosen here."""
    return [*BUILT_IN, *sorted(_installed())]


@cache
def policy_named(name: str) -> Decide:
    """The function behind a policy's name. Raises ValueError for an unknown one, ImportError for a broken package."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    installed = _installed()
    if name not in installed:
        raise ValueError(f"name must be one of {', '.join(names())}, not {name!r:.80}")
    decide: Decide = installed[name].load()
    return decide


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def decide(policy: Policy, now: Situation, batch_of: BatchOf) -> Decision:
    """Return the decision of the run's policy; for a run that only reports, the proposal.

    A policy that is not installed here, or that fails, decides nothing: the collector goes on taking reports.
    """
    try:
        decision = policy_named(policy.name)(policy, now, batch_of)
    except Exception as problem:
        log.exception("the policy %r failed", policy.name)
        reason = f"The policy {policy.name!r} could not decide ({type(problem).__name__}: {problem}): nothing is done."
        return Decision(None, reasons=[reason], afterwards=reason)
    if not now.can_skip and decision.skip_from is not None:
        reasons = [*decision.reasons, CANNOT_SKIP]
        decision = replace(decision, skip_from=None, skip_to=None, reasons=reasons)
    if not now.data_repeats and decision.kind is OrderKind.ROLLBACK and not (decision.remedies or decision.lr_scale):
        decision = give_up(policy, now, decision.reasons[:1], NO_ANSWER)
    return decision if now.can_roll_back else replace(decision, kind=None, unavailable=decision.kind)
