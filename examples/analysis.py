"""A stored run, studied afterwards: what went wrong, what was done about it, and what it cost.

    python examples/analysis.py RUN [--url sqlite:///.lossguard/lossguard.db] [--plot study.html]

RUN is the id of a run that the store holds; `python -m db import FILE` brings one in. LOSSGUARD_DATABASE_URL names the
store too. Everything below is pandas: read it from top to bottom, and take what you need into a notebook of your own.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script in a folder does not see the checkout by itself

from db import frames, queries
from db.engine import DEFAULT_URL, BadDatabaseUrl, NoStore, check_store, create_engine, first_line, reading, shown
from db.lineage import Line

AROUND = 50
"""Steps before and after an intervention that are compared."""


def study(run_id: str, url: str, plot: Path | None) -> None:
    """Print the study of a run; draw it into `plot` if plotly is there."""
    # 1. Read. A session is all that the frames need; when the block ends they are plain pandas frames.
    check_store(url)
    engine = create_engine(url)
    with reading(engine) as session:
        run = queries.run_named(session, run_id=run_id)
        if run is None:
            raise SystemExit(f"there is no run {run_id!r} in {shown(url)}")
        steps = frames.steps(session, run=run, line=Line.ALL)  # every step the run ever computed
        incidents = frames.incidents(session, run=run)
        interventions = frames.interventions(session, run=run)
        segments = frames.segments(session, run=run)
    engine.dispose()
    if steps.empty or "loss" not in steps:
        raise SystemExit(f"run {run_id!r} has no losses yet")

    # 2. The line that counts is one column away. Segments and what became of them:
    live, left = steps[steps["live"]], steps[~steps["live"]]
    print(f"run {run_id}: {run.project}, {run.state}\n")
    print(segments[["parent", "reason", "first_step", "last_step", "live_from", "live_to"]].to_string())

    # 3. What the trouble cost: every step on a discarded branch was computed for nothing.
    print(
        f"\nsteps consumed {len(steps):,}, effective {len(live):,}, lost {len(left):,} ({len(left) / len(steps):.1%})"
    )
    if "step_seconds" in steps:
        print(f"time lost {left['step_seconds'].sum() / 60:.1f} of {steps['step_seconds'].sum() / 60:.1f} minutes")

    # 4. Incidents. A NaN is in the loss as NaN; `loss_non_finite` tells it from a step that reported none.
    columns = ["kind", "signal", "onset_step", "detected_step", "end_step", "score", "outcome"]
    print(f"\n{len(incidents)} incidents\n{incidents[columns].to_string()}" if len(incidents) else "\nno incidents")
    if "loss_non_finite" in steps:
        print(f"losses that were not finite: {steps['loss_non_finite'].value_counts().to_dict()}")

    # 5. Did it help? The loss just before and after each rollback, and on the branch where its incident was.
    done = interventions[interventions["order_state"] == "applied"].dropna(subset=["rewound_to"])
    if len(done):
        print(f"\nmedian loss around the interventions ({AROUND} steps)")
        rows = {number: around(live, left, incidents, row) for number, row in done.iterrows()}
        print(pd.DataFrame(rows).T.to_string())

    # 6. A picture: the live line over the branches that were discarded.
    if plot is not None:
        draw(live, left, incidents, plot)


def around(
    live: pd.DataFrame, left: pd.DataFrame, incidents: pd.DataFrame, intervention: "pd.Series[Any]"
) -> dict[str, object]:
    """Median losses before and after a rollback, and what its incident was like on the branch that was discarded."""
    fork = int(intervention["rewound_to"])
    segment = incidents["segment"].get(intervention["incident"])  # None: a person went back without one
    branch = left[(left["segment"] == segment) & (left.index >= fork)]
    return {
        "state": intervention["state"],
        "rewound_to": fork,
        "before": live["loss"].loc[fork - AROUND : fork - 1].median(),
        "after": live["loss"].loc[fork : fork + AROUND - 1].median(),
        "discarded, at its worst": branch["loss"].max(),
        "not finite there": branch["loss_non_finite"].count() if "loss_non_finite" in branch else 0,
    }


def draw(live: pd.DataFrame, left: pd.DataFrame, incidents: pd.DataFrame, path: Path) -> None:
    """Write an HTML page with the loss; without plotly, say how to get it."""
    try:
        import plotly.graph_objects as go  # type: ignore[import-untyped]
    except ImportError:
        print("\nno picture: plotly is not installed (pip install plotly)")
        return
    figure = go.Figure(layout={"xaxis_title": "step", "yaxis_title": "loss (nats per token)"})
    for segment, branch in left.groupby("segment"):
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
    parser.add_argument("--url", default=os.environ.get("LOSSGUARD_DATABASE_URL", DEFAULT_URL), help="the store")
    parser.add_argument("--plot", type=Path, help="an HTML file to draw into")
    given = parser.parse_args()
    try:
        study(given.run, given.url, given.plot)
    except NoStore as error:
        raise SystemExit(f"{error}; name one with --url or LOSSGUARD_DATABASE_URL") from None
    except (BadDatabaseUrl, sa.exc.DBAPIError) as error:
        reason = first_line(error.orig if isinstance(error, sa.exc.DBAPIError) else error)
        raise SystemExit(f"cannot read the store {shown(given.url)}: {reason}") from None
