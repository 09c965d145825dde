"""The command line of the SDK: `lossguard COMMAND ..`, or `python -m lossguard COMMAND ..`.

The exit codes are those of `lossguard.cli.errors.ExitCode`; 0: done, 1: something is left, as the command has
printed; 2: the arguments are invalid.
"""

from lossguard.run.interrupts import INTERRUPTED, quiet_interrupts

with quiet_interrupts():
    import argparse
    import os
    import sys

    from lossguard.cli.arguments import MODULE_OF, parser_of
    from lossguard.cli.errors import ERRORS, ExitCode, fail


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    asked = [name for name in arguments[:1] if name in MODULE_OF]
    if not arguments:
        parser_of(MODULE_OF).print_help(sys.stderr)
        return ExitCode.INVALID
    # of the others nothing is imported: a launched command waits for it
    options = parser_of(asked or MODULE_OF, as_json=_wants_json(arguments)).parse_args(arguments)
    try:
        return _answer(options)
    except ERRORS as problem:
        return fail(problem, as_json=getattr(options, "json", False))


def _answer(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return ExitCode.DONE
    return code


def _wants_json(arguments: list[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


if __name__ == "__main__":
    sys.exit(main())
