"""The collector's settings, read from the environment once, when it starts."""

from ipaddress import ip_network

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.engine import DEFAULT_URL
from lossguard.addresses import is_loopback
from lossguard.protocol import MAX_METRICS
from monitor.telemetry.logs import LogFormat, LogLevel


class Settings(BaseSettings):
    """Every field is the environment variable LOSSGUARD_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="LOSSGUARD_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    database_url: str = DEFAULT_URL
    """sqlite:///path or postgresql://user@host/name"""
    token: SecretStr | None = None
    """A bearer token with every scope; with it, every route but /healthz requires a token."""
    trusted_proxies: str = "127.0.0.1,::1"
    """Comma-separated addresses or networks of proxies whose X-Forwarded-For names the client."""
    max_report_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Largest request body; a larger one is refused with 413."""
    max_requests_at_once: int = Field(default=64, ge=1)
    """Requests in progress or waiting; a further one is answered with 429 and Retry-After."""
    max_bytes_at_once: int = Field(default=64 * 2**20, ge=1024)
    """Total bytes of their bodies; a request beyond it is answered with 429 and Retry-After."""
    max_exports_at_once: int = Field(default=8, ge=1)
    """Exports in progress, counted apart; a further one is answered with 429 and Retry-After."""
    max_runs: int = Field(default=100_000, ge=1)
    """Runs in the store; a new one beyond it is answered with 429 until some are deleted."""
    max_runs_in_metrics: int = Field(default=500, ge=0)
    """Running runs in /metrics, latest reports first; another metric counts those left out."""
    max_metrics: int = Field(default=MAX_METRICS, ge=1)
    """Metric names in one run; a report that would exceed it is refused with 422."""
    log_format: LogFormat = LogFormat.TEXT
    """Format of the log on standard error: text (logfmt) or json, one line per event."""
    log_level: LogLevel = LogLevel.INFO
    """Lowest level that is logged: info (every request), warning (refusals and failures) or error."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, given: str) -> str:
        for one in given.split(","):
            ip_network(one.strip())  # no `*` and no names: those would trust what any client claims
        return given


def table() -> str:
    """Every setting as a Markdown table, as in docs/settings.md."""
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
            "set LOSSGUARD_TOKEN, or create a token with: python -m monitor token create"
        )
