"""The command line of the SDK: `lossguard COMMAND ..`, or `python -m lossguard COMMAND ..`.

Exit code 0: done; 1: something is left, as the command has printed; 2: the arguments are invalid.
"""

import argparse
import sys
from importlib import import_module

from lossguard.errors import ConfigurationError

MODULE_OF = {
    "launch": "launch",
    "watch": "watch",
    "import": "import_runs",
    "sync": "sync",
    "trim": "trim",
    "approve": "approve",
    "reject": "reject",
}
"""The commands, each with its module in `lossguard.commands`."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = [name for name in arguments[:1] if name in MODULE_OF]
    parser = argparse.ArgumentParser(prog="lossguard", description="Lossguard's SDK on the command line.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in asked or MODULE_OF:  # of the others nothing is imported: a launched command waits for it
        import_module(f"lossguard.commands.{MODULE_OF[name]}").add_to(commands)
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigurationError as problem:
        print(f"lossguard: {problem}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
