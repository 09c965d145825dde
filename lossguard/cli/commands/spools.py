"""`lossguard sync` and `lossguard trim`: deliver spools that were not delivered, and make delivered ones smaller."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lossguard.cli.commands.launch import LAUNCHES
from lossguard.cli.connection import add_json_option, add_options, settings_of
from lossguard.cli.errors import CommandError
from lossguard.cli.terminal import print_json, printable
from lossguard.client.client import Client
from lossguard.delivery.sender import Sender
from lossguard.launch.journal_reader import JournalReader
from lossguard.launch.recorder import JOURNAL
from lossguard.run.settings import Settings
from lossguard.spool import archive
from lossguard.spool.archive import Keep
from lossguard.spool.folders import lock_folder, paths_below
from lossguard.spool.spool import session_of, spools_in
from lossguard.spool.spool_reader import acknowledged, is_delivered
from lossguard.spool.writer import DELIVERS, known_writer
from lossguard.vocabulary.errors import ConfigurationError, LogOnce
from lossguard.vocabulary.wording import form, plural

DIRECTORY = "LOSSGUARD_DIR, or the folder of a project or a run"
NO_SPOOLS = "there are no spools in {}"
MAX_FAILURES = 5
"""Failed attempts in a row after which `sync` stops trying to deliver a run."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser("sync", help="deliver the spools in a directory and its subdirectories")
    parser.add_argument("directory", type=Path, help=DIRECTORY)
    parser.add_argument(
        "--again", action="store_true", help="deliver everything once more: to another collector, or to a restored one"
    )
    add_options(parser, "report")
    parser.set_defaults(run=sync)
    parser = commands.add_parser("trim", help="make the delivered spools in a directory and its subdirectories smaller")
    parser.add_argument("directory", type=Path, help=DIRECTORY)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--keep",
        choices=[Keep.COMPRESSED.value, Keep.UNDELIVERED.value],
        default=Keep.COMPRESSED.value,
        help="compressed (default): every line, with gzip; undelivered: no delivered step, only what a resume needs",
    )
    what.add_argument("--restore", action="store_true", help="undo the compression")
    add_json_option(parser)
    parser.set_defaults(run=trim)


def _runs_in(directory: Path) -> list[Path]:
    """The folders with spools or with what was made of them."""
    return sorted({path.parent for pattern in ("*.spool", "*.control") for path in paths_below(directory, pattern)})


# sync


def sync(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    directory, runs = options.directory, _runs_in(options.directory)
    unrecorded = _unrecorded(directory, runs)
    if not runs and not unrecorded:
        raise ConfigurationError(NO_SPOOLS.format(directory))
    if options.again:
        try:
            for each in runs:
                archive.deliver_again(each)
        except OSError as problem:
            raise CommandError(f"{directory} cannot be written ({problem.strerror}); nothing was lost") from None
    problems = {each: _deliver(each, settings, quiet=options.json) for each in runs}
    num_delivered = sum(not problem for problem in problems.values())
    problems |= unrecorded
    if options.json:
        shown = [{"folder": str(run), "delivered": not left, "left": left or None} for run, left in problems.items()]
        print_json({"delivered": num_delivered, "runs": shown})
    else:
        for each, remedy in unrecorded.items():
            print(printable(f"{each}: {remedy}"))
        print(f"{num_delivered:,} of {plural(len(runs), 'run')} delivered completely")
    return 0 if num_delivered == len(problems) else 1


def _unrecorded(directory: Path, runs: list[Path]) -> dict[Path, str]:
    """The folders of launches whose launcher was killed before it recorded all steps, and how to record them."""
    found = {path.parent.resolve() for path in paths_below(directory, f"*{JOURNAL}")}
    found |= {run.resolve().parent.parent / LAUNCHES / run.resolve().name for run in runs}
    left = sorted(each for each in found if each.parent.name == LAUNCHES and _has_unrecorded_steps(each))
    command = (
        "a killed launcher left steps that are not recorded: start it again with "
        "LOSSGUARD_DIR={} lossguard launch --run-id {} [the same options] -- COMMAND"
    )
    return {each: command.format(each.parent.parent, each.name) for each in left}


def _has_unrecorded_steps(launch: Path) -> bool:
    """Return True if a journal in the folder of a launch has steps that no launcher has recorded or will record."""
    journals = [JournalReader(path) for path in launch.glob(f"*{JOURNAL}")]
    try:
        has_steps = any(each.has("values") and not each.has("script_reports") for each in journals)
        if has_steps:
            with suppress(OSError):  # a folder that cannot be written
                lock = lock_folder(launch, wait=0.0, remedy="")
                has_steps = lock.is_new  # else the file system has no locks, and its launcher may run
                lock.release()
    except ConfigurationError:  # its launcher runs
        return False
    finally:
        for each in journals:
            each.close(is_done=False)
    return has_steps


def _deliver(run: Path, settings: Settings, *, quiet: bool) -> str:
    """Deliver the spools of a run, and print how that went unless `quiet`: empty, or in words what is not delivered."""
    was_delivered = all(map(is_delivered, spools_in(run)))
    problem = delivered(run, settings)
    if not quiet:
        again = " (once more with --again)" if any(run.glob("*.spool*")) else ""  # else its steps were trimmed
        success = f"delivered before{again}" if was_delivered else "delivered"
        print(printable(f"{run}: {problem or success}"))
    return problem


def delivered(run: Path, settings: Settings, progress: Callable[[float], None] = lambda percent: None) -> str:
    """Deliver the spools of a run: empty, or in words what is not delivered. `progress` gets percent of the bytes."""
    assert settings.url is not None
    newest = max((session_of(path)[0] for path in spools_in(run)), default="")
    writer = known_writer(run, newest)
    if writer is not None:
        writer = replace(writer, process=DELIVERS + writer.process)
    sender = Sender(run, Client(settings.url, settings.token), LogOnce(quiet=True), writer)
    sender.start()
    while sender.is_alive() and sender.num_failures < MAX_FAILURES:
        sender.join(0.1)
        sizes = [(acknowledged(path), path.stat().st_size) for path in spools_in(run)]
        progress(100.0 * sum(done for done, _ in sizes) / max(1, sum(size for _, size in sizes)))
    sender.close(0.0 if sender.is_alive() else 1.0)
    left = " and ".join(filter(None, [sender.set_aside.describe(), *sender.incomplete]))
    if not sender.delivered:
        return sender.problem
    return f"delivered, except {left}" if left else ""


# trim


def trim(options: argparse.Namespace) -> int:
    try:
        runs = _runs_in(options.directory)
        if not runs:
            raise ConfigurationError(NO_SPOOLS.format(options.directory))
        (_restore if options.restore else _trim)(options, runs)
    except BrokenPipeError:  # of the output: the work is done
        raise
    except OSError as problem:
        done = "restored" if options.restore else "trimmed"
        raise CommandError(f"{options.directory} cannot be {done} ({problem.strerror}); nothing was lost") from None
    return 0


def _trim(options: argparse.Namespace, runs: list[Path]) -> None:
    num_spools = num_before = num_after = 0
    try:
        for folder in runs:
            for _, before, after in archive.trim(folder, Keep(options.keep)):
                num_spools, num_before, num_after = num_spools + 1, num_before + before, num_after + after
    finally:
        if options.json:
            print_json({"spools": num_spools, "bytes_before": num_before, "bytes_after": num_after})
        else:
            print(f"{plural(num_spools, 'delivered spool')} trimmed from {num_before:,} to {num_after:,} bytes")


def _restore(options: argparse.Namespace, runs: list[Path]) -> None:
    num_spools = sum(1 for folder in runs for _ in archive.restore(folder))
    if options.json:
        print_json({"restored": num_spools})
    else:
        print(f"{plural(num_spools, 'spool')} restored; sync delivers {form(num_spools, 'it', 'them')} again")
