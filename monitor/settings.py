"""The collector's settings, read from the environment once, when it starts."""

from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_network

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.store.engine import DEFAULT_URL
from lossguard.vocabulary.orders import KEY, KEY_FILE, read_key
from lossguard.vocabulary.protocol import MAX_METRICS
from lossguard.vocabulary.secrets import is_loopback
from monitor.telemetry.logs import LogFormat, LogLevel

MIN_TOKEN = 16
"""Characters. A shorter token can be guessed."""

SIMILARITY = 0.88
"""Ratio of difflib (0 to 1) from which one name may be a misspelling of the other."""


class Settings(BaseSettings):
    """Every field is the environment variable LOSSGUARD_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="LOSSGUARD_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    database_url: str = DEFAULT_URL
    """sqlite:///path or postgresql://user@host/name"""
    token: SecretStr | None = None
    """A bearer token with every scope, of at least 16 characters; then every route but /healthz requires a token."""
    trusted_proxies: str = "127.0.0.1,::1"
    """Comma-separated addresses or networks of proxies whose X-Forwarded-For names the client."""
    max_report_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Largest request body; a larger one is refused with 413."""
    max_values: int = Field(default=1_000_000, ge=1000)
    """Values (numbers, texts, lists, names) in a request body; one with more is refused with 413."""
    max_requests_at_once: int = Field(default=128, ge=1)
    """Requests in progress, half of them of one client; a further one is answered with 429."""
    max_bytes_at_once: int = Field(default=64 * 2**20, ge=1024)
    """Total bytes of their bodies, half of one client; a body beyond it is answered with 429."""
    max_values_at_once: int = Field(default=2_000_000, ge=1000)
    """Total values in their bodies, half of one client; a body beyond it is answered with 429."""
    body_timeout: float = Field(default=10.0, gt=0)
    """Seconds for which a body may stop, or be late at the slowest rate; then it is answered with 408."""
    min_body_rate: int = Field(default=32_768, ge=1)
    """Slowest rate at which a body may arrive, in bytes per second on the whole."""
    header_timeout: float = Field(default=10.0, gt=0)
    """Seconds for the headers of a request, from the connection's start or last answer."""
    max_connections: int = Field(default=1_000, ge=1)
    """Open connections; for a further one, the one that has waited longest for a request is closed."""
    max_connections_per_address: int = Field(default=500, ge=1)
    """Maximum per address that is no trusted proxy; a further one is closed."""
    max_exports_at_once: int = Field(default=8, ge=1)
    """Exports in progress, counted apart, half of one client; a further one is answered with 429."""
    max_runs: int = Field(default=100_000, ge=1)
    """Runs in the store, and as many MLflow experiments; a new one beyond it is answered with 429."""
    max_runs_in_metrics: int = Field(default=2_000, ge=0)
    """Running runs in /metrics, latest reports first; another metric counts those left out."""
    max_metrics: int = Field(default=MAX_METRICS, ge=1)
    """Metric names in one run; a report that would exceed it is refused with 422."""
    max_segments: int = Field(default=10_000, ge=1)
    """Segments in one run; a further one is answered with 429 until the limit is raised."""
    lease_seconds: float = Field(default=20.0, ge=1.0, le=3600.0)
    """Seconds for which a process that stops reporting keeps its run; then another folder may take it."""
    order_key: SecretStr | None = None
    """Signs every order; a trainer with the same key refuses all others (`openssl rand -hex 32`)."""
    order_key_file: str | None = None
    """A file with that key, instead of `LOSSGUARD_ORDER_KEY`."""
    order_expires_seconds: float = Field(default=3600.0, ge=1.0)
    """Seconds from its decision or approval, after which the trainer refuses an order."""
    order_expires_steps: int = Field(default=10_000, ge=1)
    """Steps of the run from then on, after which the trainer refuses an order."""
    log_format: LogFormat = LogFormat.TEXT
    """Format of the log on standard error: text (logfmt) or json, one line per event."""
    log_level: LogLevel = LogLevel.INFO
    """Lowest level that is logged: info (every request), warning (refusals and failures) or error."""

    @field_validator("token")
    @classmethod
    def _is_long_enough(cls, given: SecretStr | None) -> SecretStr | None:
        """The token without blanks around it, as clients send it."""
        stripped = None if given is None else given.get_secret_value().strip()
        if stripped is None:
            return None
        if len(stripped) < MIN_TOKEN:
            raise ValueError(
                f"a token has at least {MIN_TOKEN} characters, such as the output of: openssl rand -hex 32"
            )
        return SecretStr(stripped)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, given: str) -> str:
        for one in given.split(","):
            ip_network(one.strip())  # no `*` and no names: those would trust what any client claims
        return given

    def order_signing_key(self) -> str | None:
        """The key with which orders are signed. Raises ConfigurationError for one that is none; it shows no key.

        No validator of a field: an error of pydantic shows what it was given.
        """
        given = None if self.order_key is None else self.order_key.get_secret_value()
        values = {KEY: given or "", KEY_FILE: self.order_key_file or ""}
        return read_key(values)


def table() -> str:
    """Every setting as a Markdown table, as in docs/reference/settings.md."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        lines.append(f"| `LOSSGUARD_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


class UnsafeBind(ValueError):
    """The collector would listen to other machines without a token."""


def check_bind(host: str, settings: Settings, *, has_tokens: bool = False) -> None:
    """Raise UnsafeBind if anybody on the network could report and order rollbacks. `has_tokens`: those of the store."""
    if settings.token is None and not has_tokens and not is_loopback(host):
        raise UnsafeBind(
            f"without a token the collector listens on loopback only, not on {host}; "
            "set LOSSGUARD_TOKEN, or create a token with: python -m monitor token create NAME --scope report"
        )


def misspelt(variables: Iterable[str]) -> dict[str, str]:
    """Return the environment variables that are no setting but look like one, each with that setting's variable."""
    known = [f"LOSSGUARD_{name.upper()}" for name in Settings.model_fields]
    unknown = [name for name in variables if name.startswith("LOSSGUARD_") and name not in known]
    close = {name: get_close_matches(name, known, 1, SIMILARITY) for name in unknown}
    return {name: found[0] for name, found in close.items() if found}
