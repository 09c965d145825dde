"""The commands `archive` and `unarchive`.

What is archived is printed run by run, or with --json as one object at the end. A place or a file that fails ends the
command with one sentence and exit code 2: nothing is lost, and the next call goes on.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Session

from db import queries
from db.archive import archiving, inventory, unarchiving
from db.archive.archiving import Written
from db.cli.command_engine import Url, error, opened
from db.steps.archived import files, places
from db.steps.codec import DamagedBlock
from db.store.engine import DEFAULT_URL, reading
from lossguard.vocabulary.wording import form, plural

WHO = "python -m db archive"
WOULD_ARCHIVE = "would archive"
NOTHING = "there are no steps to archive"
Json = Annotated[bool, typer.Option("--json", help="print one JSON object")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]


@dataclass(slots=True)
class RunResult:
    run: str
    outcome: str
    """archived | would archive | brought back | would bring back | skipped"""
    steps: int = 0
    files: int = 0
    bytes: int = 0
    reason: str | None = None
    """Reason for which it was skipped."""

    def add(self, written: Written) -> None:
        self.steps += written.num_steps
        self.files += 1
        self.bytes += written.num_bytes

    def line(self) -> str:
        if self.reason is not None:
            return f"skipped {self.run}: {self.reason}"
        size = f" in {plural(self.files, 'file')}, {self.bytes / 1e6:,.1f} MB"
        at_most = "up to " if self.outcome == WOULD_ARCHIVE else ""
        return f"{self.outcome} {self.run}: {at_most}{plural(self.steps, 'step')}{size if self.files else ''}"


@dataclass(slots=True)
class Report:
    runs: list[RunResult] = field(default_factory=list)
    removed_files: int = 0
    """Files that nothing needed any more."""
    left_files: int = 0
    """Number of such files that could not be removed; the next call tries again."""
    problems: list[str] = field(default_factory=list)
    """Reasons why steps of a run stay where they are, although they were to be moved: a sentence each."""
    error: str | None = None
    """Reason why the command ended early."""

    def note_removal(self, removed: inventory.Removed) -> None:
        self.removed_files += removed.num_files
        self.left_files = removed.num_left
        self.error = self.error or next(iter(removed.problems), None)


def archive(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="a folder, or s3://bucket/folder and its like")],
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="only these runs")] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="runs that ended so long ago: 30d, 12h")
    ] = None,
    url: Url = DEFAULT_URL,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Move the steps of ended runs to Parquet files outside the store.

    Lists, charts and exports work as before; full resolution is read from the files. Each file is read back and
    compared before its steps are deleted.
    """
    if not runs and older_than is None:
        raise error("say which runs: --older-than 30d, or their ids")
    try:
        ended_before = None if older_than is None else time.time() - inventory.age_seconds(older_than)
        place = places.Place(to)
    except (ValueError, places.PlaceError) as wrong:
        raise error(str(wrong)) from None
    report = Report()
    with opened(url) as engine:
        _archive(engine, report, place, runs or [], ended_before, dry_run)
    _print(report, as_json, NOTHING)


def unarchive(
    runs: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="the ids of the runs")] = None,
    every: Annotated[bool, typer.Option("--all", help="all runs with archived steps")] = False,
    url: Url = DEFAULT_URL,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring archived steps back into the store, and remove their files."""
    if bool(runs) == every:
        raise error("say which runs: their ids, or --all")
    report = Report()
    with opened(url) as engine:
        _unarchive(engine, report, runs or [], dry_run)
    _print(report, as_json, "no steps are archived")


def check(engine: sa.Engine, *, verify: bool) -> bool:
    """Print what is archived: whether all is well. `verify`: read every file, and print what is wrong."""
    with reading(engine) as session:
        summary = inventory.summary(session)
        waiting = len(files.left_over(session, unfinished=False))
    if summary is not None:
        typer.echo(summary)
    if waiting:
        unneeded = f"{plural(waiting, 'file')} that nothing needs any more"
        typer.echo(f"{unneeded} {form(waiting, 'waits', 'wait')} to be removed by `archive` or `prune`")
    found = inventory.problems(engine) if verify else []
    for problem in found:
        typer.echo(f"db: {problem}", err=True)
    return not found


def remove_files(engine: sa.Engine) -> None:
    """Remove the files of runs that were deleted. Exits with one sentence when some of them have to wait."""
    removed = inventory.remove_left_over(engine)
    if removed.problems:
        left = f"{plural(removed.num_left, 'file')} of deleted runs {form(removed.num_left, 'is', 'are')} left"
        raise error(f"{left} for the next call: {removed.problems[0]}")


def _archive(
    engine: sa.Engine,
    report: Report,
    place: places.Place,
    run_ids: Sequence[str],
    ended_before: float | None,
    dry_run: bool,
) -> None:
    with reading(engine) as session:
        _check_ids(session, run_ids)
        found = inventory.candidates(session, ended_before=ended_before, run_ids=run_ids)
    if dry_run:
        report.runs += [RunResult(run, WOULD_ARCHIVE, steps=steps) for run, steps in found.items()]
        return
    with _ending_with(report):
        archiving.prepare(engine, place)
        with archiving.turn_taken(engine) as ours, _progress(sum(found.values()), "archiving") as advance:
            report.note_removal(inventory.remove_left_over(engine, unfinished=True))
            for run, steps in found.items():
                result = RunResult(run, "archived")
                with _recorded(report, result, advance) as note:
                    archiving.archive_run(
                        engine, run_id=run, place=place, turn=ours, now=time.time(), who=WHO, on_file=note
                    )
                advance(steps - result.steps)  # the steps that stay


def _unarchive(engine: sa.Engine, report: Report, run_ids: Sequence[str], dry_run: bool) -> None:
    with reading(engine) as session:
        _check_ids(session, run_ids)
        archived = {run: steps for run, steps in files.steps_by_run(session) if not run_ids or run in run_ids}
    if dry_run:
        report.runs += [RunResult(run, "would bring back", steps=steps) for run, steps in archived.items()]
        return
    total = sum(archived.values())
    with _ending_with(report), archiving.turn_taken(engine) as ours, _progress(total, "bringing back") as advance:
        for run in archived:
            with _recorded(report, RunResult(run, "brought back"), advance) as note:
                unarchiving.unarchive_run(
                    engine, run_id=run, turn=ours, now=time.time(), who="python -m db unarchive", on_file=note
                )
        report.note_removal(inventory.remove_left_over(engine, unfinished=True))


@contextmanager
def _recorded(
    report: Report, result: RunResult, advance: Callable[[int], object]
) -> Iterator[Callable[[Written], object]]:
    """Take down what is moved of a run, and why the rest is not: the other runs may be whole."""

    def note(written: Written) -> None:
        result.add(written)
        advance(written.num_steps)

    try:
        yield note
    except archiving.RunChanged as changed:
        result.reason = str(changed)
    except (DamagedBlock, unarchiving.CannotBringBack) as damaged:
        report.problems.append(str(damaged))
    finally:
        if result.files or result.reason:
            report.runs.append(result)


def _check_ids(session: Session, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        if queries.run_named(session, run_id=run_id) is None:
            raise error(f"there is no run {run_id!r}")


@contextmanager
def _ending_with(report: Report) -> Iterator[None]:
    """Let what ends the block early become the error of the report, so that what was done is printed too."""
    try:
        yield
    except (archiving.Busy, places.PlaceError) as failed:
        report.error = str(failed)


@contextmanager
def _progress(num_steps: int, label: str) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, which moves with every file; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda num_steps: None
        return
    with typer.progressbar(length=num_steps, label=label, file=sys.stderr) as bar:
        yield bar.update


def _print(report: Report, as_json: bool, nothing: str) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        for line in _lines(report) or ([] if report.error or report.problems else [nothing]):
            typer.echo(line)
    sentences = [*report.problems, *([] if report.error is None else [report.error])]
    if failures := [error(sentence) for sentence in sentences]:
        raise failures[0]


def _lines(report: Report) -> list[str]:
    lines = [result.line() for result in report.runs]
    if report.removed_files:
        lines.append(f"removed {plural(report.removed_files, 'file')} that nothing needed any more")
    if report.left_files:
        left = plural(report.left_files, "file is", "files are")
        lines.append(f"{left} to be removed and could not be; the next call tries again")
    return lines
