"""Reads the files of deploy/."""

import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "lossguard.json"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())  # JSON is YAML


def alerts() -> list[dict[str, Any]]:
    return [rule for group in read(RULES)["groups"] for rule in group["rules"]]


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:lossguard|process)_[a-z_]+", text)) - {"lossguard_token"}
