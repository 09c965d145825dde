"""What the collector reads from its environment, once, when it starts."""

from ipaddress import ip_network

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.engine import DEFAULT_URL
from lossguard.addresses import is_loopback
from monitor.telemetry.logs import LogFormat, LogLevel


class Settings(BaseSettings):
    """Every field is the environment variable LOSSGUARD_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix="LOSSGUARD_", env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    database_url: str = DEFAULT_URL
    """sqlite:///path or postgresql://user@host/name"""
    token: SecretStr | None = None
    """A bearer token that is good for everything; every route but /healthz then asks for one."""
    trusted_proxies: str = "127.0.0.1,::1"
    """Addresses or networks, separated by commas; their X-Forwarded-For says whose failed attempts are counted."""
    max_report_bytes: int = Field(default=16 * 2**20, ge=1024)
    """A request body larger than this is refused with 413."""
    max_requests_at_once: int = Field(default=64, ge=1)
    """Requests being served or waiting for it; a further one is answered with 429 and Retry-After."""
    max_bytes_at_once: int = Field(default=64 * 2**20, ge=1024)
    """Bytes of the bodies of these requests; what would go beyond is answered with 429 and Retry-After."""
    max_exports_at_once: int = Field(default=8, ge=1)
    """Runs being downloaded as files, apart from these requests; a further one is answered with 429 and Retry-After."""
    max_runs: int = Field(default=100_000, ge=1)
    """Runs in the store; a further one is answered with 429 until some are deleted."""
    max_runs_in_metrics: int = Field(default=500, ge=0)
    """Running runs that /metrics shows, those heard of last first; how many are left out is a metric of its own."""
    max_metrics: int = Field(default=1_000, ge=1)
    """Names of metrics in one run; a report that brings more is refused with 422."""
    log_format: LogFormat = LogFormat.TEXT
    """How the log is written to standard error: text (logfmt) or json, one line an event."""
    log_level: LogLevel = LogLevel.INFO
    """The least important lines of the log: info (every request), warning (what was refused or failed) or error."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, given: str) -> str:
        for one in given.split(","):
            ip_network(one.strip())  # `*` and names are none: they would believe what any client claims
        return given


def table() -> str:
    """Every setting as a Markdown table, as docs/settings.md has it."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        lines.append(f"| `LOSSGUARD_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


class UnsafeBind(ValueError):
    """The collector was asked to listen beyond this machine without a token."""


def check_bind(host: str, settings: Settings, *, tokens: bool = False) -> None:
    """Raise UnsafeBind when anybody on the network could report and order rollbacks. `tokens`: the store has some."""
    if settings.token is None and not tokens and not is_loopback(host):
        raise UnsafeBind(
            f"without a token the collector listens on loopback only, not on {host}; "
            "set LOSSGUARD_TOKEN, or make a token with: python -m monitor token create"
        )
