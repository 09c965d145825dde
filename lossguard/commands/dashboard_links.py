"""The pages of the dashboard, where LOSSGUARD_DASHBOARD_URL says where it is."""

import os
from collections.abc import Mapping
from urllib.parse import urlencode

VARIABLE = "LOSSGUARD_DASHBOARD_URL"


def run_page(run_id: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The page of a run; None where nobody says where the dashboard is."""
    return _page("run", {"run": run_id}, environment)


def incident_page(run_id: str, number: int, environment: Mapping[str, str] | None = None) -> str | None:
    """The page of an incident; None where nobody says where the dashboard is."""
    return _page("incident", {"run": run_id, "incident": number}, environment)


def _page(name: str, query: Mapping[str, object], environment: Mapping[str, str] | None) -> str | None:
    base = (os.environ if environment is None else environment).get(VARIABLE)
    return f"{base.rstrip('/')}/{name}?{urlencode(query)}" if base else None
