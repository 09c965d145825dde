"""python -m lossguard sync DIR [--url URL] [--token TOKEN]: deliver spools that were not delivered.
python -m lossguard trim DIR [--keep compressed|undelivered | --restore]: make delivered spools smaller.

Exit code 0: everything is delivered; 1: something is not, be it that the collector does not answer or rejects it, or
that it is damaged; 2: the arguments are invalid.
"""

import argparse
import sys
from pathlib import Path

from lossguard.delivery.client import Client
from lossguard.delivery.sender import Sender
from lossguard.errors import ConfigurationError
from lossguard.log_once import LogOnce
from lossguard.settings import Settings
from lossguard.spooling import archive
from lossguard.spooling.archive import Keep
from lossguard.spooling.identity import known_writer
from lossguard.spooling.spool import session_of, spools_in

MAX_FAILURES = 5
"""Failed attempts in a row after which `sync` stops trying to deliver a run."""


def main(arguments: list[str] | None = None, *, max_failures: int = MAX_FAILURES) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lossguard", description="Lossguard's SDK on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="deliver the spools in a directory and its subdirectories")
    sync.add_argument("directory", type=Path, help="LOSSGUARD_DIR, or the folder of a project or a run")
    sync.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    sync.add_argument("--token", help="bearer token (default: LOSSGUARD_TOKEN)")
    trim = commands.add_parser("trim", help="make the delivered spools in a directory and its subdirectories smaller")
    trim.add_argument("directory", type=Path, help="LOSSGUARD_DIR, or the folder of a project or a run")
    what = trim.add_mutually_exclusive_group()
    what.add_argument(
        "--keep",
        choices=[Keep.COMPRESSED.value, Keep.UNDELIVERED.value],
        default=Keep.COMPRESSED.value,
        help="compressed (default): every line, with gzip; undelivered: no delivered step, only what a resume needs",
    )
    what.add_argument("--restore", action="store_true", help="undo the compression")
    options = parser.parse_args(arguments)
    try:
        if options.command == "trim":
            return _restore(options.directory) if options.restore else _trim(options.directory, Keep(options.keep))
        settings = Settings.read(mode="online", url=options.url, token=options.token)
        return _sync(options.directory, settings, max_failures)
    except ConfigurationError as problem:
        print(f"lossguard: {problem}", file=sys.stderr)
        return 2


def _sync(directory: Path, settings: Settings, max_failures: int) -> int:
    runs = _runs_in(directory)
    num_delivered = sum(_deliver(run, settings, max_failures) for run in runs)
    print(f"{num_delivered} of {len(runs)} runs delivered completely")
    return 0 if num_delivered == len(runs) else 1


def _deliver(run: Path, settings: Settings, max_failures: int) -> bool:
    """Deliver the spools of a run and print how that went. Returns whether everything is delivered."""
    assert settings.url is not None
    newest = max((session_of(path)[0] for path in spools_in(run)), default="")
    client = Client(settings.url, settings.token)
    sender = Sender(run, None, client, lambda orders, until: None, LogOnce(quiet=True), known_writer(run, newest))
    sender.start()
    while sender.is_alive() and sender.num_failures < max_failures:
        sender.join(0.1)
    sender.close(0.0 if sender.is_alive() else 1.0)
    left = " and ".join(filter(None, [sender.set_aside.describe(), *sender.incomplete]))
    if not sender.delivered:
        print(f"{run}: {sender.problem}")
    elif left:
        print(f"{run}: delivered, except {left}")
    else:
        print(f"{run}: delivered")
    return sender.delivered and not left


def _runs_in(directory: Path) -> list[Path]:
    """The folders with spools or with what was made of them."""
    runs = {path.parent for pattern in ("*.spool", "*.control") for path in directory.rglob(pattern)}
    if not runs:
        raise ConfigurationError(f"there are no spools in {directory}")
    return sorted(runs)


def _trim(directory: Path, keep: Keep) -> int:
    num_spools = num_before = num_after = 0
    try:
        for run in _runs_in(directory):
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
        num_spools = sum(1 for run in _runs_in(directory) for _ in archive.restore(run))
    except OSError as problem:
        print(f"lossguard: {directory} cannot be restored ({problem.strerror}); nothing was lost", file=sys.stderr)
        return 1
    print(f"{num_spools} spools restored; sync delivers them again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
