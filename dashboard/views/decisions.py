"""The decisions that interventions wait for: approve, reject, release. Their buttons, and what their dialogs say."""

import time

from dashboard import formatting
from dashboard.data import cached, pending, preflights
from dashboard.data.facts import RunFacts
from dashboard.operator_actions import OperatorAction
from dashboard.views import operate
from dashboard.views.incident import preflight
from db.models import Intervention


def approve_and_reject(facts: RunFacts, each: Intervention) -> None:
    """Two buttons. Their dialogs offer nothing once somebody else has decided."""
    run_id, number = facts.run.id, each.number

    def decided() -> str | None:
        return pending.decided_meanwhile(cached.facts(run_id), number)

    more = "" if len(pending.proposed(facts)) == 1 else f"-{number}"
    approval, rejection = approve(facts, each), reject(each)
    found = preflights.read(facts, each)
    advised = found.refused is None and found.restorable is not False
    icon = ":material/check:"
    operate.button("Approve", approval, key=f"approve{more}", icon=icon, primary=advised, obsolete=decided)
    operate.button("Reject", rejection, key=f"reject{more}", icon=":material/close:", obsolete=decided)


def release_button(facts: RunFacts, *, primary: bool) -> None:
    run_id, action = facts.run.id, release(facts)

    def released() -> str | None:
        return pending.released_meanwhile(cached.facts(run_id))

    operate.button("Release", action, key="release", icon=":material/play_arrow:", primary=primary, obsolete=released)


def open_linked_dialog(facts: RunFacts) -> None:
    """Opens the dialog of the approval that the URL asks for: ?approve=N."""
    each = preflight.asked_for(facts)
    if each is None:
        return
    number, run_id = each.number, facts.run.id
    operate.confirm(approve(facts, each), lambda: pending.decided_meanwhile(cached.facts(run_id), number))


def approve(facts: RunFacts, each: Intervention) -> OperatorAction:
    what = formatting.intervention_sentence(each, None)
    return OperatorAction(
        label="Approve",
        question=f"Approve intervention {each.number}? {what} {waited(each)}\n\n{preflight.question(facts, each)}",
        success=f"Intervention {each.number} approved.",
        method="POST",
        path=f"/interventions/{each.id}/approve",
    )


def waited(each: Intervention) -> str:
    return f"It has waited for {formatting.duration(time.time() - each.created_at)}."


def reject(each: Intervention) -> OperatorAction:
    return OperatorAction(
        label="Reject",
        question=f"Reject intervention {each.number}? Training continues unchanged, and nothing else is proposed for "
        "this incident.",
        success=f"Intervention {each.number} rejected.",
        method="POST",
        path=f"/interventions/{each.id}/reject",
    )


def release(facts: RunFacts) -> OperatorAction:
    return OperatorAction(
        label="Release",
        question="Release the hold? Training continues from the current step.",
        success="Hold released. Training continues.",
        method="POST",
        path=f"/runs/{facts.run.id}/release",
    )
