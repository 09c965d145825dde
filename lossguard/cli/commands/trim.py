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
    try:
        (_restore if options.restore else _trim)(options)
    except OSError as problem:
        done = "restored" if options.restore else "trimmed"
        raise CommandError(f"{options.directory} cannot be {done} ({problem.strerror}); nothing was lost") from None
    return 0


def _trim(options: argparse.Namespace) -> None:
    num_spools = num_before = num_after = 0
    try:
        for folder in run_folders_in(options.directory):
            for _, before, after in archive.trim(folder, Keep(options.keep)):
                num_spools, num_before, num_after = num_spools + 1, num_before + before, num_after + after
    finally:
        if options.json:
            print_json({"spools": num_spools, "bytes_before": num_before, "bytes_after": num_after})
        else:
            print(f"{plural(num_spools, 'delivered spool')} trimmed from {num_before:,} to {num_after:,} bytes")


def _restore(options: argparse.Namespace) -> None:
    num_spools = sum(1 for folder in run_folders_in(options.directory) for _ in archive.restore(folder))
    if options.json:
        print_json({"restored": num_spools})
    else:
        print(f"{plural(num_spools, 'spool')} restored; sync delivers {form(num_spools, 'it', 'them')} again")
