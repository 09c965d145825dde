"""`lossguard launch -- COMMAND ..`: run a training command, unchanged, and record what its tracker is given.

Without calls of a tracker, what the command prints is recorded.

What records and delivers is imported once the command runs: the command does not wait for it.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lossguard.cli.arguments import add_pattern_option
from lossguard.launch import hooks
from lossguard.launch.child import CommandNotStarted
from lossguard.launch.launcher import DELIVERY_SECONDS, Launcher, die_like
from lossguard.launch.options import add_restart_options, limit_orders, supervisor_for
from lossguard.launch.recorder import Recorder
from lossguard.run.process_rank import rank_of
from lossguard.run.run import Run, watching
from lossguard.run.settings import Mode, Settings
from lossguard.sources.names import NameMap
from lossguard.spool.folders import lock_folder, make_folder
from lossguard.vocabulary.errors import ConfigurationError
from lossguard.vocabulary.protocol import is_name, is_run_id

LAUNCHES = ".launch"
"""Folder in LOSSGUARD_DIR: a journal and a note about the child for each run that is launched now."""
IN_USE = "stop that launcher, or choose another run id"


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "launch",
        help="run a training command, unchanged, and record what its tracker is given or what it prints",
        usage="lossguard launch [options] -- COMMAND [ARGUMENT ..]",
    )
    parser.add_argument("--project", help="default: that of the tracker, else the name of the working directory")
    parser.add_argument("--name", help="of the run; default: that of the tracker, else the run id")
    parser.add_argument("--run-id", help="continue this run (default: LOSSGUARD_RUN_ID, else a new run)")
    parser.add_argument("--tag", action="append", default=[], help="a word to search for; may be repeated")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="METRIC=NAME",
        help="the name under which the command logs a metric, as in loss=train/ce; may be repeated",
    )
    parser.add_argument(
        "--text",
        action=argparse.BooleanOptionalAction,
        help="record what the command prints, from the start; --no-text: never (default: if no tracker is called)",
    )
    add_pattern_option(parser)
    parser.add_argument("--url", help="the collector's address (default: LOSSGUARD_URL)")
    parser.add_argument("--token", help="bearer token (default: LOSSGUARD_TOKEN)")
    add_restart_options(parser)
    parser.add_argument("command_line", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Never returns after the command has run: this process then ends as the command did."""
    command = options.command_line[options.command_line[:1] == ["--"] :]
    if not command:
        raise ConfigurationError("launch needs a command: lossguard launch -- python train.py")
    names = NameMap.parse(options.map)
    if options.pattern is not None:
        if options.text is False:
            raise ConfigurationError("--pattern reads what the command prints: leave out --no-text")
        from lossguard.sources.readers.printed_lines import own_pattern

        own_pattern(options.pattern, names)
    if options.project is not None and not is_name(options.project):
        raise ConfigurationError(f"--project {options.project!r:.200} must be a name of 1 to 128 characters")
    settings = Settings.read(url=options.url, token=options.token, run_id=options.run_id)
    is_inner, is_off = hooks.JOURNAL_VARIABLE in os.environ, os.environ.get("LOSSGUARD_MODE") == Mode.OFF
    # Kubeflow's operator sets WORLD_SIZE in a pod whose torchrun has yet to start the ranks.
    is_only_pod = os.environ.get("PET_NNODES") == "1" and "LOCAL_RANK" not in os.environ
    if options.restart_with is not None and settings.num_ranks > 1 and not (is_only_pod or is_inner or is_off):
        raise ConfigurationError(
            f"--restart-with would restart one of {settings.num_ranks} ranks alone: "
            "put one launcher around the torchrun or srun that starts all of them"
        )
    if is_inner or rank_of(os.environ) > 0 or settings.mode is Mode.OFF:
        return _replace_by(command)
    if not hasattr(os, "posix_spawnp") or not os.path.exists("/proc/self/stat"):
        raise ConfigurationError("lossguard launch needs Linux")
    limit_orders(options.limits, os.environ)
    logging.basicConfig(format="lossguard: %(message)s")
    run_id = settings.run_id or time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + os.urandom(3).hex()
    if not is_run_id(run_id):
        raise ConfigurationError(f"--run-id {run_id!r} must be 1 to 128 letters, digits, dots, dashes or underscores")
    directory = settings.directory.absolute()
    folder = directory / LAUNCHES / run_id
    try:
        make_folder(folder)
        lock = lock_folder(folder, wait=settings.lock_wait, remedy=IN_USE)
    except OSError as problem:
        print(
            f"lossguard: {folder} cannot be written ({problem.strerror}): the command runs without being recorded; "
            "set LOSSGUARD_DIR",
            file=sys.stderr,
        )
        return _replace_by(command)
    _Launch(options, settings, directory, run_id).run(command, folder, names)
    lock.release()
    return 0


class _Launch:
    """The options of one launch, and how its run is begun."""

    def __init__(self, options: argparse.Namespace, settings: Settings, directory: Path, run_id: str) -> None:
        self._options = options
        self._settings = settings
        self._directory = directory
        self._run_id = run_id
        known = self._run_folders()
        self._project: str | None = options.project or (unquote(known[0].parent.name) if known else None)

    def run(self, command: list[str], folder: Path, names: NameMap) -> None:
        is_text = self._options.text or self._options.pattern is not None
        url = self._settings.url if self._settings.mode is Mode.ONLINE else None
        adapter = self._options.restart_with
        plan = f"an order restarts the command ({adapter})" if adapter else "a rollback needs --restart-with or a guard"
        recorder = Recorder(self, names, at_once=self._project is not None, takes_text=is_text)
        supervisor = supervisor_for(
            self._options, command, folder=folder, run_folder=next(iter(self._run_folders()), None)
        )
        launcher = Launcher(
            command,
            folder=folder,
            recorder=recorder,
            environment=self._environment(),
            supervisor=supervisor,
            first_line=watching(self._run_id, url, plan if url else ""),
            reads_text=self._options.text is not False,
            pattern=self._options.pattern,
            grace=self._options.grace,
        )
        try:
            end = launcher.run()
        except CommandNotStarted as problem:
            print(f"lossguard: {problem}", file=sys.stderr)
            os._exit(problem.code)
        if recorder.has_reported:
            from lossguard.launch import left_by_script

            for run_folder in self._run_folders():
                left_by_script.finish(run_folder, self._settings, end.state, DELIVERY_SECONDS)
        die_like(end)

    def begin(self, facts: Mapping[str, Any]) -> Run:
        """The run, with what the tracker says of it where the options say nothing."""
        from lossguard.run.start import init

        try:
            config = self.config(facts)
        except ConfigurationError as problem:
            logging.getLogger("lossguard").warning("the configuration is not recorded: %s", problem)
            config = {"tags": self._options.tag}
        return init(
            self._project_of(facts),
            name=self._options.name or facts.get("name"),
            config=config,
            run_id=self._run_id,
            url=self._options.url,
            token=self._options.token,
            directory=self._directory,
        )

    def config(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The tracker's configuration, with the tags of the options and of the tracker."""
        from lossguard.run.start import storable_config

        config = facts.get("config") or {}
        return storable_config(config, () if "tags" in config else [*self._options.tag, *facts.get("tags", ())])

    def folder(self, facts: Mapping[str, Any]) -> Path:
        """Return the folder of the run."""
        from lossguard.run.start import folder_of

        return folder_of(self._directory, self._project_of(facts), self._run_id)

    def _project_of(self, facts: Mapping[str, Any]) -> str:
        project = self._project or facts.get("project")
        return str(project) if is_name(project) else os.path.basename(os.getcwd()) or "launched"

    def _run_folders(self) -> list[Path]:
        """The folder of the run, if it has been begun."""
        return [path for path in self._directory.glob(f"*/{self._run_id}") if path.parent.name != LAUNCHES]

    def _environment(self) -> dict[str, str]:
        """The child's: ours, with the hooks, and with what a script that reports itself needs to be the same run."""
        site = str(Path(hooks.__file__).parent.parent / "site")
        path = os.environ.get("PYTHONPATH")
        return {
            **os.environ,
            "PYTHONPATH": f"{site}{os.pathsep}{path}" if path else site,
            "LOSSGUARD_RUN_ID": self._run_id,
            "LOSSGUARD_DIR": str(self._directory),
        }


def _replace_by(command: list[str]) -> int:
    """Become the command: on other ranks, and inside of another launch, there is nothing to record."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would go on doing so
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        refused = CommandNotStarted(command[0], problem)
        print(f"lossguard: {refused}", file=sys.stderr)
        return refused.code
