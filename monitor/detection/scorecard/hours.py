"""Training steps that an action would have saved or lost. Every term is in docs/scorecard.md."""

from dataclasses import dataclass

from lossguard.vocabulary.states import OrderKind
from monitor.detection.scorecard.endings import After, Ending
from monitor.detection.scorecard.sites import Site
from monitor.detection.settings import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Balance of an action, in steps of training."""

    again: int
    """Steps that the rollback would have thrown away: from the restored one to the one of the decision."""
    loading: float
    """Cost of loading the checkpoint (`restart_steps`)."""
    dropped: float
    """Cost of the skipped batches (`batch_cost` each)."""
    lost: int
    """Actual loss: the steps that a person's rollback, or the end of the run, threw away."""

    @property
    def saved(self) -> float:
        """Below 0 where the action would have cost more than it saved."""
        return self.lost - (self.again + self.loading + self.dropped)


def balance(site: Site, ending: Ending, then: After, policy: Policy) -> Balance | None:
    """Return the balance; None without a comparison: no rollback, no figures of it, or an ending that is not known.

    A run that died is taken to be restarted at once from the same checkpoint: how long nobody noticed is not known.
    Where the run went on, nothing was lost, not even if its loss stayed higher.
    """
    action = site.action
    if action is None or action.kind is not OrderKind.ROLLBACK or action.rewind_to is None:
        return None
    if ending in (Ending.OPEN, Ending.IN_AUTO):
        return None
    lost = 0
    if then.restored is not None:
        lost = then.last_step + 1 - then.restored
    elif ending is Ending.DIED:
        lost = max(then.last_step, action.decided_step) + 1 - action.rewind_to
    return Balance(
        again=action.decided_step + 1 - action.rewind_to,
        loading=float(policy.restart_steps),
        dropped=policy.batch_cost * action.num_skipped,
        lost=lost,
    )
