"""`lossguard import` and `lossguard watch`: runs that other tools have stored, or log into files now."""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TextIO

from lossguard.cli.arguments import add_pattern_option
from lossguard.cli.commands.spools import delivered
from lossguard.cli.connection import add_json_option
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.terminal import print_json, printable, printable_lines
from lossguard.run.interrupts import handling
from lossguard.run.settings import Mode, Settings
from lossguard.sources import formats
from lossguard.sources.columns import Columns
from lossguard.sources.importing import Imported, import_run
from lossguard.sources.memory import MAX_BYTES, limited
from lossguard.sources.names import NameMap
from lossguard.sources.source_run import BadSource, SourceRun, whole
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_name
from lossguard.vocabulary.wording import plural

IMPORTED, WATCHED = "imported", "watched"
"""Projects of runs whose tool has no projects, and of runs that are watched."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser("import", help="import finished runs that other tools have stored")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file, or a folder: all runs below it")
    parser.add_argument("--project", help=f"project of the runs (default: that of the tool, else {IMPORTED!r})")
    parser.add_argument("--name", help="name of the run, if there is only one")
    parser.add_argument("--run-id", help="id of the run, if there is only one (default: from its identity)")
    _add_options(parser, formats.FORMATS)
    add_json_option(parser)
    parser.set_defaults(run=import_runs)
    parser = commands.add_parser("watch", help="follow the files that a run logs into, while they grow")
    parser.add_argument("path", type=Path, metavar="PATH", help="a file or a folder; it may come later")
    parser.add_argument("--project", default=WATCHED, help=f"project of the run (default: {WATCHED!r})")
    parser.add_argument("--name", help="name of the run (default: that of the file or folder)")
    parser.add_argument("--run-id", help="id of the run (default: from machine and path)")
    parser.add_argument("--once", action="store_true", help="record what is there, and end")
    parser.add_argument("--until-idle", type=float, metavar="SECONDS", help="end when no row came for so long")
    _add_options(parser, formats.WATCHED)
    parser.set_defaults(run=watch)


def _add_options(parser: argparse.ArgumentParser, known: Collection[str]) -> None:
    """Add the options for the files, columns and names that are read, and for the place of the rows."""
    parser.add_argument("--format", help=f"read only this format: {', '.join(known)} (default: found out)")
    parser.add_argument("--step", metavar="COLUMN", help="column of the steps in a CSV or JSON lines (default: found)")
    parser.add_argument("--time", metavar="COLUMN", help="column of the times (default: found)")
    add_pattern_option(parser)
    parser.add_argument("--map", action="append", default=[], metavar="METRIC=NAME", help="as in loss=train/ce")
    parser.add_argument("--directory", type=Path, help="folder for the spools (default: LOSSGUARD_DIR)")
    parser.add_argument("--offline", action="store_true", help="deliver nothing; `lossguard sync` does it later")
    parser.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    parser.add_argument("--token", help="bearer token (default: LOSSGUARD_TOKEN)")


def _checked(options: argparse.Namespace, known: Collection[str]) -> tuple[Settings, NameMap, "formats.Layout"]:
    """The settings, names and layout of the options. Raises ConfigurationError.

    The run may be of another machine, or of the past: no hardware is sampled.
    """
    settings = Settings.read(
        mode="offline" if options.offline else None,
        url=options.url,
        token=options.token,
        directory=options.directory,
        run_id=options.run_id,
    )
    if options.project is not None and not is_name(options.project):
        raise ConfigurationError(f"--project {options.project!r:.200} must have 1 to 128 printable characters")
    formats.check(options.format, known)
    names, columns = NameMap.parse(options.map), Columns(options.step, options.time)
    if options.pattern is None:
        return replace(settings, hardware_interval=None), names, columns
    if columns != Columns() or options.format not in (None, *formats.WITH_PATTERN):
        raise ConfigurationError("--pattern reads printed lines: leave out --step, --time and any --format but log")
    from lossguard.sources.readers.printed_lines import own_pattern  # its regular expressions take a while

    return replace(settings, hardware_interval=None), names, own_pattern(options.pattern, names)


# The progress: a bar on a terminal, a line from time to time elsewhere.

BAR_SECONDS = 0.1
LINE_SECONDS = 10.0


class ProgressBar:
    """Shows one piece of work after another. Its bar on a terminal is wiped out by `say` and at the end."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._is_terminal = self._out.isatty()
        self._shown_at = time.monotonic()

    def show(self, what: str, done: float, total: float | None, unit: str) -> None:
        """`done` of `total` units of `what`; None: nobody knows how many there are."""
        now, what = time.monotonic(), printable(what)
        if now - self._shown_at < (BAR_SECONDS if self._is_terminal else LINE_SECONDS):
            return
        self._shown_at = now
        share = min(1.0, done / total) if total else None
        count = f"{done:,.0f} {unit}" if share is None else f"{share:4.0%}, {done:,.0f} of {total:,.0f} {unit}"
        if not self._is_terminal:
            print(f"{what}: {count.strip()}", file=self._out, flush=True)
            return
        columns = shutil.get_terminal_size().columns - 1
        bar = "" if share is None else "[" + ("#" * round(20 * share)).ljust(20, ".") + "] "
        print(f"\r\x1b[K{f'{bar}{what}: {count}'[:columns]}", end="", file=self._out, flush=True)

    def say(self, line: str) -> None:
        """A line that stays, or several."""
        self._wipe()
        print(printable_lines(line), file=self._out, flush=True)

    def complain(self, sentence: str) -> None:
        """A line on standard error."""
        self._wipe()
        print(f"lossguard: {printable(sentence)}", file=sys.stderr)

    def _wipe(self) -> None:
        if self._is_terminal:
            print("\r\x1b[K", end="", file=self._out, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._wipe()


# import


def import_runs(options: argparse.Namespace) -> int:
    settings, _, layout = _checked(options, formats.FORMATS)
    runs: list[dict[str, Any]] = []
    with ProgressBar(sys.stderr if options.json else None) as progress, limited(MAX_BYTES):
        found, num_failed = _find(options, layout, progress)
        if len(found) > 1 and (options.name or options.run_id):
            raise ConfigurationError(f"--name and --run-id are for one run, and {len(found)} were found")
        try:
            for stored in found:
                runs.append(_import(stored, options, settings, progress, preview=len(found) == 1))
        except KeyboardInterrupt:
            raise CommandError("stopped; the same command goes on where it was", ExitCode.INTERRUPTED) from None
        num_done = sum(each["imported"] for each in runs)
        progress.say(f"{num_done:,} of {plural(len(found) + num_failed, 'run')} imported")
    if options.json:
        print_json({"imported": num_done, "unreadable_paths": num_failed, "runs": runs})
    return 0 if num_done == len(found) and not num_failed else 1


def _find(options: argparse.Namespace, layout: "formats.Layout", progress: ProgressBar) -> tuple[list[SourceRun], int]:
    """The runs of all paths, each once, and how many paths could not be read."""
    runs: dict[tuple[str, str], list[SourceRun]] = {}
    num_failed = 0
    for path in options.paths:
        try:
            for stored in formats.runs_in(path, options.format, layout):
                runs.setdefault((stored.format, stored.identity), []).append(stored)
        except (BadSource, ConfigurationError) as problem:
            if len(options.paths) == 1 and isinstance(problem, ConfigurationError):
                raise
            num_failed += 1
            progress.complain(str(problem))
    return [whole(found) for found in runs.values()], num_failed


def _import(
    stored: SourceRun, options: argparse.Namespace, settings: Settings, progress: ProgressBar, *, preview: bool
) -> dict[str, Any]:
    """Import one run and print how that went, after a `preview` of its first rows if so asked.

    Returns its fields in `--json`; `imported`: whether all of it is recorded and, if online, delivered.
    """
    name = options.name or stored.name
    names = NameMap.parse(options.map)
    try:
        done = import_run(
            replace(stored, name=name),
            project=options.project or stored.project or IMPORTED,
            settings=replace(settings, mode=Mode.OFFLINE),
            names=names,
            run_id=options.run_id,
            progress=lambda num_rows: progress.show(name, num_rows, stored.size, "rows"),
        )
    except (BadSource, ConfigurationError) as error:
        progress.complain(str(error))
        return {"source": str(stored.place), "run": None, "new_rows": 0, "known_rows": 0, "imported": False}
    if preview and done.preview:
        progress.say(done.preview.rstrip())
    problem, end = "", f"; deliver it with: lossguard sync {done.folder}"
    if settings.mode is Mode.ONLINE:
        problem = delivered(done.folder, settings, lambda share: progress.show(f"{name}, delivery", share, 100, "%"))
        end = f", {problem or 'delivered'}"
    progress.say(f"{stored.place}: {_rows(done)}, run {done.run_id}{end}")
    missing = names.missing()
    complaints = [f"{stored.place} has no {names.overrides[each]!r}, which --map names for {each}" for each in missing]
    if options.time and done.num_known:
        complaints.insert(0, f"{stored.place}: rows that are recorded keep their times; --run-id NEW imports all anew")
    for complaint in filter(None, [done.problem, *complaints]):
        progress.complain(complaint)
    rows = {"new_rows": done.num_rows, "known_rows": done.num_known}
    is_imported = not (problem or missing or done.problem)
    return {"source": str(stored.place), "run": done.run_id, **rows, "imported": is_imported}


def _rows(done: Imported) -> str:
    if not done.num_known:
        return plural(done.num_rows, "row")
    known = f" more ({plural(done.num_known, 'was', 'were')} there)"
    return plural(done.num_rows, "row") + known if done.num_rows else "nothing new"


# watch


def watch(options: argparse.Namespace) -> int:
    from lossguard.sources.watching import LOCK_WAIT, WatchedSource  # the other commands start without it

    settings, names, layout = _checked(options, formats.WATCHED)
    if options.until_idle is not None and not options.until_idle > 0:
        raise ConfigurationError(f"--until-idle {options.until_idle} must be seconds, above 0")
    source = WatchedSource(
        path=options.path,
        settings=replace(settings, lock_wait=min(settings.lock_wait, LOCK_WAIT)),
        names=names,
        say=lambda text: print(printable_lines(text), flush=True),
        format=options.format,
        layout=layout,
        project=options.project,
        name=options.name,
        run_id=options.run_id,
        once=options.once,
        until_idle=options.until_idle,
    )
    try:
        with handling((signal.SIGINT, signal.SIGTERM), source.on_signal), limited(MAX_BYTES):
            source.run()
    except BadSource as problem:
        print(f"lossguard: {printable(str(problem))}", file=sys.stderr)
        return 1
    return 0 if source.is_delivered and not source.names.missing() else 1
