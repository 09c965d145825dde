"""`lossguard export`: a run as a file."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from lossguard.cli.connection import add_options, connected
from lossguard.cli.errors import CommandError
from lossguard.cli.named_run import add_run, find
from lossguard.cli.terminal import Terminal, print_json
from lossguard.client.client import Client
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.wording import count

FORMATS = ("parquet", "csv")


def add_to(commands: Any) -> None:
    parser = commands.add_parser("export", help="download a run as a file")
    add_run(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="where to; - is standard output")
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of FILE; parquet without one")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    kind = options.format or Path(options.output).suffix[1:] or FORMATS[0]
    if kind not in FORMATS:
        raise ConfigurationError(f"{options.output}: the file name must end in .parquet or .csv, or give --format")
    to_stdout = options.output == "-"
    if to_stdout and options.json:
        raise ConfigurationError("--json would be mixed with the file: give another FILE than -")
    with connected(options) as client:
        run_id = find(client, options.which_run)["id"]
        path = f"/runs/{run_id}/export?format={kind}"
        if to_stdout:
            client.download(path, sys.stdout.buffer)
            return 0
        num_bytes = _downloaded(client, path, Path(options.output))
    if options.json:
        print_json({"run": run_id, "file": options.output, "format": kind, "bytes": num_bytes})
    else:
        Terminal().say(f"{options.output}: {count(num_bytes)} bytes")
    return 0


def _downloaded(client: Client, path: str, target: Path) -> int:
    """The bytes that were written; a regular file is there only once all of it has come."""
    try:
        if target.exists() and not target.is_file():  # a pipe or a device, which a file must not replace
            with target.open("wb") as file:
                return client.download(path, file)
        part = target.with_name(f"{target.name}.{os.getpid()}.part")
        with part.open("xb") as file:
            try:
                num_bytes = client.download(path, file)
                file.close()  # what is left in its buffer may not fit the disk
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return num_bytes
    except OSError as problem:
        raise CommandError(f"{target} cannot be written: {problem.strerror or problem}") from None
