"""`lossguard watch`: follows a run that logs into files, without touching it."""

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossguard.cli.connection import add_source_options, layout_of, settings_of
from lossguard.cli.terminal import printable, printable_lines
from lossguard.run.interrupts import handling
from lossguard.sources import formats
from lossguard.sources.memory import MAX_BYTES, limited
from lossguard.sources.names import NameMap
from lossguard.sources.source_run import BadSource
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_name

PROJECT = "watched"


def add_to(commands: Any) -> None:
    known = ", ".join(formats.WATCHED)
    parser = commands.add_parser("watch", help="follow the files that a run logs into, while they grow")
    parser.add_argument("path", type=Path, metavar="PATH", help="a file or a folder; it may come later")
    parser.add_argument("--format", help=f"read only this format: {known} (default: found out)")
    parser.add_argument("--project", default=PROJECT, help=f"project of the run (default: {PROJECT!r})")
    parser.add_argument("--name", help="name of the run (default: that of the file or folder)")
    parser.add_argument("--run-id", help="id of the run (default: from machine and path)")
    parser.add_argument("--once", action="store_true", help="record what is there, and end")
    parser.add_argument("--until-idle", type=float, metavar="SECONDS", help="end when no row came for so long")
    add_source_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from lossguard.sources.watching import LOCK_WAIT, WatchedSource  # the other commands start without it

    settings = settings_of(options)
    if not is_name(options.project):
        raise ConfigurationError(f"--project {options.project!r:.200} must have 1 to 128 printable characters")
    if options.until_idle is not None and not options.until_idle > 0:
        raise ConfigurationError(f"--until-idle {options.until_idle} must be seconds, above 0")
    formats.check(options.format, formats.WATCHED)
    names = NameMap.parse(options.map)
    watch = WatchedSource(
        path=options.path,
        settings=replace(settings, lock_wait=min(settings.lock_wait, LOCK_WAIT)),
        names=names,
        say=lambda text: print(printable_lines(text), flush=True),
        format=options.format,
        layout=layout_of(options, names),
        project=options.project,
        name=options.name,
        run_id=settings.run_id,
        once=options.once,
        until_idle=options.until_idle,
    )
    try:
        with handling((signal.SIGINT, signal.SIGTERM), lambda number, frame: watch.stop.set()), limited(MAX_BYTES):
            watch.run()
    except BadSource as problem:
        print(f"lossguard: {printable(str(problem))}", file=sys.stderr)
        return 1
    return 0 if watch.is_delivered and not watch.names.missing() else 1
