"""The command line: `python -m trainer run`, `drill`, `lab` and `replay`.

Exit codes of `drill`: 0 every planted fault that hurt was got past; 1 one was not; else as below.
Exit codes of `replay`: 0 a cause was found, 1 none was, or it could not be written to the incident; else as below.
Exit codes of `run`: 0 the run reached its end; 1 a restore was not exact, or another process left; 2 something the user
wrote cannot be used, or no checkpoint is intact; 130 stopped by SIGINT; 143 by SIGTERM.
"""

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import lossguard
from lossguard.states import Cause
from trainer.config import load_recipe
from trainer.drill.drill import drill as run_drill
from trainer.drill.drill import succeeded, summary
from trainer.drill.table import show_drill
from trainer.errors import Stopped, UserMistake
from trainer.faults import parse_fault
from trainer.lab import SWITCHES, show_lab, try_switch
from trainer.ranks import launched
from trainer.reach import check_collector
from trainer.replay.incident import find_case, folder_of, write_verdict
from trainer.replay.record import read_record
from trainer.replay.replay import replay as run_replay
from trainer.replay.table import show_replay
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
    with _told_in_a_sentence():
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
        with launched(chosen.device):
            outcome = train(chosen, job)
    if outcome.interrupted_by is not None:
        raise typer.Exit(128 + outcome.interrupted_by)


@app.command()
def drill(
    faults: Annotated[int, Option(min=1, help="Faults planted along one run.")] = 20,
    recipe: Annotated[str, Option(help="A recipe of trainer/recipes, or a path to a .toml.")] = "drill",
    seed: Annotated[list[int] | None, Option(help="Seed of a drill. Repeatable.")] = None,
    data: Annotated[str | None, Option(help="A text file, a folder, or .bin shards of uint16.")] = None,
    out: Annotated[Path | None, Option(help="Folder for stores and checkpoints; a temporary one if left out.")] = None,
    compare: Annotated[bool, Option(help="Also run the arms: do nothing, skip the step, fixed PaLM rule.")] = True,
    json_: Annotated[bool, Option("--json", help="Print no table, only the JSON object.")] = False,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a field. Repeatable.")
    ] = None,
) -> None:
    """Plant faults along a run and say what became of each. The last line printed is one JSON object."""
    with _told_in_a_sentence():
        drills = []
        with _folder(out) as folder:
            for each in seed or [1]:
                chosen = load_recipe(recipe, _overrides(data=data, steps=None, seed=each) + (set_ or []))
                place = folder / f"seed-{each}-{time.strftime('%Y%m%d-%H%M%S')}"
                place.mkdir(parents=True)
                tell = partial(print, file=sys.stderr)
                drills.append(run_drill(chosen, faults, place, compare=compare, tell=tell))
    if not json_:
        for one in drills:
            show_drill(one)
    print(json.dumps(summary(drills), allow_nan=False))
    raise typer.Exit(0 if succeeded(drills) else 1)


@app.command()
def lab(
    switch: Annotated[list[str] | None, Argument(help="Recipes to compare; all the switches if left out.")] = None,
    steps: Annotated[int, Option(min=1, help="Optimizer steps of each.")] = 500,
    seed: Annotated[int, Option(help="Seed of all of them.")] = 1,
    data: Annotated[str | None, Option(help="A text file, a folder, or .bin shards of uint16.")] = None,
    json_: Annotated[bool, Option("--json", help="Print one JSON object a recipe in place of the table.")] = False,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a field. Repeatable.")
    ] = None,
) -> None:
    """Train the same model with each switch thrown, and say what that does to loss, grad norm and log Z."""
    overrides = _overrides(data=data, steps=steps, seed=seed) + (set_ or [])
    results = []
    with _told_in_a_sentence():
        recipes = [load_recipe(name, overrides) for name in switch or SWITCHES]
        with _folder(None) as folder:
            for recipe in recipes:
                print(f"{recipe.name}, {recipe.steps} steps", file=sys.stderr)
                results.append(try_switch(recipe, folder))
    if json_:
        for result in results:
            print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        show_lab(results)


@app.command()
def replay(
    incident: Annotated[str, Argument(metavar="RUN/NUMBER", help="The incident, as the dashboard and alerts name it.")],
    at: Annotated[
        str | None,
        Option(metavar="ONSET:DETECTED", help="For RUN alone: the steps of a trouble that no collector knows."),
    ] = None,
    out: Annotated[
        Path, Option(envvar="LOSSGUARD_DIR", help="Folder that holds the run's spools and checkpoints.")
    ] = Path(".lossguard"),
    write: Annotated[bool, Option(help="Write the verdict to the incident.")] = True,
    json_: Annotated[bool, Option("--json", help="Print the verdict as one JSON object, with all curves.")] = False,
    url: Annotated[str | None, Option(envvar="LOSSGUARD_URL", help="The collector's address.")] = None,
) -> None:
    """Say what caused an incident: hardware, the data, the state, or only both together.

    Trains {the same, an earlier} checkpoint again on {the same, other} batches, in a folder of its own, and looks
    which of the four does it again. Where batches have a part in it, says which, and shows their text.

    Takes some 4 times the steps from the checkpoint to the incident; finding the batches some 4 times more.

    For runs of one process. The token (LOSSGUARD_TOKEN) needs the scopes read and report.
    """
    with _told_in_a_sentence():
        if int(os.environ.get("WORLD_SIZE") or "1") > 1:
            raise UserMistake("A replay runs in one process: start it without torchrun.")
        case, collector = find_case(incident, at=at, url=url, directory=out)
        record = read_record(folder_of(out, case.run_id), key=case.segment, step=case.detected)
        finding = run_replay(case, record, tell=partial(print, file=sys.stderr))
    told = finding.to_dict()
    if json_:
        print(json.dumps({"incident": str(case)} | told, allow_nan=False))
    else:
        show_replay(case, finding)
    if write and collector is not None:
        try:
            write_verdict(collector, case, told)
        except UserMistake as mistake:
            print(f"The verdict was not written. {mistake}", file=sys.stderr)
            raise typer.Exit(1) from None
    raise typer.Exit(1 if finding.cause is Cause.UNDETERMINED else 0)


@contextmanager
def _told_in_a_sentence() -> Iterator[None]:
    """What goes wrong ends the command with one sentence and the exit code that the top of this file names."""
    try:
        yield
    except (lossguard.CheckpointMismatch, lossguard.RanksError) as problem:
        print(f"{problem}.", file=sys.stderr)
        raise typer.Exit(1) from None
    except (UserMistake, lossguard.LossguardError) as mistake:
        print(mistake, file=sys.stderr)
        raise typer.Exit(2) from None
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.by) from None
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


@contextmanager
def _folder(wished: Path | None) -> Iterator[Path]:
    if wished is not None:
        yield wished.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="lossguard-drill-") as folder:
        yield Path(folder)


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
