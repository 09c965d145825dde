"""Detector lab: what other settings would have caught, missed and done on a stored run, or on a curve of one's own.

In the URL: ?run=ID&source=..&sensitivity=..&patience=..&depth=..&skip=..&checkpoints=..
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from dashboard import formatting, url_state
from dashboard.data import cached
from dashboard.data.facts import RunFacts
from dashboard.figures import component
from dashboard.operator_actions import Deed
from dashboard.views import frame, operate
from dashboard.views.lab import trial, trial_input
from dashboard.views.lab.figure import trial_figure
from dashboard.views.lab.trial_input import Specimen
from monitor.detection import DetectionSettings, Policy
from monitor.detection.curve import CurveError
from monitor.detection.interventions import run_policy
from monitor.detection.simulation import simulate

WIDTH = 150  # pixels of a number: two side by side on a phone
SENSITIVITIES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
SPACINGS = [10, 20, 50, 100, 200, 500, 1000]
RUN, CURVE = "A stored run", "A CSV file"


@dataclass(frozen=True, slots=True)
class Trial:
    """Where the sliders stand."""

    settings: DetectionSettings
    policy: Policy
    every: int


def page() -> None:
    operate.tell()
    st.title("Detector lab", anchor=False)
    source = st.segmented_control(
        "What to try on", [RUN, CURVE], default=RUN, required=True, key="source", bind="query-params"
    )
    facts = stored() if source == RUN else None
    sample = uploaded() if source == CURVE else None
    if facts is not None:
        sample = trial_input.of_run(facts, steps(facts))
    if sample is None:
        return
    if not sample.num_rows:
        st.info("There are no steps to try on here.", icon=":material/info:")
        return
    own = None if facts is None else own_rule(facts)
    chosen = sliders(own)
    results(sample, chosen)
    if facts is not None:
        write(facts.run.id, own, chosen)


def stored() -> RunFacts | None:
    """The chosen run as it stood when it was chosen: it may go on, and the trial stays comparable."""
    run_id = frame.chosen_run()
    runs = [run.id for run, _ in cached.runs()]
    if run_id is None:
        st.info("No runs yet. A curve of your own can be tried: choose a CSV file.", icon=":material/info:")
        return None
    if run_id not in runs:
        st.warning(frame.no_such_run(run_id), icon=":material/search_off:")
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picked = st.selectbox("Run", runs, index=runs.index(run_id), key=f"lab-run-{run_id}")
        if picked != run_id:
            url_state.choose_run(picked)
            st.rerun()
        again = st.button("Read the newest steps", key="lab-again", icon=":material/refresh:")
    kept = f"lab-known-{run_id}"
    if again or kept not in st.session_state:
        st.session_state[kept] = cached.facts(run_id)
    facts: RunFacts | None = st.session_state[kept]
    return facts


def steps(facts: RunFacts) -> tuple[int, int]:
    """The steps to take; the URL may name them, the rest is cut to what can be tried at once."""
    last = max((one.last_step for one in facts.segments if one.last_step is not None), default=0)
    named = url_state.steps()
    return (0, last) if named is None else (named[0], min(named[1], last))


def uploaded() -> Specimen | None:
    told = "Columns: step, loss, optionally grad_norm, log_z, lr, tokens, batch_index; truth, not 0 where trouble is."
    file = st.file_uploader("Curve", type="csv", key="curve", help=told)
    if file is None:
        st.caption(told)
        return None
    kept = f"lab-curve-{file.file_id}"
    if kept not in st.session_state:
        try:
            st.session_state[kept] = trial_input.of_curve(file.name, file.getvalue())
        except CurveError as error:
            st.error(formatting.escape_markdown(str(error)), icon=":material/error:")
            return None
    sample: Specimen = st.session_state[kept]
    return sample


def own_rule(facts: RunFacts) -> Mapping[str, Any] | None:
    """The run's policy of this moment, not of the one when its steps were read: it may have been written since."""
    return (cached.facts(facts.run.id) or facts).run.policy


def sliders(own: Mapping[str, Any] | None) -> Trial:
    """They begin where the run's own rule stands."""
    policy, settings = run_policy.policy_of(own), run_policy.settings_of(own)
    with st.container(horizontal=True):
        rates = sorted({*SENSITIVITIES, settings.false_alarms_per_10k})
        rate = st.select_slider(
            "False alarms per 10,000 steps", rates, settings.false_alarms_per_10k, key="sensitivity", width=250,
            bind="query-params", help="Of a healthy run. More finds more, and cries wolf more often.",
        )  # fmt: skip
        patience = st.slider(
            "Patience (steps)", 1, max(64, policy.patience), policy.patience, key="patience", width=250,
            bind="query-params", help="In which a loss that falls back must halve its excess.",
        )  # fmt: skip
        depth = st.slider(
            "Depth (steps)", 1, max(1000, policy.min_depth), policy.min_depth, key="depth", width=250,
            bind="query-params", help="Between the restored checkpoint and the onset, at least.",
        )  # fmt: skip
        low, high = st.slider(
            "Skip (batches)", 1, max(2000, policy.skip_max), (policy.skip_min, policy.skip_max), key="skip", width=250,
            bind="query-params", help="At least, and at most.",
        )  # fmt: skip
        every = st.select_slider(
            "A checkpoint every (steps)", SPACINGS, 100, key="checkpoints", width=250, bind="query-params",
            help="The lab supposes one at each multiple: where they were is not kept.",
        )  # fmt: skip
    changed = replace(policy, patience=patience, min_depth=depth, skip_min=low, skip_max=high)
    return Trial(replace(settings, false_alarms_per_10k=float(rate)), changed, every)


def results(sample: Specimen, chosen: Trial) -> None:
    began = time.perf_counter()
    scored = trial_input.scored(sample, chosen.settings)
    simulation = simulate(scored, chosen.settings, chosen.policy, every=chosen.every)
    found = trial.findings(simulation, sample.troubles)
    took = time.perf_counter() - began
    told = trial.totals(found)
    with st.container(horizontal=True):
        if sample.note:
            st.metric("Caught", f"{told.caught} of {told.caught + told.missed}", width=WIDTH)
            st.metric("Missed", told.missed, width=WIDTH)
            st.metric("New", told.new, width=WIDTH, help="Found where no trouble is known.")
        else:
            st.metric("Found", told.new, width=WIDTH)
        st.metric("Rollbacks", told.rollbacks, width=WIDTH)
        st.metric("Steps given up", formatting.count(told.steps_given_up), width=WIDTH)
        st.metric("Batches skipped", formatting.count(told.batches_skipped), width=WIDTH)
    st.caption(about(sample, took, simulation.outliers))
    component.show(trial_figure(sample, found), key="lab-figure", label="Loss, and what was found")
    if found:
        st.dataframe(trial.table(found), hide_index=True, key="lab-table")
    else:
        st.caption("Nothing was found, and no trouble is known.")


def about(sample: Specimen, took: float, outliers: int) -> str:
    rows = f"{sample.num_rows:,} steps judged in {formatting.seconds(took)}"
    if sample.num_rows < sample.total:
        rows += f" (the newest of {sample.total:,}; a link with `steps=A-B` takes others)"
    against = f", told against {sample.note}" if sample.note else ""
    passed = formatting.plural(outliers, "row")
    return f"{rows}{against}. {passed} out of band alone let pass. Nothing is rolled back here."


def write(run_id: str, own: Mapping[str, Any] | None, chosen: Trial) -> None:
    """One press, and a second one in the dialog, make it the run's rule; its mode stays."""
    before = run_policy.to_rule(run_policy.policy_of(own), run_policy.settings_of(own))
    wish = {name: getattr(chosen.policy, name) for name in ("patience", "min_depth", "skip_min", "skip_max")}
    wish["detection"] = {"false_alarms_per_10k": chosen.settings.false_alarms_per_10k}
    after = run_policy.changed(own, wish)
    if after == before:
        st.caption("The sliders stand as the run's own policy does.")
        return
    told = formatting.bullet_list([f"{name}: {was} -> {now}" for name, was, now in changes(before, after)])
    question = (
        f"Write this as the policy of run {formatting.escape_markdown(run_id)}? "
        f"It applies from the next decision on.\n\n{told}"
    )
    deed = Deed("Write", question, "Written: the run's policy.", "PUT", f"/runs/{run_id}/policy", wish)
    operate.button("Write as the run's policy", deed, key="lab-write", icon=":material/save:", primary=True)


def changes(before: dict[str, object], after: dict[str, object]) -> list[tuple[str, object, object]]:
    names = [name for name in after | before if before.get(name) != after.get(name)]
    return [(name, before.get(name, "as usual"), after.get(name, "as usual")) for name in names]


frame.follow(page, seconds=None)
