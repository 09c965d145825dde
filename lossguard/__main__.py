"""The command line of the SDK: `lossguard COMMAND ..`, or `python -m lossguard COMMAND ..`.

Exit code 0: done; 1: something is left, as the command has printed; 2: the arguments are invalid.
"""

import argparse
import sys

from lossguard.commands import import_runs, launch, sync, trim, watch
from lossguard.errors import ConfigurationError

COMMANDS = (launch, watch, import_runs, sync, trim)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="lossguard", description="Lossguard's SDK on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigurationError as problem:
        print(f"lossguard: {problem}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
