"""The settings of the SDK, read once from arguments and the environment, at `init`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from lossguard.client.endpoint import checked_token, collector_url
from lossguard.run.process_rank import num_ranks_of, rank_of
from lossguard.run.ranks import Ranks
from lossguard.spool.archive import Keep
from lossguard.spool.folders import LOCK_WAIT
from lossguard.vocabulary.errors import ConfigurationError

E = TypeVar("E", bound=StrEnum)
MAX_LOCK_WAIT = 86_400.0
"""Seconds."""
HARDWARE_INTERVAL = 15.0
"""Seconds."""
MIN_HARDWARE_INTERVAL = 1.0
"""Seconds."""
VARIABLES: Mapping[str, str] = {
    "LOSSGUARD_URL": "url",
    "LOSSGUARD_TOKEN": "token",
    "LOSSGUARD_DIR": "directory",
    "LOSSGUARD_MODE": "",
    "LOSSGUARD_RUN_ID": "",
    "LOSSGUARD_SPOOL_KEEP": "",
    "LOSSGUARD_HARDWARE": "",
    "LOSSGUARD_LOCK_WAIT": "",
    "LOSSGUARD_LIMITS": "",
    "LOSSGUARD_ORDER_KEY": "",
    "LOSSGUARD_ORDER_KEY_FILE": "",
    "LOSSGUARD_DASHBOARD_URL": "",
    "SSL_CERT_FILE": "",
}
"""Environment variables of the SDK, each with the command-line option that takes precedence over it, if any."""


class Mode(StrEnum):
    """Whether a run is recorded and delivered."""

    ONLINE = "online"  # spool and deliver
    OFFLINE = "offline"  # spool only; `python -m lossguard sync` or a later online run delivers
    OFF = "off"  # do nothing at all


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Arguments of `init` take precedence over the environment; an empty variable counts as unset."""

    mode: Mode
    """LOSSGUARD_MODE; without it online when there is a URL, else offline. A rank above 0 means off."""
    url: str | None
    """LOSSGUARD_URL: the collector's base address, without a trailing slash."""
    token: str | None
    """LOSSGUARD_TOKEN: bearer token with the scope `report`."""
    directory: Path
    """LOSSGUARD_DIR, default `.lossguard`: the folder that holds the spools."""
    run_id: str | None
    """LOSSGUARD_RUN_ID: the run to resume."""
    keep: Keep
    """LOSSGUARD_SPOOL_KEEP: what of the spools stays on the disk after delivery; default `all`."""
    rank: int
    """RANK, as torchrun sets it, or what else started the process says (srun, mpirun, Lightning's launcher)."""
    num_ranks: int
    """WORLD_SIZE, or what srun or mpirun says."""
    hardware_interval: float | None
    """LOSSGUARD_HARDWARE, default 15: seconds between two samples of this machine's hardware; None for `off`."""
    lock_wait: float
    """LOSSGUARD_LOCK_WAIT, default 30: seconds to wait for another process that still uses the run or its checkpoints.
    """

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        mode: str | None = None,
        url: str | None = None,
        token: str | None = None,
        directory: str | os.PathLike[str] | None = None,
        run_id: str | None = None,
        ranks: Ranks | None = None,
    ) -> "Settings":
        """Several `ranks` take precedence over the variables.

        Raises ConfigurationError naming the setting and its value.
        """
        env = os.environ if environment is None else environment

        def given(name: str, argument: str | None) -> tuple[str, str] | None:
            """(source, value) of an argument, or else of its variable; None without either."""
            variable = f"LOSSGUARD_{name.upper()}"
            return (name, argument) if argument else (variable, env[variable]) if env.get(variable) else None

        address = None if (found := given("url", url)) is None else collector_url(*found)
        for variable in ("RANK", "WORLD_SIZE"):
            if env.get(variable) and not env[variable].isdecimal():
                raise ConfigurationError(f"{variable}={env[variable]!r} must be a whole number of at least 0")
        rank, num_ranks = rank_of(env), num_ranks_of(env)
        if ranks is not None and ranks.size > 1:
            rank, num_ranks = ranks.rank, ranks.size
        chosen = Mode.ONLINE if address else Mode.OFFLINE
        if (found := given("mode", mode)) is not None:
            chosen = _one_of(Mode, *found)
        if rank > 0:  # whatever the mode: the same script runs on all ranks, and only rank 0 records
            chosen = Mode.OFF
        if chosen is Mode.ONLINE and not address:
            raise ConfigurationError("mode 'online' needs the collector's address: pass url= or set LOSSGUARD_URL")
        hardware = env.get("LOSSGUARD_HARDWARE") or str(HARDWARE_INTERVAL)
        return cls(
            mode=chosen,
            url=address,
            token=None if (found := given("token", token)) is None else checked_token(*found),
            directory=Path(directory or env.get("LOSSGUARD_DIR") or ".lossguard"),
            run_id=run_id or env.get("LOSSGUARD_RUN_ID") or None,
            keep=_one_of(Keep, "LOSSGUARD_SPOOL_KEEP", env.get("LOSSGUARD_SPOOL_KEEP") or Keep.ALL),
            rank=rank,
            num_ranks=num_ranks,
            hardware_interval=None
            if hardware == "off"
            else _seconds("LOSSGUARD_HARDWARE", hardware, least=MIN_HARDWARE_INTERVAL, off="off, or "),
            lock_wait=_seconds("LOSSGUARD_LOCK_WAIT", env.get("LOSSGUARD_LOCK_WAIT") or str(LOCK_WAIT)),
        )


def _one_of(kind: type[E], source: str, value: str) -> E:
    try:
        return kind(value)
    except ValueError:
        *others, last = kind
        raise ConfigurationError(f"{source}={value!r} must be {', '.join(others)} or {last}") from None


def _seconds(source: str, value: str, *, least: float = 0.0, off: str = "") -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not least <= seconds <= MAX_LOCK_WAIT:
        raise ConfigurationError(
            f"{source}={value!r} must be {off}seconds from {least:g} to {MAX_LOCK_WAIT:.0f} (a day)"
        )
    return seconds
