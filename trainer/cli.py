"""The command line: `python -m trainer run`, `drill`, `lab`, `explore` and `replay`.

Exit codes of `run`: 0 the run is complete; 1 a restore was not exact, or another process left; 2 an argument cannot be
used, or no checkpoint is intact; 130 stopped by SIGINT; 143 stopped by SIGTERM.
Exit codes of `drill`: 0 the run got past every injected fault that hurt; 1 it did not; otherwise as for `run`.
Exit codes of `replay`: 0 a cause was found; 1 none was found, or it could not be written to the incident; otherwise as
for `run`.
"""

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import lossguard
from trainer.config import load_recipe
from trainer.conversion import encoded
from trainer.data.tokenizer import byte_pair_size
from trainer.display import wide_console
from trainer.drill.drill import drill as run_drill
from trainer.drill.drill import show_drill, succeeded, summary
from trainer.errors import Stopped, UsageError
from trainer.explore import PORT, Explored, Explorer
from trainer.faults import parse_fault
from trainer.lab.sweeps import SWEEPS
from trainer.lab.training import Lab
from trainer.pipeline import draw as draw_pipeline
from trainer.pipeline import follow
from trainer.process.ranks import process_group
from trainer.process.reachability import check_collector
from trainer.process.signals import parse_signals
from trainer.replay.incident import find_incident, run_folder, write_verdict
from trainer.replay.record import read_record
from trainer.replay.replay import replay as run_replay
from trainer.replay.verdict import show_replay
from trainer.train import Job, train

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
RESUME_FROM = "Resume once from the checkpoint of this step, and discard the newer ones; default: from the newest."
TOKENIZER = "Train on N byte pairs learnt from the text, such as bpe:4096, instead of on bytes."
OUT = Path(".lossguard")
SKIP = re.compile(r"(\d+):(\d+)")

Data = Annotated[str | None, Option(help="A text file, a folder of text, or .bin shards of uint16 tokens.")]
RecipeName = Annotated[str, Option(help="A recipe in trainer/recipes, or the path of a .toml file.")]
Overrides = Annotated[
    list[str] | None, Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe. Repeatable.")
]
CHECKPOINTS = "Keep checkpoints there (s3://bucket/runs, or a folder) instead of in the run's folder."
Checkpoints = Annotated[str | None, Option(metavar="URL", help=CHECKPOINTS)]
Url = Annotated[str | None, Option(envvar="LOSSGUARD_URL", help="The collector's address.")]


@app.callback()
def trainer() -> None:
    """The reference trainer: GPT pre-training that Lossguard monitors and rolls back past loss spikes."""


@app.command()
def run(
    recipe: RecipeName = "tiny",
    data: Data = None,
    tokenizer: Annotated[str | None, Option(metavar="bpe:N", help=TOKENIZER)] = None,
    steps: Annotated[int | None, Option(help="Number of optimizer steps.")] = None,
    seed: Annotated[int | None, Option(help="Seed of the weights, the data order and the faults.")] = None,
    out: Annotated[Path, Option(envvar="LOSSGUARD_DIR", help="Folder for spools and checkpoints.")] = OUT,
    checkpoints: Checkpoints = None,
    fault: Annotated[list[str] | None, Option(metavar="KIND@STEP[xN]", help="Inject a fault. Repeatable.")] = None,
    skip: Annotated[list[str] | None, Option(metavar="A:B", help="Skip the batches A to B - 1. Repeatable.")] = None,
    gate: Annotated[bool, Option("--gate", help="Skip updates whose loss or gradient norm is out of bounds.")] = False,
    run_id: Annotated[str | None, Option(help="The run to resume, or the id of a new run.")] = None,
    resume_from: Annotated[int | None, Option(min=0, metavar="STEP", help=RESUME_FROM)] = None,
    set_: Overrides = None,
    mode: Annotated[str | None, Option(help="online, offline or off.")] = None,
    url: Url = None,
    signals: Annotated[str, Option(help="Also report these, with commas: update_norm, layer_norms, attention.")] = "",
) -> None:
    """Train a recipe. Ctrl-C and SIGTERM save a checkpoint before the run stops; the same --run-id resumes it."""
    with _errors_as_sentences():
        overrides = _overrides(data=data, steps=steps, seed=seed, tokenizer=tokenizer)
        chosen = load_recipe(recipe, overrides + (set_ or []))
        job = Job(
            directory=out,
            checkpoints=checkpoints,
            run_id=run_id,
            mode=mode,
            url=url,
            faults=[parse_fault(text) for text in fault or []],
            skips=[_parse_skip(text) for text in skip or []],
            resume_from=resume_from,
            gate=gate,
            signals=parse_signals(signals),
        )
        is_online = (mode or os.environ.get("LOSSGUARD_MODE") or "online") == "online"
        if url and is_online and (warning := check_collector(url)):
            print(warning, file=sys.stderr)
        with process_group(chosen.device):
            result = train(chosen, job)
        result.complete()


@app.command()
def drill(
    faults: Annotated[int, Option(min=1, help="Number of faults injected in one run.")] = 20,
    recipe: RecipeName = "drill",
    seed: Annotated[list[int] | None, Option(help="Seed of a drill. Repeatable.")] = None,
    data: Data = None,
    out: Annotated[Path | None, Option(help="Folder for databases and checkpoints; default: a temporary one.")] = None,
    checkpoints: Checkpoints = None,
    compare: Annotated[
        bool, Option(help="Also run other strategies: the gate, do nothing, skip the step, fixed PaLM rule.")
    ] = True,
    gate: Annotated[
        bool | None, Option("--gate/--no-gate", help="Also run with the gate; default: as --compare says.")
    ] = None,
    arms: Annotated[
        bool, Option("--arms", help="Before each rollback, try waiting, a rewind, a skip and a remedy.")
    ] = False,
    json_: Annotated[bool, Option("--json", help="Print only the JSON object, without the table.")] = False,
    set_: Overrides = None,
) -> None:
    """Inject faults in a run and report the outcome of each. The last line of output is one JSON object."""
    with _errors_as_sentences():
        drills = []
        with _folder(out) as folder:
            for each in seed or [1]:
                chosen = load_recipe(recipe, _overrides(data=data, seed=each) + (set_ or []))
                place = folder / f"seed-{each}-{time.strftime('%Y%m%d-%H%M%S')}"
                place.mkdir(parents=True)
                drilled = run_drill(
                    chosen,
                    faults,
                    place,
                    checkpoints=None if checkpoints is None else f"{checkpoints.rstrip('/')}/{place.name}",
                    compare=compare,
                    gate=compare if gate is None else gate,
                    arms=arms,
                    report=partial(print, file=sys.stderr),
                )
                drills.append(drilled)
    if not json_:
        for one in drills:
            show_drill(one)
    print(json.dumps(summary(drills), allow_nan=False))
    raise typer.Exit(0 if succeeded(drills) else 1)


@app.command()
def lab(
    switch: Annotated[list[str] | None, Argument(help="Recipes to compare; default: all switches.")] = None,
    exposure: Annotated[bool, Option("--exposure", help="Exposure bias, on a Markov chain.")] = False,
    unstable: Annotated[bool, Option("--unstable", help="One safeguard at a time on an unstable recipe.")] = False,
    scaling: Annotated[bool, Option("--scaling", help="Loss against compute: five sizes, and a fitted law.")] = False,
    temperature: Annotated[bool, Option("--temperature", help="Sampling and loss at several temperatures.")] = False,
    calibration: Annotated[bool, Option("--calibration", help="Calibration with label smoothing.")] = False,
    abilities: Annotated[bool, Option("--abilities", help="Loss by kind of token and position, and copying.")] = False,
    gradients: Annotated[bool, Option("--gradients", help="Gradients of squared error and cross-entropy.")] = False,
    steps: Annotated[int | None, Option(min=1, help="Optimizer steps of each run; default: 500, or the sweep's.")] = (
        None
    ),
    seed: Annotated[int, Option(help="Seed of all runs; the first one of several.")] = 1,
    seeds: Annotated[int | None, Option(min=1, help="Number of seeds; default: 1, or the sweep's.")] = None,
    quick: Annotated[bool, Option("--quick", help="Fewer steps and seeds.")] = False,
    data: Data = None,
    json_: Annotated[bool, Option("--json", help="Print one JSON object per run instead of the table.")] = False,
    plot: Annotated[Path | None, Option(help="File for the plot of a sweep; default: lab-SWEEP.svg.")] = None,
    set_: Overrides = None,
) -> None:
    """Train the same model with each switch changed, and compare loss, grad norm and log Z; or run one sweep."""
    flags = {"exposure": exposure, "unstable": unstable, "scaling": scaling, "temperature": temperature}
    flags |= {"calibration": calibration, "abilities": abilities, "gradients": gradients}
    chosen = [name for name, is_chosen in flags.items() if is_chosen]
    overrides = _overrides(data=data) + (set_ or [])
    with _errors_as_sentences(), _folder(None) as folder:
        if chosen and (chosen[1:] or switch):
            others = ", ".join([f"--{name}" for name in chosen[1:]] + (switch or []))
            raise UsageError(f"--{chosen[0]} runs alone: leave out {others}.")
        name = chosen[0] if chosen else "switches"
        sweep = SWEEPS[name]
        if plot is not None and sweep.plot is None:
            raise UsageError(f"--plot {plot} cannot be used here: the lab has no plot of {name}.")
        file = plot or Path(f"lab-{name}.svg")
        if sweep.plot is not None:
            _check_writable(file)
        settings = Lab(
            folder=folder,
            report=partial(print, file=sys.stderr),
            seed=seed,
            num_seeds=seeds,
            steps=steps,
            quick=quick,
            overrides=overrides,
            recipes=switch or (),
        )
        results = [*sweep.run(settings)]
        if json_:
            for result in results:
                print(json.dumps(encoded(result), allow_nan=False))
        else:
            sweep.show(results, wide_console())
        if sweep.plot is not None:
            _write(file, sweep.plot(results))


def _check_writable(file: Path) -> None:
    """Before a sweep, which may take half an hour. Raises UsageError."""
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"The plot cannot be written to {file}: choose another file with --plot.")


def _write(file: Path, text: str) -> None:
    """Raises UsageError."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The plot cannot be written to {file} ({error.strerror}).") from None
    print(f"The plot is in {file}.", file=sys.stderr)


@app.command()
def explore(
    checkpoint: Annotated[
        list[Path], Argument(help="Folders of one checkpoint or several, such as .../checkpoints/step-000000500.")
    ],
    port: Annotated[int, Option(help="Port on this machine at which the page Next token asks.")] = PORT,
    prompt: Annotated[str, Option(help="The text to draw.")] = "def __init__(self",
    draw: Annotated[Path | None, Option(help="Draw the way from text to loss into this SVG file, and end.")] = None,
) -> None:
    """Answer prompts with the models of checkpoints, for the dashboard's page Next token."""
    with _errors_as_sentences():
        explored = [Explored.at(folder) for folder in checkpoint]
        if draw is not None:
            _check_writable(draw)
            followed = follow(explored[0].model, explored[0].tokenizer, prompt)
            _write(draw, draw_pipeline(followed, f"From text to loss: {explored[0].name}"))
            return
        with Explorer(explored, port) as server:
            names = ", ".join(each.name for each in explored)
            print(f"answering for {names} at http://127.0.0.1:{server.server_address[1]}; Ctrl-C ends", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever()


@app.command()
def replay(
    incident: Annotated[
        str, Argument(metavar="RUN/NUMBER", help="The incident, as shown in the dashboard and in alerts.")
    ],
    at: Annotated[
        str | None,
        Option(metavar="ONSET:DETECTED", help="Without /NUMBER: the steps of an incident that no collector knows."),
    ] = None,
    out: Annotated[Path, Option(envvar="LOSSGUARD_DIR", help="Folder with the run's spools and checkpoints.")] = OUT,
    checkpoints: Annotated[
        str | None, Option(metavar="URL", help="Where the checkpoints are now; default: where the run kept them.")
    ] = None,
    write: Annotated[bool, Option(help="Write the verdict to the incident.")] = True,
    json_: Annotated[
        bool, Option("--json", help="Print the verdict as one JSON object, including all curves.")
    ] = False,
    url: Url = None,
) -> None:
    """Find the cause of an incident: hardware, the data, the state, or the data in this state.

    Trains {the same, an earlier} checkpoint on {the same, other} batches, in a temporary folder, and checks which of
    the four reproduce the incident. If batches contribute to it, searches for them and shows their text.

    Takes about 4 times the steps from the checkpoint to the incident; the search for the batches takes as long again.

    Only for runs of one process. The token (LOSSGUARD_TOKEN) needs the scopes read and report.
    """
    with _errors_as_sentences():
        if int(os.environ.get("WORLD_SIZE") or "1") > 1:
            raise UsageError("A replay runs in one process: start it without torchrun.")
        replayed, client = find_incident(incident, at=at, url=url)
        folder = run_folder(out, replayed.run_id)
        with tempfile.TemporaryDirectory(prefix="lossguard-replay-") as downloads:
            record = read_record(
                folder,
                key=replayed.segment,
                step=replayed.detected,
                checkpoints=checkpoints,
                downloads=Path(downloads),
            )
            verdict = run_replay(replayed, record, report=partial(print, file=sys.stderr))
    body = verdict.to_dict()
    if json_:
        print(json.dumps({"incident": str(replayed)} | body, allow_nan=False))
    else:
        show_replay(replayed, verdict)
    if write and client is not None:
        try:
            write_verdict(client, replayed, body)
        except UsageError as error:
            print(f"The verdict was not written. {error}", file=sys.stderr)
            raise typer.Exit(1) from None
    raise typer.Exit(1 if verdict.cause is lossguard.Cause.UNDETERMINED else 0)


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """An error ends the command with one sentence and the exit code from the top of this file."""
    try:
        yield
    except (lossguard.CheckpointMismatch, lossguard.RanksError) as problem:
        print(f"{problem}.", file=sys.stderr)
        raise typer.Exit(1) from None
    except (UsageError, lossguard.LossguardError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.by) from None
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, or a temporary one."""
    if chosen is not None:
        yield chosen.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="lossguard-drill-") as folder:
        yield Path(folder)


def _overrides(
    *, data: str | None, steps: int | None = None, seed: int | None = None, tokenizer: str | None = None
) -> list[str]:
    """The options that stand for a field of the recipe, as overrides. Raises UsageError."""
    fields: dict[str, object] = {"data.path": data, "steps": steps, "seed": seed, "data.tokenizer": tokenizer}
    if tokenizer is not None:
        fields["model.vocab_size"] = byte_pair_size(tokenizer)
        if fields["model.vocab_size"] is None:
            raise UsageError(f"--tokenizer {tokenizer} is unknown: write bpe:N, such as bpe:4096.")
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in fields.items() if value is not None]


def _parse_skip(text: str) -> lossguard.Skip:
    match = SKIP.fullmatch(text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UsageError(f"The range {text!r} cannot be skipped: write A:B with A below B, such as 300:500.")
    return lossguard.Skip(int(match[1]), int(match[2]), "--skip")
