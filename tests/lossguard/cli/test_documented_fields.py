"""The JSON of the commands has the fields that docs/reference/json.md lists, and no other."""

import json
import re
from pathlib import Path

import pytest

from lossguard import Client
from lossguard.cli.arguments import MODULE_OF
from lossguard.cli.errors import ExitCode
from tests.lossguard.cli.calls import Cli
from tests.lossguard.cli.small_runs import trained
from tests.lossguard.collectors import FakeCollector

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")


def documented(heading: str) -> list[set[str]]:
    """The fields of each row of the table below a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    return [set(re.findall(r"`(\w+)`", row)) for row in rows]


def fields(heading: str) -> set[str]:
    return set().union(*documented(heading))


def parts(heading: str, row: str) -> set[str]:
    """The names in the meaning of one field: those of the objects in a list."""
    (found,) = re.findall(rf"^\| `{row}` \| (.*) \|$", PAGE.split(f"\n## {heading}\n")[1], re.MULTILINE)[:1]
    return set(re.findall(r"`(\w+)`", found))


def test_the_fields_of_each_command_are_those_of_the_page(collector_client: Client, tmp_path: Path, cli: Cli) -> None:
    run = trained(collector_client, "r", 100)
    run.report(100, [float("nan")])
    assert cli.json("runs")[0].keys() == fields("`runs`")
    shown = cli.json("show", "r")
    assert shown.keys() == fields("`show`")
    assert shown["incidents"][0].keys() == cli.json("incidents", "r")[0].keys() == fields("`incidents`")
    assert shown["interventions"][0].keys() == fields("An intervention")
    (series,) = cli.json("series", "r", "loss")
    assert (series.keys(), series["buckets"][0].keys()) == (fields("`series`"), parts("`series`", "buckets"))
    policy = cli.json("policy", "r")
    assert policy.keys() == fields("`policy`")
    assert policy["values"][0].keys() == {"name", "value", "from", "part"} <= parts("`policy`", "values")
    assert cli.json("policy", "explain", "r")[0].keys() == fields("`policy explain`")
    held = cli.json("hold", "r")
    assert held.keys() == fields("`rollback`, `hold`, `release`")
    assert held["intervention"].keys() == fields("An intervention")
    assert cli.json("note", "r", "look").keys() == fields("`note`")
    assert cli.json("export", "r", "-o", str(tmp_path / "r.csv")).keys() == fields("`export`")
    doctor = cli.json("doctor", "--directory", str(tmp_path))
    assert doctor.keys() == fields("`doctor`")
    assert doctor["settings"][0].keys() == parts("`doctor`", "settings")
    assert doctor["checks"][0].keys() == {"check", "state", "sentence", "mend"} <= parts("`doctor`", "checks")
    assert json.loads(cli.fails(3, "show", "nope", "--json")).keys() == fields("An error")
    run.finish()
    lines = [json.loads(line) for line in cli("tail", "r", "--last", "1", "--json").splitlines()]
    assert {line["event"] for line in lines} == {"state", "incident", "intervention", "step"}
    for line in lines:
        assert line.keys() - {"event"} in documented("`tail`")


def test_the_fields_of_what_delivers_and_imports_are_those_of_the_page(
    collector: FakeCollector, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    spools = str(tmp_path / "spools")
    monkeypatch.setenv("LOSSGUARD_URL", collector.url)
    (tmp_path / "old.csv").write_text("step,loss\n0,2.0\n1,1.9\n")
    for command, arguments in (("import", [str(tmp_path / "old.csv"), "--directory", spools]), ("sync", [spools])):
        done = cli.json(command, *arguments)
        assert (done.keys(), done["runs"][0].keys()) == (fields(f"`{command}`"), parts(f"`{command}`", "runs"))
    assert cli.json("trim", spools).keys() | cli.json("trim", spools, "--restore").keys() == fields("`trim`")


def test_the_page_has_every_command_and_every_exit_code() -> None:
    page = (DOCS / "terminal.md").read_text(encoding="utf-8")
    table = page.split("\n## Which run\n")[0]
    assert [name for name in MODULE_OF if not re.search(rf"^\|.*`{name}[` ]", table, re.MULTILINE)] == []
    codes = page.split("\n## Exit codes\n")[1].split("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", codes, re.MULTILINE)] == list(ExitCode)
