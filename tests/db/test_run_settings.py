"""The rows that a search of runs compares."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db import commands, run_settings
from db.models import Run, RunSetting
from lossguard.vocabulary.protocol import checked_json
from tests.db.seed import NOW, add_run


def test_a_section_is_no_setting_except_an_empty_one_and_those_in_lists_have_the_path_of_the_list() -> None:
    lists: dict[str, Any] = {"groups": [{"lr": 1}, {"lr": 2}, 3, [4]], "none": []}
    config = {**lists, "loss": {"kind": "ce"}, "loss.kind": "mse", "empty": {}}
    assert run_settings.settings(config) == {
        "groups": [3, 4],
        "groups.lr": [1, 2],
        "loss.kind": ["ce", "mse"],
        "none": [],
        "empty": [{}],
    }


def test_the_rows_of_a_run_follow_its_configuration_tags_and_devices(session: Session, run: Run) -> None:
    def rows() -> list[tuple[str, str, int, str | None, float | None]]:
        columns = (RunSetting.key, RunSetting.name, RunSetting.position, RunSetting.text, RunSetting.number)
        return [tuple(row) for row in session.execute(sa.select(*columns).order_by(*columns))]  # type: ignore[misc]

    assert rows() == [("device", "device", 0, "cpu", None), ("lr", "config.lr", 0, None, 1e-3)]
    config = {"on": True, "off": None, "name": "Ädam", "huge": 10**400, "empty": [], "tags": ["a", "b"]}
    add_run(session, "r1", config=config, devices=["gpu"])
    assert rows() == [
        ("device", "device", 0, "gpu", None),
        ("empty", "config.empty", 0, None, None),
        ("huge", "config.huge", 0, str(10**400), None),
        ("name", "config.name", 0, "Ädam", None),
        ("off", "config.off", 0, "null", None),
        ("on", "config.on", 0, "true", None),
        ("tag", "tag", 0, "a", None),
        ("tag", "tag", 1, "b", None),
        ("tags", "config.tags", 0, "a", None),
        ("tags", "config.tags", 1, "b", None),
    ]
    commands.delete_run(session, run=run)
    assert rows() == []


def test_the_largest_configuration_has_rows_on_every_database(engine: sa.Engine) -> None:
    deep: dict[str, Any] = {"x" * 300: "y" * 10_000, "last": 1}
    for _ in range(13):
        deep = {"part": deep}
    wide = {f"name{number}": number for number in range(9_000)}
    with Session(engine) as session:
        add_run(session, config=checked_json({"deep": deep, "wide": wide}), started_at=NOW)
        num_rows = session.scalar(sa.select(sa.func.count()).select_from(RunSetting))
        assert num_rows == 2 + len(wide)
