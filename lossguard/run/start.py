"""`lossguard.init`: begin or resume a run, once no other process writes it."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lossguard.client.client import Client
from lossguard.run.environment import describe_environment
from lossguard.run.ranks import current_ranks
from lossguard.run.recording import RecordingRun
from lossguard.run.run import Run
from lossguard.run.settings import Mode, Settings
from lossguard.spool.folders import FolderLock, lock_folder, make_folder
from lossguard.spool.spool import new_session
from lossguard.spool.writer import WRITER_HEADER, Writer, writer_of
from lossguard.vocabulary.errors import CollectorError, ConfigurationError, Conflict, LogOnce, logger
from lossguard.vocabulary.protocol import (
    MAX_SHORT_TEXT,
    MAX_TAGS,
    checked_json,
    is_name,
    is_run_id,
    is_step,
    is_text,
    plain_json,
)
from lossguard.vocabulary.secrets import MASK, mask_json

# The lease: before a run is resumed, the collector says whether a process in another folder still writes it.

ASK_TIMEOUT = 5.0
"""Seconds to wait for an answer: without one the run begins, because it must work without a collector."""
POLL_SECONDS = 1.0


def wait_for_lease(client: Client, run_id: str, writer: Writer, *, wait: float) -> None:
    """Take the lease of the run, waiting at most `wait` seconds for the process that holds it.

    Returns at once when the collector does not know the run or leases, or cannot be asked. Raises ConfigurationError,
    which names the process, when that keeps the lease.
    """
    deadline = time.monotonic() + wait
    log_once = LogOnce()
    while True:
        try:
            client.request("POST", f"/runs/{run_id}/lease", {}, headers={WRITER_HEADER: writer.to_header()})
            return
        except Conflict as problem:
            if time.monotonic() >= deadline:
                raise ConfigurationError(
                    f"run_id={run_id!r} is in use, and was not free within {wait:g} s (LOSSGUARD_LOCK_WAIT): "
                    f"{problem.detail}"
                ) from None
            log_once.warn_once("lease", f"waiting up to {wait:g} s: {problem.detail}")
        except CollectorError:
            return
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


# `lossguard.init`.

MAX_CONFIG_BYTES = 4 << 20
"""Maximum bytes of the configuration as JSON; well below the largest body that a collector accepts."""


def init(
    project: str,
    *,
    name: str | None = None,
    config: Mapping[str, Any] | Any | None = None,
    run_id: str | None = None,
    mode: str | None = None,
    url: str | None = None,
    token: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    total_steps: int | None = None,
    capabilities: Sequence[str] = (),
    tags: Sequence[str] = (),
    policy: Mapping[str, Any] | None = None,
) -> Run:
    """Begin a run, or resume the run `run_id` (or LOSSGUARD_RUN_ID), whose undelivered lines are delivered first.

    `config` is a mapping or a dataclass; `tags` are words to search for, stored in it as "tags"; `policy` are values of
    the run's own policy, such as {"mode": "approve"}, which count until an operator sets them
    (docs/reference/settings.md lists them); `mode` is "online", "offline" or "off"; arguments that are left out are
    read from the environment (`Settings`). With several ranks, call it on each, after torch.distributed is initialised:
    rank 0 records, and the other ranks get a run with the same id that records nothing.

    One process at a time writes a run: `init` waits up to LOSSGUARD_LOCK_WAIT seconds for the process that uses its
    folder. If a `run_id` is given, it asks the collector whether a process elsewhere writes the run; otherwise it makes
    no request.

    Raises ConfigurationError (a ValueError) when an argument, a variable or the directory is invalid, and when another
    process does not end in time.
    """
    if not is_name(project) or not project.strip():
        raise ConfigurationError(
            f"project={project!r:.200} must be a name of 1 to 128 characters without control characters"
        )
    if name is not None and not is_text(name, MAX_SHORT_TEXT):
        raise ConfigurationError(f"name={name!r:.300} must be a text of at most {MAX_SHORT_TEXT} characters")
    if total_steps is not None and not is_step(total_steps):
        raise ConfigurationError(f"total_steps={total_steps!r:.100} must be a whole number from 0, below 2**53")
    ranks = current_ranks()
    settings = Settings.read(mode=mode, url=url, token=token, directory=directory, run_id=run_id, ranks=ranks)
    new_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + os.urandom(3).hex()
    id = ranks.agree_on_run_id(settings.run_id, new_id)
    _check_run_id(id)
    if settings.mode is Mode.OFF:
        return Run(id=id, rank=settings.rank, num_ranks=settings.num_ranks, lock_wait=settings.lock_wait)
    registration = {
        "id": id,
        "project": project,
        "name": name or id,
        "config": storable_config(config, tags),
        **describe_environment(),
        "capabilities": list(capabilities),
        "started_at": time.time(),
        "total_steps": total_steps,
    }
    if policy is not None:
        registration["policy"] = _policy(policy)
    if hooks := sys.modules.get("lossguard_hooks"):
        hooks.stand_back()  # under `lossguard launch`: the launcher gives the folder to this process
    return record(registration, settings)


def storable_config(config: Mapping[str, Any] | Any | None, tags: Sequence[str] = ()) -> dict[str, Any]:
    """`config` as it is registered: plain JSON with the tags, without secrets. Raises ConfigurationError."""
    plain = _config(config)
    if isinstance(tags, str) or not all(is_name(tag) for tag in tags) or len(tags) > MAX_TAGS:
        raise ConfigurationError(
            f"tags={tags!r:.200} must be a list of at most {MAX_TAGS} texts of 1 to 128 characters"
        )
    if tags and "tags" in plain:
        raise ConfigurationError("tags= is given, and config= has tags too; use only one of them")
    if tags:
        plain["tags"] = list(dict.fromkeys(tags))
    _check_accepted("config", plain)
    masked: dict[str, Any] = mask_json(plain)
    if changed := [name for name in plain if masked[name] != plain[name]]:
        logger.warning(f"config: what looks like a secret in {', '.join(changed)} is recorded as {MASK}")
    return masked


def _config(config: Any) -> dict[str, Any]:
    known = isinstance(config, Mapping) or not hasattr(config, "__dict__")
    try:
        plain = plain_json({} if config is None else config if known else vars(config))
        size = len(json.dumps(plain))
    except RecursionError:
        raise ConfigurationError("config= is nested too deeply, or contains itself") from None
    if size > MAX_CONFIG_BYTES:
        raise ConfigurationError(f"config= takes {size} bytes of JSON; at most {MAX_CONFIG_BYTES} are allowed")
    if not isinstance(plain, dict):
        raise ConfigurationError(f"config={config!r:.80} must be a mapping, a dataclass or a namespace")
    return plain


def _policy(policy: Any) -> dict[str, Any]:
    """The values as they are registered; the collector says whether they make a policy. Raises ConfigurationError."""
    if not isinstance(policy, Mapping):
        raise ConfigurationError(f'policy={policy!r:.80} must be a mapping, such as {{"mode": "approve"}}')
    plain: dict[str, Any] = plain_json(policy)
    _check_accepted("policy", plain)
    return plain


def _check_accepted(argument: str, value: dict[str, Any]) -> None:
    """Raise ConfigurationError unless a collector accepts the value; it would refuse the whole run."""
    try:
        checked_json(value)
    except ValueError as error:
        raise ConfigurationError(f"a collector does not accept {argument}=: {error}") from None


def _check_run_id(run_id: str) -> None:
    if not is_run_id(run_id):
        raise ConfigurationError(
            f"run_id={run_id!r:.200} must be 1 to 128 letters, digits, dots, dashes or underscores"
        )


MAX_FOLDER_NAME = 250
"""Bytes; file systems allow 255."""


def folder_of(directory: Path, project: str, run_id: str) -> Path:
    """The folder of a run's spools below LOSSGUARD_DIR. Raises ConfigurationError for no run id, such as `../x`, and
    for a project whose name is too long for a folder."""
    _check_run_id(run_id)
    name = quote(project, safe=" ")
    if len(name) > MAX_FOLDER_NAME:
        raise ConfigurationError(
            f"project={project!r:.60} takes {len(name)} bytes as the name of a folder (6 to 12 for letters "
            f"other than A to Z), and at most {MAX_FOLDER_NAME} are possible: choose a shorter one"
        )
    return (directory / ("%2E" + name[1:] if name.startswith(".") else name) / run_id).absolute()


IN_USE = "stop that process or wait until it has ended, or use another run_id"


@contextmanager
def locked(folder: Path, settings: Settings) -> Iterator[FolderLock]:
    """The folder of a run is there, and locked in this block.

    Raises ConfigurationError when it cannot be written or another process writes it.
    """
    try:
        make_folder(folder)
        lock = lock_folder(folder, wait=settings.lock_wait, remedy=IN_USE)
        try:
            yield lock
        finally:
            lock.release()
    except OSError as problem:
        how = "choose another directory with LOSSGUARD_DIR, directory= or --directory"
        raise ConfigurationError(f"{folder} cannot be written ({problem.strerror}): {how}") from problem


def record(registration: dict[str, Any], settings: Settings, *, session: str | None = None) -> RecordingRun:
    """Begin or resume the run of this registration, the body of POST /runs. `session`: see RecordingRun.

    Raises ConfigurationError as `locked` does.
    """
    folder = folder_of(settings.directory, registration["project"], registration["id"])
    url = settings.url if settings.mode is Mode.ONLINE else None
    with locked(folder, settings) as lock:
        if url is not None and settings.run_id:
            # A process in another folder may write the run, also if this folder has begun it: it may have moved on.
            writer = writer_of(folder, session or new_session(folder))
            with Client(url, settings.token, timeout=ASK_TIMEOUT) as asking:
                wait_for_lease(asking, registration["id"], writer, wait=settings.lock_wait)
        client = None if url is None else Client(url, settings.token)
        run = RecordingRun(registration, folder, settings, client=client, lock=lock, session=session)
        lock.share()  # the run releases it
        return run
