"""`lossguard trim`: make delivered spools smaller, or undo that."""

import argparse
import sys
from pathlib import Path
from typing import Any

from lossguard.commands.run_folders import run_folders_in
from lossguard.spooling import archive
from lossguard.spooling.archive import Keep


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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    return _restore(options.directory) if options.restore else _trim(options.directory, Keep(options.keep))


def _trim(directory: Path, keep: Keep) -> int:
    num_spools = num_before = num_after = 0
    try:
        for run in run_folders_in(directory):
            for _, before, after in archive.trim(run, keep):
                num_spools, num_before, num_after = num_spools + 1, num_before + before, num_after + after
    except OSError as problem:
        print(f"lossguard: {directory} cannot be trimmed ({problem.strerror}); nothing was lost", file=sys.stderr)
        return 1
    finally:
        print(f"{num_spools} delivered spools trimmed from {num_before:,} to {num_after:,} bytes")
    return 0


def _restore(directory: Path) -> int:
    try:
        num_spools = sum(1 for run in run_folders_in(directory) for _ in archive.restore(run))
    except OSError as problem:
        print(f"lossguard: {directory} cannot be restored ({problem.strerror}); nothing was lost", file=sys.stderr)
        return 1
    print(f"{num_spools} spools restored; sync delivers them again")
    return 0
