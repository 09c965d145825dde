"""python -m lossguard sync DIR [--url URL] [--token TOKEN]: deliver what was spooled.

Exit code 0: everything is delivered; 1: the collector did not take it all; 2: the arguments are wrong.
"""

import argparse
import sys
from pathlib import Path

from lossguard.delivery.client import Client
from lossguard.delivery.sender import Sender
from lossguard.errors import ConfigurationError
from lossguard.log_once import LogOnce
from lossguard.settings import Settings

PATIENCE = 5
"""Failures in a row after which `sync` gives a run up."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lossguard", description="Lossguard's SDK on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="deliver the spools below a directory")
    sync.add_argument("directory", type=Path, help="LOSSGUARD_DIR, or the folder of one project or run")
    sync.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    sync.add_argument("--token", help="bearer token (default: LOSSGUARD_TOKEN)")
    options = parser.parse_args(arguments)
    try:
        return _sync(options.directory, Settings.read(mode="online", url=options.url, token=options.token))
    except ConfigurationError as problem:
        print(f"lossguard: {problem}", file=sys.stderr)
        return 2


def _sync(directory: Path, settings: Settings) -> int:
    runs = sorted({path.parent for path in directory.rglob("*.spool")})
    if not runs:
        raise ConfigurationError(f"{directory} holds no spools")
    undelivered = [run for run in runs if not _deliver(run, settings)]
    print(f"{len(runs) - len(undelivered)} of {len(runs)} runs delivered")
    return 1 if undelivered else 0


def _deliver(run: Path, settings: Settings) -> bool:
    assert settings.url is not None
    sender = Sender(run, None, Client(settings.url, settings.token), lambda orders: None, LogOnce())
    sender.start()
    while sender.is_alive() and sender.failures < PATIENCE:
        sender.join(0.1)
    sender.close(0.0 if sender.is_alive() else 1.0)
    print(f"{run}: {'delivered' if sender.delivered else sender.problem}")
    return sender.delivered


if __name__ == "__main__":
    sys.exit(main())
