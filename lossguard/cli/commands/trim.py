"""`lossguard trim`: make delivered spools smaller, or undo that."""

import argparse
from pathlib import Path
from typing import Any

from lossguard.cli.connection import add_json_option
from lossguard.cli.errors import CommandError
from lossguard.cli.named_run import run_folders_in
from lossguard.cli.terminal import print_json
from lossguard.spool import archive
from lossguard.spool.archive import Keep
from lossguard.vocabulary.wording import form, plural


def add_to(commands: Any) -> None:
    parser = commands.add_parser("trim", help="make the delivered spools in a directory and its subdirectories smaller")
    parser.add_argument("directory", type=Path, help="LOSSGUARD_DIR, or the folder of a project or a run")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--keep",
        choices=[Keep.COMPRESSED.value, Keep.UNDELIVERED.value],
        default=Keep.COMPRESSED.value,
        help="compressed (default): every line, with gzip; undelivered: no delivered step, only what a resume needs",
    )
    what.add_argument("--restore", action="store_true", help="undo the compression")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.restore:
        return _restore(options.directory, as_json=options.json)
    return _trim(options.directory, Keep(options.keep), as_json=options.json)


def _trim(directory: Path, keep: Keep, *, as_json: bool) -> int:
    num_spools = num_before = num_after = 0
    try:
        for run in run_folders_in(directory):
            for _, before, after in archive.trim(run, keep):
                num_spools, num_before, num_after = num_spools + 1, num_before + before, num_after + after
    except OSError as problem:
        raise CommandError(f"{directory} cannot be trimmed ({problem.strerror}); nothing was lost") from None
    finally:
        if as_json:
            print_json({"spools": num_spools, "bytes_before": num_before, "bytes_after": num_after})
        else:
            print(f"{plural(num_spools, 'delivered spool')} trimmed from {num_before:,} to {num_after:,} bytes")
    return 0


def _restore(directory: Path, *, as_json: bool) -> int:
    try:
        num_spools = sum(1 for run in run_folders_in(directory) for _ in archive.restore(run))
    except OSError as problem:
        raise CommandError(f"{directory} cannot be restored ({problem.strerror}); nothing was lost") from None
    if as_json:
        print_json({"restored": num_spools})
    else:
        print(f"{plural(num_spools, 'spool')} restored; sync delivers {form(num_spools, 'it', 'them')} again")
    return 0
