"""`lossguard doctor`: what is set, what works, and how to mend what does not."""

import argparse
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

from lossguard.cli.connection import add_options
from lossguard.cli.terminal import Style, Terminal, TerminalColumn, Text, print_json
from lossguard.client.client import Client
from lossguard.guard.limits_in_force import CLOCK_TOLERANCE, KILL_FILE, LIMITS_FILE, VARIABLE
from lossguard.run.environment import versions
from lossguard.run.settings import VARIABLES, Mode, Settings
from lossguard.spool.folders import paths_below
from lossguard.spool.spool_reader import acknowledged, is_delivered
from lossguard.vocabulary.errors import CollectorError, ConfigurationError, Unauthorised
from lossguard.vocabulary.limits import Limits
from lossguard.vocabulary.orders import read_key
from lossguard.vocabulary.secrets import host_of, is_loopback, mask_text
from lossguard.vocabulary.wording import size

# Checks of a collector and of this machine.


class State(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  # it works, and may be not what was meant
    PROBLEM = "problem"  # it stands in the way


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its subject, its result, and how to mend it."""

    name: str
    state: State
    sentence: str
    mend: str = ""
    """Advice; empty where nothing is to be done."""

    def fields(self) -> dict[str, Any]:
        """Return the check as `lossguard doctor --json` prints it."""
        return {"check": self.name, "state": self.state.value, "sentence": self.sentence, "mend": self.mend or None}


def ok(name: str, sentence: str) -> Check:
    return Check(name, State.OK, sentence)


def warning(name: str, sentence: str, mend: str) -> Check:
    return Check(name, State.WARNING, sentence, mend)


def problem(name: str, sentence: str, mend: str) -> Check:
    return Check(name, State.PROBLEM, sentence, mend)


# The collector, in the order in which a connection needs the checks, up to the first problem.

CREATE = "lossguard-server token create NAME"
TIMEOUT = 10.0
"""Seconds to wait for an answer."""
WORTH_A_WARNING = 5.0
"""Seconds between the clocks."""


def of_collector(settings: Settings, scopes: Sequence[str]) -> Iterator[Check]:
    """`scopes`: those that the token must have."""
    if settings.url is None:
        mend = "set LOSSGUARD_URL, or deliver later with `lossguard sync`"
        yield warning("collector", "no collector is set: runs are recorded on this machine only", mend)
        return
    with Client(settings.url, settings.token, timeout=TIMEOUT) as client:
        try:
            client.ping()
            yield from _connection(settings, settings.url)
            token = client.get("/token")
            before = time.time()
            about = client.get("/collector")
            skew = about["time"] - (before + time.time()) / 2
        except Unauthorised as error:
            yield ok("collector", f"{client.url} answers")
            made = f"`{CREATE} --scope {' --scope '.join(scopes)}` makes one"
            yield problem("token", str(error), f"set LOSSGUARD_TOKEN to a token of this collector: {made}")
        except CollectorError as error:
            log = "correct LOSSGUARD_URL, or look into the log of the collector"
            mend = "start it there, or correct LOSSGUARD_URL" if error.status is None else log
            yield problem("collector", str(error), mend)
        else:
            yield from (_release(client, about), _clocks(skew), _scopes(token, scopes))


def _connection(settings: Settings, url: str) -> Iterator[Check]:
    if settings.mode is not Mode.ONLINE:
        sentence = f"the mode is {settings.mode}: nothing is delivered while a run trains"
        yield warning("mode", sentence, "unset LOSSGUARD_MODE (or RANK) to deliver")
    if url.startswith("https:"):
        yield ok("tls", "the connection is encrypted, and the certificate is accepted")
    elif settings.token is not None and not is_loopback(host_of(url)):
        mend = "put a proxy with TLS before the collector, and use https://"
        yield warning("tls", "the token travels over plain HTTP: whoever sees the traffic can use it", mend)


def _release(client: Client, about: dict[str, Any]) -> Check:
    own, its = versions().get("lossguard"), about["version"]
    sentence = f"{client.url} answers, release {its}"
    if own == its:
        return ok("collector", sentence)
    return warning("collector", f"{sentence}; here is {own}", "that works; upgrade the older one when you can")


def _clocks(skew: float) -> Check:
    """`skew`: seconds by which the clock of the collector is ahead."""
    order = "ahead of" if skew > 0 else "behind"
    sentence = f"the collector's clock is {abs(skew):.1f} s {order} this machine's"
    mend = "set both by NTP"
    if abs(skew) >= CLOCK_TOLERANCE:
        return problem("clock", f"{sentence}: orders are refused as expired", mend)
    if abs(skew) >= WORTH_A_WARNING:
        return warning("clock", f"{sentence}: times in charts and orders are off by so much", mend)
    return ok("clock", sentence)


def _scopes(token: dict[str, Any], scopes: Sequence[str]) -> Check:
    bound = "".join(f", for the {what} {token[what]} only" for what in ("project", "run") if token[what] is not None)
    sentence = f"{token['name']} may {', '.join(token['scopes']) or 'do nothing'}{bound}"
    if missing := [scope for scope in scopes if scope not in token["scopes"]]:
        mend = f"create a token with --scope {' --scope '.join(missing)}, and set LOSSGUARD_TOKEN to it"
        return problem("token", f"{sentence}; it lacks {', '.join(missing)}", mend)
    return ok("token", sentence)


# This machine: folder, disk, spools that wait, limits, packages.

LITTLE, TOO_LITTLE = 5 << 30, 100 << 20
"""Bytes left on the disk: for a warning, and for a problem."""
OLDEST_TORCH = (2, 6)


def of_machine(directory: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    """`directory`: the folder that holds the spools."""
    absolute = directory.absolute()
    # Path.exists may raise
    nearest = next(each for each in (absolute, *absolute.parents) if os.path.exists(each))
    mend = "choose another folder with LOSSGUARD_DIR, or let this user write there"
    if not nearest.is_dir():
        yield problem("folder", f"{nearest} is not a folder", mend)
    elif not os.access(nearest, os.W_OK | os.X_OK):
        yield problem("folder", f"this user cannot write in {nearest}", mend)
    else:
        yield ok("folder", f"{directory} can be {'written' if nearest == absolute else 'made'}")
    left = shutil.disk_usage(nearest).free
    sentence, mend = f"{size(left)} are left there", "make room, or choose another disk with LOSSGUARD_DIR"
    if left < LITTLE:
        yield (problem if left < TOO_LITTLE else warning)("disk", sentence, mend)
    else:
        yield ok("disk", sentence)
    yield _spools(directory)
    yield from _limits(directory, environment)
    try:
        if read_key(environment) is not None:
            yield ok("order key", "orders must be signed with the key that is set")
    except ConfigurationError as error:
        yield problem("order key", str(error), "correct it, or unset it")
    yield _torch()


def _torch() -> Check:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return warning("torch", "PyTorch is not installed here", "a run can be watched without it, not rolled back")
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < OLDEST_TORCH:
        sentence = f"PyTorch {version} runs code that somebody put into a checkpoint (CVE-2025-32434)"
        return problem("torch", sentence, "pip install 'torch>=2.6'")
    return ok("torch", f"PyTorch {version}")


def _spools(directory: Path) -> Check:
    waiting = [path for path in paths_below(directory, "*.spool") if not is_delivered(path)]
    if not waiting:
        return ok("spools", "everything that was recorded here is delivered")
    runs = sorted({path.parent.name for path in waiting})
    named = f"{len(runs)} runs" if len(runs) > 1 else f"the run {runs[0]}"
    sentence = f"{size(sum(map(_waiting_bytes, waiting)))} of {named} wait for delivery"
    return warning("spools", sentence, f"if nothing trains here now: lossguard sync {directory}")


def _waiting_bytes(spool: Path) -> int:
    try:
        return max(0, spool.stat().st_size - acknowledged(spool))
    except OSError:  # delivered and archived meanwhile
        return 0


def _limits(directory: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    if given := environment.get(VARIABLE):
        yield _parsed(VARIABLE, lambda: given)
    for path in paths_below(directory, LIMITS_FILE):
        if path.is_file():
            yield _parsed(str(path), lambda path=path: path.read_text(encoding="utf-8", errors="replace"))  # type: ignore[misc]
    for path in paths_below(directory, KILL_FILE):
        mend = f"delete {path} once it is to carry them out again"
        yield warning("orders", f"the run {path.parent.name} carries out no orders", mend)


def _parsed(source: str, read: Callable[[], str]) -> Check:
    mend = "correct it: until then no order is carried out"
    try:
        limits = Limits.parse(read(), source)
    except ConfigurationError as error:
        return problem("limits", str(error), mend)
    except OSError as error:
        return problem("limits", f"{source} cannot be read ({error.strerror})", mend)
    return ok("limits", f"{source}: {limits.to_text() or 'no limit'}")


# The command.

SCOPES = ("report", "read", "operate")
STYLES = {State.OK: Style.GREEN, State.WARNING: Style.YELLOW, State.PROBLEM: Style.RED}
COLUMNS = (TerminalColumn("SETTING"), TerminalColumn("VALUE", min_width=10), TerminalColumn("FROM"))
NOT_SET = "not set"
SECRET = ("LOSSGUARD_TOKEN", "LOSSGUARD_ORDER_KEY")


def add_to(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="say what is set, what works, and how to mend what does not")
    parser.add_argument("--directory", type=Path, help="folder for the spools (default: LOSSGUARD_DIR)")
    parser.add_argument(
        "--scope",
        action="append",
        choices=SCOPES,
        help="what the token must allow; may be repeated (default: report, what a trainer needs)",
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """1 if something stands in the way."""
    variables = [_described(name, option, options, os.environ) for name, option in VARIABLES.items()]
    try:
        settings = Settings.read(url=options.url, token=options.token, directory=options.directory)
    except ConfigurationError as error:
        checks = [problem("settings", str(error), "correct the setting; the other checks follow then")]
    else:
        checks = [*of_collector(settings, options.scope or SCOPES[:1]), *of_machine(settings.directory, os.environ)]
    for each in variables:
        if each["from"].startswith("--"):  # advice names the option that was given in place of its variable
            checks = [replace(check, mend=check.mend.replace(each["name"], each["from"])) for check in checks]
    num_problems = sum(check.state is State.PROBLEM for check in checks)
    if options.json:
        print_json({"ok": num_problems == 0, "settings": variables, "checks": [check.fields() for check in checks]})
    else:
        _print(Terminal(), variables, checks)
    return 1 if num_problems else 0


def _described(name: str, option: str, options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, str]:
    """Name, value and origin of a setting; secrets are not shown."""
    given = getattr(options, option, None) if option else None
    value = str(given or environment.get(name) or "")
    origin = f"--{option}" if given else "environment" if value else NOT_SET
    hidden = f"({len(value)} characters)" if value and name in SECRET else mask_text(value)
    return {"name": name, "value": hidden or "-", "from": origin}


def _print(terminal: Terminal, variables: list[dict[str, str]], checks: list[Check]) -> None:
    terminal.say_table(COLUMNS, [list(each.values()) for each in variables if each["from"] != NOT_SET])
    terminal.say("")
    for check in checks:
        terminal.say(Text(f"{check.state:<8}", STYLES[check.state]), f"{check.name:<10} {check.sentence}")
        if check.mend:
            terminal.say(f"{'':<19}{check.mend}")
