"""What the collector reads from its environment, once, when it starts."""

from ipaddress import ip_address

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from db.engine import DEFAULT_URL


class Settings(BaseSettings):
    """Every field is the environment variable LOSSGUARD_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="LOSSGUARD_", frozen=True)

    database_url: str = DEFAULT_URL
    """sqlite:///path or postgresql://user@host/name"""
    token: SecretStr | None = None
    """When set, every route but /healthz asks for it as a bearer token."""
    max_report_bytes: int = Field(default=16 * 2**20, ge=1024)
    """A request body larger than this is refused with 413."""


class UnsafeBind(ValueError):
    """The collector was asked to listen beyond this machine without a token."""


def check_bind(host: str, settings: Settings) -> None:
    """Raise UnsafeBind when anybody on the network could report and order rollbacks."""
    if settings.token is None and not _is_loopback(host):
        raise UnsafeBind(
            f"without a token the collector listens on loopback only, not on {host}; set LOSSGUARD_TOKEN to open it"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
