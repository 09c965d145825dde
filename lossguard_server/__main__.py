"""The server of Lossguard: it takes the reports of runs, detects incidents, orders rollbacks, and shows them.

lossguard-server                        the collector on :8000 and the dashboard on :8501, until Ctrl-C
lossguard-server serve                  the collector alone
lossguard-server dashboard              the dashboard alone
lossguard-server policy show|set|unset  the policy of all runs, of a project or of a run
lossguard-server token create|list|..   tokens for reporting, reading and operating
lossguard-server lease show|end RUN     who writes a run; take it from that process
lossguard-server scorecard              what the policy would have done in auto, and what happened
lossguard-server backtest CURVE.csv     detection and policy on recorded curves, or with --run on a run
lossguard-server settings               the settings in the environment
lossguard-server report RUN             a run as one HTML or PDF file
lossguard-server db upgrade|check|..    the store: schema, export, import, backup, prune
lossguard-server replay RUN/NUMBER      the cause of an incident; needs lossguard-server[replay]
lossguard-server trainer run|drill|lab  the reference trainer; needs lossguard-server[replay]
lossguard-server collector ..           serve, policy, token, lease, scorecard, backtest and settings, too

All of it listens on this machine alone, unless the collector or the dashboard is started alone with --host.
The store is LOSSGUARD_DATABASE_URL; by default a SQLite file in LOSSGUARD_DIR, else in ~/.local/share/lossguard.
Each command has --help.
"""

from lossguard.run.interrupts import quiet_interrupts

with quiet_interrupts():
    import argparse
    import os
    import sys
    from dataclasses import dataclass
    from importlib import import_module, metadata
    from importlib.util import find_spec
    from pathlib import Path

    from lossguard_server.services import Ports, default_folder, serve, store_in

PROGRAM = "lossguard-server"


@dataclass(frozen=True, slots=True)
class Command:
    """A command that another package has."""

    module: str
    """The module of its typer application `app`; imported when it is called, for some take seconds."""
    inner: tuple[str, ...] = ()
    """The command inside that application, if it is not the whole."""
    default: tuple[str, ...] = ()
    """What it does without a command of its own."""
    needs_torch: bool = False


OF_COLLECTOR = ("serve", "policy", "token", "lease", "scorecard", "backtest", "settings")
COMMANDS = {name: Command("monitor.__main__", inner=(name,)) for name in OF_COLLECTOR} | {
    "collector": Command("monitor.__main__", default=("serve",)),
    "dashboard": Command("dashboard.__main__"),
    "report": Command("dashboard.__main__", inner=("report",)),
    "db": Command("db.cli.app"),
    "replay": Command("trainer.cli", inner=("replay",), needs_torch=True),
    "trainer": Command("trainer.cli", needs_torch=True),
}


@quiet_interrupts()
def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with the code of the command, and with 2 if an argument cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # A PYTHONPATH for training may hold packages that are called `db` or `trainer`, too: ours come first.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if not os.environ.get("LOSSGUARD_DATABASE_URL"):  # an empty variable counts as unset
        os.environ["LOSSGUARD_DATABASE_URL"] = store_in(default_folder())
    if arguments and arguments[0] in COMMANDS:
        _call(arguments[0], arguments[1:])
        return
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command in COMMANDS:
        parser.error(f"{options.command} takes its own options, after its name: {PROGRAM} {options.command} --help")
    if options.command is not None:
        parser.error(f"there is no command {options.command!r:.80}; the commands are: {', '.join(COMMANDS)}")
    ports = Ports(collector=options.collector_port, dashboard=options.dashboard_port)
    serve(default_folder(), os.environ["LOSSGUARD_DATABASE_URL"], ports, program=PROGRAM, command=PROGRAM)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=raw)
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those above")
    parser.add_argument("--collector-port", type=_port, default=Ports().collector, metavar="PORT")
    parser.add_argument("--dashboard-port", type=_port, default=Ports().dashboard, metavar="PORT")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {metadata.version('lossguard')}")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; choose a number from 1 to 65535")
    return int(text)


def _call(name: str, arguments: list[str]) -> None:
    command = COMMANDS[name]
    if command.needs_torch and find_spec("torch") is None:
        print(
            f"{PROGRAM}: {name} needs PyTorch, which is not installed here; "
            f"install it with: pipx install --force '{PROGRAM}[replay]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    if command.default and (not arguments or arguments[0].startswith("-")) and arguments != ["--help"]:
        arguments = [*command.default, *arguments]
    program = PROGRAM if command.inner else f"{PROGRAM} {name}"
    import_module(command.module).app([*command.inner, *arguments], prog_name=program)


if __name__ == "__main__":
    main()
