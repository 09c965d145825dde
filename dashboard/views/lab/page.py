"""Detector lab: what other settings would have caught, missed and done on a stored run, or on an uploaded curve.

In the URL: ?run=ID&source=..&sensitivity=..&patience=..&policy=..&batch-cost=..&depth=..&skip=..&checkpoints=..
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
from dashboard.operator_actions import OperatorAction
from dashboard.views import frame, operate, run_picker
from dashboard.views.lab import trial_input, trial_results
from dashboard.views.lab.figure import trial_figure
from dashboard.views.lab.trial_input import TrialInput
from dashboard.views.lab.trial_results import TrialResult
from dashboard.views.table import show_table
from dashboard.views.upload import uploaded
from db.models import Run
from monitor.detection import DetectionSettings, Policy
from monitor.detection.curve import CurveError
from monitor.detection.interventions import policies, run_policy
from monitor.detection.simulation import simulate

METRIC_WIDTH_PIXELS = 150  # two metrics fit side by side on a phone
SLIDER_WIDTH_PIXELS = 250
FALSE_ALARM_RATES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
CHECKPOINT_INTERVALS = [10, 20, 50, 100, 200, 500, 1000]
BATCH_COSTS = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
SAVED = ("name", "patience", "min_depth", "skip_min", "skip_max", "batch_cost")
"""Fields of the policy that the sliders set."""
RUN, CURVE = "A stored run", "A CSV file"
RUN_CHANGED = "lab-run-changed"
"""Key in the session: another run was selected, whose own policy the sliders do not show yet."""
CURVE_COLUMNS = (
    "Columns: step, loss; optional: grad_norm, log_z, lr, tokens, batch_index, and truth, which is not 0 where an "
    "incident is known."
)


@dataclass(frozen=True, slots=True)
class TrialSettings:
    detection: DetectionSettings
    policy: Policy
    checkpoint_interval: int
    """Steps."""


def page() -> None:
    operate.show_success()
    st.title("Detector lab", anchor=False)
    source = st.segmented_control("Source", [RUN, CURVE], default=RUN, required=True, key="source", bind="query-params")
    if source == RUN:
        run_trial()
        return
    data = uploaded("Curve", "csv", key="curve", help=CURVE_COLUMNS, read=trial_input.of_curve, error=CurveError)
    if data is not None:
        simulation_results(data, sliders(None))


def run_trial() -> None:
    facts = select_run()
    if facts is None:
        return
    data = trial_input.of_run(facts, steps(facts))
    if not data.num_rows:
        st.info("There are no steps to simulate.", icon=":material/info:")
        return
    own = (cached.facts(facts.run.id) or facts).run.policy  # it may have changed since the steps were read
    if st.session_state.pop(RUN_CHANGED, False):
        start_at(own)
    settings = sliders(own)
    simulation_results(data, settings)
    save_policy(facts.run.id, own, settings)


def select_run() -> RunFacts | None:
    """The selected run as it was when it was selected: results stay comparable while the run continues."""
    run_id = frame.current_run_id()
    if run_id is None:
        st.info(f'No runs yet. To try a curve of your own, choose "{CURVE}".', icon=":material/info:")
        return None
    current = cached.facts(run_id)
    if current is None:
        st.warning(frame.no_such_run(run_id), icon=":material/search_off:")
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        names = run_labels(current.run)
        selected = st.selectbox(
            "Run", list(names), index=list(names).index(run_id), format_func=names.__getitem__, key=f"lab-run-{run_id}"
        )
        if selected != run_id:
            url_state.set_run(selected)
            url_state.set_steps(None)
            st.session_state[RUN_CHANGED] = True
            st.rerun()
        reload = st.button("Load the newest steps", key="lab-reload", icon=":material/refresh:")
    key = f"lab-facts-{run_id}-{current.run.started_at}"  # not those of a deleted run of its id
    if reload or key not in st.session_state:
        st.session_state[key] = cached.facts(run_id)
    facts: RunFacts | None = st.session_state[key]
    return facts


def run_labels(current: Run) -> dict[str, str]:
    """The runs to choose from, by id: the current one is always among them."""
    names = {run.id: formatting.run_label(run) for run in run_picker.offered_runs(key="find-lab")}
    return names if current.id in names else {current.id: formatting.run_label(current), **names}


def steps(facts: RunFacts) -> tuple[int, int]:
    """First and last step to simulate: those of the URL, else the whole run."""
    last = max((each.last_step for each in facts.segments if each.last_step is not None), default=0)
    named = url_state.steps()
    return (0, last) if named is None else (named[0], min(named[1], last))


def start_at(own: Mapping[str, Any] | None) -> None:
    """Set the sliders to this policy: they keep what the viewer chose until another run is selected."""
    policy, detection = run_policy.policy_of(own), run_policy.settings_of(own)
    st.session_state["sensitivity"] = detection.false_alarms_per_10k
    st.session_state["patience"] = policy.patience
    st.session_state["policy"] = policy.name
    st.session_state["depth"] = policy.min_depth
    st.session_state["skip"] = (policy.skip_min, policy.skip_max)
    st.session_state["batch-cost"] = policy.batch_cost


def sliders(own: Mapping[str, Any] | None) -> TrialSettings:
    """Show the sliders. They start at the run's own policy, unless the URL says otherwise."""
    policy, detection = run_policy.policy_of(own), run_policy.settings_of(own)
    width, names = SLIDER_WIDTH_PIXELS, list(dict.fromkeys([*policies.names(), policy.name]))
    with st.container(horizontal=True):
        rates = sorted({*FALSE_ALARM_RATES, detection.false_alarms_per_10k})
        rate = st.select_slider(
            "False alarms per 10,000 steps", rates, detection.false_alarms_per_10k, key="sensitivity", width=width,
            bind="query-params", help="Target on a healthy run. A higher rate catches more, with more false alarms.",
        )  # fmt: skip
        patience = st.slider(
            "Patience (steps)", 1, max(64, policy.patience), policy.patience, key="patience", width=width,
            bind="query-params",
            help="While the loss is falling back, the policy waits if the excess halves within so many steps.",
        )  # fmt: skip
        name = st.selectbox(
            "Policy", names, index=names.index(policy.name), key="policy", width=width, bind="query-params",
            help="adaptive takes the rollback of the lowest expected cost; palm goes deep and skips at least 200.",
        )  # fmt: skip
        policy = palm_sliders(policy) if name == "palm" else adaptive_sliders(policy)
        interval = st.select_slider(
            "Checkpoint interval (steps)", CHECKPOINT_INTERVALS, 100, key="checkpoints", width=width,
            bind="query-params",
            help="The simulation assumes a checkpoint at each multiple: the store does not record the real ones.",
        )  # fmt: skip
    return TrialSettings(
        detection=replace(detection, false_alarms_per_10k=float(rate)),
        policy=replace(policy, name=name, patience=patience),
        checkpoint_interval=interval,
    )


def palm_sliders(policy: Policy) -> Policy:
    """Show sliders for the depth and width of PaLM's remedy."""
    depth = st.slider(
        "Depth (steps)", 1, max(1000, policy.min_depth), policy.min_depth, key="depth", width=SLIDER_WIDTH_PIXELS,
        bind="query-params", help="Minimum distance from the restored checkpoint to the onset.",
    )  # fmt: skip
    skip_min, skip_max = st.slider(
        "Skip (batches)", 1, max(2000, policy.skip_max), (policy.skip_min, policy.skip_max), key="skip",
        width=SLIDER_WIDTH_PIXELS, bind="query-params", help="Minimum and maximum.",
    )  # fmt: skip
    return replace(policy, min_depth=depth, skip_min=skip_min, skip_max=skip_max)


def adaptive_sliders(policy: Policy) -> Policy:
    """Show sliders for the parts of the expected cost."""
    costs = sorted({*BATCH_COSTS, policy.batch_cost})
    batch_cost = st.select_slider(
        "Cost of a batch (steps)", costs, policy.batch_cost, key="batch-cost", width=SLIDER_WIDTH_PIXELS,
        bind="query-params", help="What a batch that is never trained on costs. Higher costs make narrower skips.",
    )  # fmt: skip
    return replace(policy, batch_cost=float(batch_cost))


def simulation_results(data: TrialInput, settings: TrialSettings) -> None:
    started = time.perf_counter()
    scored = trial_input.scored(data, settings.detection)
    simulation = simulate(scored, settings.detection, settings.policy, every=settings.checkpoint_interval)
    results = trial_results.trial_results(simulation, data.known_incidents)
    seconds = time.perf_counter() - started
    metrics(data, results)
    st.caption(summary(data, seconds, simulation.outliers))
    if at_start := trial_results.rewinds_to_start(results):
        st.warning(at_start, icon=":material/first_page:")
    component.show(trial_figure(data, results), key="lab-figure", label="Loss, and what was detected")
    if results:
        show_table(trial_results.table(results), key="lab-table")
    else:
        st.caption("No incident was detected, and none is known.")


def metrics(data: TrialInput, results: list[TrialResult]) -> None:
    totals, width = trial_results.totals(results), METRIC_WIDTH_PIXELS
    with st.container(horizontal=True):
        if data.truth:
            st.metric("Caught", f"{totals.caught} of {totals.caught + totals.missed}", width=width)
            st.metric("Missed", totals.missed, width=width)
            st.metric("New", totals.new, width=width, help="Detected where no incident is known.")
        else:
            st.metric("Detected", totals.new, width=width)
        st.metric("Rollbacks", totals.rollbacks, width=width)
        st.metric("Steps discarded", formatting.short_count(totals.steps_discarded), width=width)
        st.metric("Batches skipped", formatting.short_count(totals.batches_skipped), width=width)


def summary(data: TrialInput, seconds: float, num_outliers: int) -> str:
    rows = f"{formatting.plural(data.num_rows, 'step')} scored in {formatting.seconds(seconds)}"
    if data.num_rows < data.num_available:
        rows += f" (the newest of {data.num_available:,}; a link with `steps=A-B` selects others)"
    truth = f", compared with {data.truth}" if data.truth else ""
    outliers = formatting.plural(num_outliers, "isolated outlier")
    return f"{rows}{truth}. {outliers} ignored. This is a simulation: nothing is rolled back."


def save_policy(run_id: str, own: Mapping[str, Any] | None, settings: TrialSettings) -> None:
    """A button that makes these settings the run's policy. The policy's mode stays as it is."""
    policy, detection = run_policy.policy_of(own), run_policy.settings_of(own)
    before = run_policy.to_rule(policy, detection)
    update: dict[str, Any] = {name: getattr(settings.policy, name) for name in SAVED}
    alarms = settings.detection.false_alarms_per_10k
    after = run_policy.to_rule(replace(policy, **update), replace(detection, false_alarms_per_10k=alarms))
    update["detection"] = {"false_alarms_per_10k": alarms}
    if after == before:
        st.caption("These are the settings of the run's own policy.")
        return
    differing = changes(before, after)
    listed = formatting.bullet_list([f"{name}: {old} -> {new}" for name, old, new in differing])
    name = formatting.escape_markdown(run_id)
    action = OperatorAction(
        label="Save",
        question=f"Save these settings as the policy of run {name}? They apply from the next decision on.\n\n{listed}",
        success="The run's policy was saved.",
        method="PUT",
        path=f"/runs/{run_id}/policy",
        body={each: update[each] for each, _, _ in differing},
    )
    operate.button("Save as the run's policy", action, key="lab-save", icon=":material/save:", primary=True)


def changes(before: dict[str, object], after: dict[str, object]) -> list[tuple[str, object, object]]:
    """Name, old and new value of each setting that differs."""
    names = [name for name in after | before if before.get(name) != after.get(name)]
    return [(name, before.get(name, "default"), after.get(name, "default")) for name in names]


frame.show_live(page, refresh_seconds=None)
