"""The command line: `python -m trainer run`.

Exit codes: 0 the run reached its end; 1 a restore was not exact, so the run was stopped; 2 something the user wrote
cannot be used; 130 stopped by SIGINT; 143 by SIGTERM.
"""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

import lossguard
from trainer.config import load_recipe
from trainer.errors import UserMistake
from trainer.faults import parse_fault
from trainer.reach import check_collector
from trainer.train import Job, train

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
SKIP = re.compile(r"(\d+):(\d+)")


@app.callback()
def trainer() -> None:
    """The reference trainer: GPT pre-training watched, and rolled back past loss spikes, by Lossguard."""


@app.command()
def run(
    recipe: Annotated[str, Option(help="A recipe of trainer/recipes, or a path to a .toml.")] = "tiny",
    data: Annotated[str | None, Option(help="A text file, a folder, or .bin shards of uint16.")] = None,
    steps: Annotated[int | None, Option(help="Optimizer steps of the run.")] = None,
    seed: Annotated[int | None, Option(help="Seed of weights, data order and faults.")] = None,
    out: Annotated[Path, Option(envvar="LOSSGUARD_DIR", help="Folder for spools and checkpoints.")] = Path(
        ".lossguard"
    ),
    fault: Annotated[list[str] | None, Option(metavar="KIND@STEP[xN]", help="Plant a fault. Repeatable.")] = None,
    skip: Annotated[list[str] | None, Option(metavar="A:B", help="Leave batches A to B - 1 out. Repeatable.")] = None,
    run_id: Annotated[str | None, Option(help="Resume this run, or name a new one.")] = None,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe. Repeatable.")
    ] = None,
    mode: Annotated[str | None, Option(help="online, offline or off.")] = None,
    url: Annotated[str | None, Option(envvar="LOSSGUARD_URL", help="The collector's address.")] = None,
) -> None:
    """Train a recipe. Ctrl-C or SIGTERM saves a checkpoint first; the same --run-id goes on from it."""
    try:
        chosen = load_recipe(recipe, _overrides(data=data, steps=steps, seed=seed) + (set_ or []))
        job = Job(
            directory=out,
            run_id=run_id,
            mode=mode,
            url=url,
            faults=[parse_fault(text) for text in fault or []],
            skips=[_parse_skip(text) for text in skip or []],
        )
        _look_for_collector(mode, url)
        outcome = train(chosen, job)
    except lossguard.CheckpointMismatch as mismatch:
        print(f"{mismatch}.", file=sys.stderr)
        raise typer.Exit(1) from None
    except (UserMistake, lossguard.LossguardError) as mistake:
        print(mistake, file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None
    if outcome.interrupted_by is not None:
        raise typer.Exit(128 + outcome.interrupted_by)


def _overrides(*, data: str | None, steps: int | None, seed: int | None) -> list[str]:
    """The options that are short for a field of the recipe, as overrides."""
    fields = {"data.path": data, "steps": steps, "seed": seed}
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items() if value is not None]


def _parse_skip(text: str) -> lossguard.Skip:
    match = SKIP.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserMistake(f"The range {text!r} cannot be skipped: write A:B with A below B, as 300:500.")
    return lossguard.Skip(int(match[1]), int(match[2]), "--skip")


def _look_for_collector(mode: str | None, url: str | None) -> None:
    """Say at once that a collector is away. An address that is none is left to `lossguard.init`, which says so."""
    if url and (mode or os.environ.get("LOSSGUARD_MODE") or "online") == "online":
        warning = check_collector(url)
        if warning is not None:
            print(warning, file=sys.stderr)
