"""The options of the commands that read what other tools have logged: `lossguard watch` and `lossguard import`."""

import argparse
from dataclasses import replace
from pathlib import Path

from lossguard.settings import Settings


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Which columns and names are read, and where the rows go."""
    parser.add_argument("--step", metavar="COLUMN", help="column of the steps in a CSV or JSON lines (default: found)")
    parser.add_argument("--time", metavar="COLUMN", help="column of the times (default: found)")
    parser.add_argument("--map", action="append", default=[], metavar="METRIC=NAME", help="as in loss=train/ce")
    parser.add_argument("--directory", type=Path, help="folder for the spools (default: LOSSGUARD_DIR)")
    parser.add_argument("--offline", action="store_true", help="deliver nothing; `lossguard sync` does it later")
    parser.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    parser.add_argument("--token", help="bearer token (default: LOSSGUARD_TOKEN)")


def settings_of(options: argparse.Namespace) -> Settings:
    """What the options and the environment say. Raises ConfigurationError.

    The run may be of another machine, or of the past: no hardware is sampled.
    """
    settings = Settings.read(
        mode="offline" if options.offline else None,
        url=options.url,
        token=options.token,
        directory=options.directory,
        run_id=options.run_id,
    )
    return replace(settings, hardware_interval=None)
