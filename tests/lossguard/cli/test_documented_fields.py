"""The JSON of the commands has the fields that docs/reference/json.md lists, and no other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lossguard import Client
from lossguard.__main__ import main
from lossguard.cli.arguments import MODULE_OF
from lossguard.cli.errors import ExitCode
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


def test_the_fields_of_each_command_are_those_of_the_page(
    collector_client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(collector_client, "r", 100)
    run.report(100, [float("nan")])

    def printed(*arguments: str) -> Any:
        main([*arguments, "--json"])
        return json.loads(capsys.readouterr().out)

    assert printed("runs")[0].keys() == fields("`runs`")
    shown = printed("show", "r")
    assert shown.keys() == fields("`show`")
    assert shown["incidents"][0].keys() == printed("incidents", "r")[0].keys() == fields("`incidents`")
    assert shown["interventions"][0].keys() == fields("An intervention")
    (series,) = printed("series", "r", "loss")
    assert (series.keys(), series["buckets"][0].keys()) == (fields("`series`"), parts("`series`", "buckets"))
    policy = printed("policy", "r")
    assert policy.keys() == fields("`policy`")
    assert policy["values"][0].keys() == {"name", "value", "from", "part"} <= parts("`policy`", "values")
    assert printed("policy", "explain", "r")[0].keys() == fields("`policy explain`")
    held = printed("hold", "r")
    assert (held.keys(), held["intervention"].keys()) == (
        fields("`rollback`, `hold`, `release`"),
        fields("An intervention"),
    )
    assert printed("note", "r", "look").keys() == fields("`note`")
    assert printed("export", "r", "-o", str(tmp_path / "r.csv")).keys() == fields("`export`")
    doctor = printed("doctor", "--directory", str(tmp_path))
    assert doctor.keys() == fields("`doctor`")
    assert doctor["settings"][0].keys() == parts("`doctor`", "settings")
    assert doctor["checks"][0].keys() == {"check", "state", "sentence", "mend"} <= parts("`doctor`", "checks")
    main(["show", "nope", "--json"])
    assert json.loads(capsys.readouterr().err).keys() == fields("An error")


def test_the_lines_of_tail_are_those_of_the_page(collector_client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(collector_client, "r", 100)
    run.report(100, [float("nan")])
    run.finish()
    main(["tail", "r", "--last", "1", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} == {"state", "incident", "intervention", "step"}
    for line in lines:
        assert line.keys() - {"event"} in documented("`tail`")


def test_the_fields_of_what_delivers_and_imports_are_those_of_the_page(
    collector: FakeCollector, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSGUARD_URL", collector.url)
    (tmp_path / "old.csv").write_text("step,loss\n0,2.0\n1,1.9\n")

    def printed(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    done = printed("import", str(tmp_path / "old.csv"), "--directory", str(tmp_path / "spools"))
    assert done.keys() == fields("`import`")
    assert done["runs"][0].keys() == parts("`import`", "runs")
    done = printed("sync", str(tmp_path / "spools"))
    assert done.keys() == fields("`sync`")
    assert done["runs"][0].keys() == parts("`sync`", "runs")
    trimmed = printed("trim", str(tmp_path / "spools")).keys()
    assert trimmed | printed("trim", str(tmp_path / "spools"), "--restore").keys() == fields("`trim`")


def test_the_page_has_every_command_and_every_exit_code() -> None:
    page = (DOCS / "terminal.md").read_text(encoding="utf-8")
    table = page.split("\n## Which run\n")[0]
    assert [name for name in MODULE_OF if not re.search(rf"^\|.*`{name}[` ]", table, re.MULTILINE)] == []
    codes = page.split("\n## Exit codes\n")[1].split("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", codes, re.MULTILINE)] == list(ExitCode)
