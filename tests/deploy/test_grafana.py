"""Grafana's provisioning, as far as it can be checked without Grafana: its shape, its queries, its references."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.deploy.files import DASHBOARD, DEPLOY, read

PROVISIONING = DEPLOY / "grafana" / "provisioning"
TYPES = ("row", "timeseries", "stat", "table")

# What Grafana's documentation of provisioning names; it ignores other keys silently.
DATASOURCE = {"name", "type", "uid", "orgId", "access", "url", "isDefault", "editable", "version", "jsonData"}
PROVIDER = {"name", "type", "orgId", "folder", "folderUid", "disableDeletion", "allowUiUpdates", "options"}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def test_the_dashboard_queries_the_provisioned_source() -> None:
    (source,) = read(PROVISIONING / "datasources" / "prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    asked = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    asked |= {panel["datasource"]["uid"] for panel in panels()}
    asked |= {variable["datasource"]["uid"] for variable in dashboard()["templating"]["list"]}
    assert asked == {source["uid"]}


def test_provisioning_has_what_grafana_needs_and_nothing_that_it_ignores() -> None:
    sources = read(PROVISIONING / "datasources" / "prometheus.yml")
    providers = read(PROVISIONING / "dashboards" / "lossguard.yml")
    assert sources.keys() == {"apiVersion", "datasources"}
    assert providers.keys() == {"apiVersion", "providers"}
    assert sources["apiVersion"] == providers["apiVersion"] == 1
    (source,), (provider,) = sources["datasources"], providers["providers"]
    assert {"name", "type", "access", "url"} <= source.keys() <= DATASOURCE
    assert {"name", "type", "options"} <= provider.keys() <= PROVIDER
    assert provider["options"].keys() == {"path"}


def test_the_dashboard_can_be_imported_anywhere() -> None:
    whole = dashboard()
    assert isinstance(whole["schemaVersion"], int)
    assert "id" not in whole, "it is specific to one Grafana's database"
    assert re.fullmatch(r"[\w-]{1,40}", whole["uid"]), "Grafana rejects others"
    for panel in panels():
        assert {"title", "description", "fieldConfig", "options"} <= panel.keys()
        assert all(target["expr"] for target in panel["targets"])


def test_the_dashboard_is_found_where_compose_puts_it() -> None:
    (provider,) = read(PROVISIONING / "dashboards" / "lossguard.yml")["providers"]
    mounts = read(DEPLOY.parent / "docker-compose.yml")["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in mounts
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in mounts


def test_panels_have_unique_ids_and_do_not_overlap() -> None:
    whole = dashboard()
    assert len({panel["id"] for panel in whole["panels"]}) == len(whole["panels"])
    assert {panel["type"] for panel in whole["panels"]} == set(TYPES)
    taken: set[tuple[int, int]] = set()
    for panel in whole["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        taken |= cells
    for panel in panels():
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


@pytest.mark.needs("prometheus")
def test_prometheus_can_parse_every_query() -> None:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    queries += [one["expr"] for one in dashboard()["annotations"]["list"]]
    variables = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert set(re.findall(r"\$(\w+)", " ".join(queries))) <= variables
    rules = {"groups": [{"name": "g", "rules": [{"record": f"q{at}", "expr": q} for at, q in enumerate(queries)]}]}
    command = ["promtool", "check", "rules", "/dev/stdin"]
    done = subprocess.run(command, input=json.dumps(rules), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
