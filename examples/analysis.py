"""Analyse a stored run: its incidents, the interventions, and what they cost.

    python examples/analysis.py RUN --url http://127.0.0.1:8000 [--plot study.html]
    python examples/analysis.py RUN [--url sqlite:///.lossguard/lossguard.db]

RUN is the id of a run at a collector (LOSSGUARD_TOKEN is its token), or in a store, which LOSSGUARD_DATABASE_URL names,
too; `python -m db import FILE` adds one. The frames are the same from either; a laptop needs
`pip install 'lossguard[frames]'` and the collector alone.
Everything below is pandas: read it from top to bottom, and copy what you need into your own notebook.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script in a folder does not see the checkout by itself

from lossguard import Client, CollectorError, ConfigurationError

DEFAULT_URL = os.environ.get("LOSSGUARD_DATABASE_URL", "sqlite:///.lossguard/lossguard.db")
COMPARED_STEPS = 50
"""Steps before and after an intervention that are compared."""


class Frames(NamedTuple):
    """A run as plain pandas frames."""

    project: str
    state: str
    steps: pd.DataFrame
    """Every step the run ever computed."""
    incidents: pd.DataFrame
    interventions: pd.DataFrame
    segments: pd.DataFrame


def from_collector(run_id: str, url: str) -> Frames:
    """Over HTTP, as from a notebook on a laptop."""
    with Client(url, os.environ.get("LOSSGUARD_TOKEN")) as client:
        known, run = client.get(f"/runs/{run_id}"), client.run(run_id)
        tables = run.frame(discarded=True), run.incidents(), run.interventions(), run.segments()
        return Frames(known["project"], known["state"], *tables)


def from_store(run_id: str, url: str) -> Frames:
    """From the database itself, which needs the checkout. The frames remain when the session ends."""
    import sqlalchemy as sa

    from db import frames, queries
    from db.lineage import Line
    from db.store.engine import BadDatabaseUrl, NoStore, check_store, create_engine, first_line, reading, shown

    try:
        check_store(url)
        engine = create_engine(url)
        with reading(engine) as session:
            run = queries.run_named(session, run_id=run_id)
            if run is None:
                raise SystemExit(f"there is no run {run_id!r} in {shown(url)}")
            steps = frames.steps(session, run=run, line=Line.ALL)
            tables = [make(session, run=run) for make in (frames.incidents, frames.interventions, frames.segments)]
        engine.dispose()
    except NoStore as error:
        raise SystemExit(f"{error}; name one with --url or LOSSGUARD_DATABASE_URL") from None
    except (BadDatabaseUrl, sa.exc.DBAPIError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        raise SystemExit(f"cannot read the store {shown(url)}: {reason}") from None
    return Frames(run.project, run.state, steps, *tables)


def study(run_id: str, url: str, plot: Path | None) -> None:
    """Print the analysis of a run, and draw it into `plot` if plotly is installed."""
    # 1. Read, from a collector or from a store.
    read = from_collector if url.startswith(("http://", "https://")) else from_store
    project, state, steps, incidents, interventions, segments = read(run_id, url)
    if steps.empty or "loss" not in steps:
        raise SystemExit(f"run {run_id!r} has no losses yet")

    # 2. One column says what is on the live line. The segments, and their ranges on it:
    live, discarded = steps[steps["live"]], steps[~steps["live"]]
    print(f"run {run_id}: {project}, {state}\n")
    print(segments[["parent", "reason", "first_step", "last_step", "live_from", "live_to"]].to_string())

    # 3. The cost: every step on a discarded branch was computed for nothing.
    share = len(discarded) / len(steps)
    print(f"\nsteps consumed {len(steps):,}, effective {len(live):,}, lost {len(discarded):,} ({share:.1%})")
    if "step_seconds" in steps:
        print(f"time lost {discarded['step_seconds'].sum() / 60:.1f} of {steps['step_seconds'].sum() / 60:.1f} minutes")

    # 4. Incidents. A loss that is NaN was reported as NaN if `loss_non_finite` says so; else it was not reported.
    columns = ["kind", "signal", "onset_step", "detected_step", "end_step", "score", "outcome"]
    print(f"\n{len(incidents)} incidents\n{incidents[columns].to_string()}" if len(incidents) else "\nno incidents")
    if "loss_non_finite" in steps:
        print(f"losses that were not finite: {steps['loss_non_finite'].value_counts().to_dict()}")

    # 5. Did it help? The loss just before and after each rollback, and on the branch where its incident was.
    done = interventions[interventions["order_state"] == "applied"].dropna(subset=["rewound_to"])
    if len(done):
        print(f"\nmedian loss around the interventions ({COMPARED_STEPS} steps)")
        rows = {number: around(live, discarded, incidents, row) for number, row in done.iterrows()}
        print(pd.DataFrame(rows).T.to_string())

    # 6. A picture: the live line over the discarded branches.
    if plot is not None:
        draw(live, discarded, incidents, plot)


def around(
    live: pd.DataFrame, discarded: pd.DataFrame, incidents: pd.DataFrame, intervention: "pd.Series[Any]"
) -> dict[str, object]:
    """Median losses before and after a rollback, and the worst ones on the branch that it discarded."""
    fork = int(intervention["rewound_to"])
    segment = incidents["segment"].get(intervention["incident"])  # None when an operator rolled back without one
    branch = discarded[(discarded["segment"] == segment) & (discarded.index >= fork)]
    return {
        "state": intervention["state"],
        "rewound_to": fork,
        "before": live["loss"].loc[fork - COMPARED_STEPS : fork - 1].median(),
        "after": live["loss"].loc[fork : fork + COMPARED_STEPS - 1].median(),
        "discarded, at its worst": branch["loss"].max(),
        "not finite there": branch["loss_non_finite"].count() if "loss_non_finite" in branch else 0,
    }


def draw(live: pd.DataFrame, discarded: pd.DataFrame, incidents: pd.DataFrame, path: Path) -> None:
    """Write an HTML page with the loss, or print how to install plotly."""
    try:
        import plotly.graph_objects as go  # type: ignore[import-untyped]
    except ImportError:
        print("\nno picture: plotly is not installed (pip install plotly)")
        return
    figure = go.Figure(layout={"xaxis_title": "step", "yaxis_title": "loss (nats per token)"})
    for segment, branch in discarded.groupby("segment"):
        figure.add_scatter(x=branch.index, y=branch["loss"], name=f"discarded, segment {segment}", line_color="grey")
    figure.add_scatter(x=live.index, y=live["loss"], name="live line")
    for row in incidents.itertuples():
        figure.add_vline(x=row.onset_step, line_dash="dot", annotation_text=str(row.kind))
    try:
        figure.write_html(path, include_plotlyjs="cdn")
    except OSError as error:
        raise SystemExit(f"cannot write the picture {path}: {error.strerror}; name another file with --plot") from None
    print(f"\nwrote {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", help="the id of the run")
    parser.add_argument("--url", default=DEFAULT_URL, help="of the collector, or of the store")
    parser.add_argument("--plot", type=Path, help="an HTML file to draw into")
    given = parser.parse_args()
    try:
        study(given.run, given.url, given.plot)
    except (CollectorError, ConfigurationError) as error:
        raise SystemExit(str(error)) from None
