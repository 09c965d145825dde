"""`lossguard import`: finished runs that other tools have stored."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossguard.cli.commands.sync import delivered
from lossguard.cli.connection import add_json_option, add_source_options, layout_of, settings_of
from lossguard.cli.errors import CommandError, ExitCode
from lossguard.cli.progress import ProgressBar
from lossguard.cli.terminal import print_json, printable
from lossguard.run.settings import Mode, Settings
from lossguard.sources import formats
from lossguard.sources.importing import Imported, import_run
from lossguard.sources.memory import MAX_BYTES, limited
from lossguard.sources.names import NameMap
from lossguard.sources.source_run import BadSource, SourceRun
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_name
from lossguard.vocabulary.wording import plural

PROJECT = "imported"
"""Project of runs whose tool has no projects."""


def add_to(commands: Any) -> None:
    known = ", ".join(formats.FORMATS)
    parser = commands.add_parser("import", help="import finished runs that other tools have stored")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a file, or a folder: all runs below it")
    parser.add_argument("--format", help=f"read only this format: {known} (default: found out)")
    parser.add_argument("--project", help=f"project of the runs (default: that of the tool, else {PROJECT!r})")
    parser.add_argument("--name", help="name of the run, if there is only one")
    parser.add_argument("--run-id", help="id of the run, if there is only one (default: from its identity)")
    add_source_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if options.project is not None and not is_name(options.project):
        raise ConfigurationError(f"--project {options.project!r:.200} must have 1 to 128 printable characters")
    formats.check(options.format)
    layout = layout_of(options, NameMap.parse(options.map))
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
    runs: dict[str, SourceRun] = {}
    num_failed = 0
    for path in options.paths:
        try:
            runs |= {stored.run_id: stored for stored in formats.runs_in(path, options.format, layout)}
        except (BadSource, ConfigurationError) as problem:
            if len(options.paths) == 1 and isinstance(problem, ConfigurationError):
                raise
            num_failed += 1
            _complain(str(problem), progress)
    return list(runs.values()), num_failed


def _import(
    stored: SourceRun, options: argparse.Namespace, settings: Settings, progress: ProgressBar, *, preview: bool
) -> dict[str, Any]:
    """Import one run and print how that went, after a `preview` of its first rows if so asked.

    Returns its fields in `--json`; `imported`: whether all of it is recorded and, if online, delivered.
    """
    project = options.project or stored.project or PROJECT
    name = options.name or stored.name
    names = NameMap.parse(options.map)
    try:
        done = import_run(
            replace(stored, name=name),
            project=project,
            settings=replace(settings, mode=Mode.OFFLINE),
            names=names,
            run_id=options.run_id,
            progress=lambda num_rows: progress.show(name, num_rows, stored.size, "rows"),
        )
    except (BadSource, ConfigurationError) as error:
        _complain(str(error), progress)
        return {"source": str(stored.place), "run": None, "new_rows": 0, "known_rows": 0, "imported": False}
    if preview and done.preview:
        progress.say(done.preview.rstrip())
    problem = ""
    if settings.mode is Mode.ONLINE:
        problem = delivered(done.folder, settings, lambda share: progress.show(f"{name}, delivery", share, 100, "%"))
    progress.say(_sentence(stored, done, names, problem, online=settings.mode is Mode.ONLINE))
    if done.problem:
        _complain(done.problem, progress)
    if options.time and done.num_known:
        _complain(f"{stored.place}: rows that are recorded keep their times; --run-id NEW imports all anew", progress)
    missing = names.missing()
    for metric in missing:
        _complain(f"{stored.place} has no {names.overrides[metric]!r}, which --map names for {metric}", progress)
    rows = {"new_rows": done.num_rows, "known_rows": done.num_known}
    is_imported = not (problem or missing or done.problem)
    return {"source": str(stored.place), "run": done.run_id, **rows, "imported": is_imported}


def _sentence(stored: SourceRun, done: Imported, names: NameMap, problem: str, *, online: bool) -> str:
    more = f" more ({plural(done.num_known, 'was', 'were')} there)" if done.num_known else ""
    rows = plural(done.num_rows, "row") + more
    what = f"{stored.place}: {rows if done.num_rows or not done.num_known else 'nothing new'}, run {done.run_id}"
    if online:
        return f"{what}, {problem or 'delivered'}"
    return f"{what}; deliver it with: lossguard sync {done.folder}"


def _complain(sentence: str, progress: ProgressBar) -> None:
    progress.wipe()
    print(f"lossguard: {printable(sentence)}", file=sys.stderr)
