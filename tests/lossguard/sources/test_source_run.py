from dataclasses import replace

from lossguard.sources.source_run import SourceRun, run_id_of
from lossguard.vocabulary.protocol import is_run_id


def test_the_id_follows_from_the_identity_and_begins_with_the_name() -> None:
    run = SourceRun(format="csv", identity="/a", name="runs/my run", place="", rows=lambda: iter(()))
    assert run.run_id.startswith("runs-my-run-")
    assert run.run_id == replace(run, config={"x": 1}).run_id
    assert run.run_id != replace(run, identity="/b").run_id
    assert run.run_id != replace(run, format="jsonl").run_id


def test_every_name_makes_a_valid_id() -> None:
    for name in ("", "---", "ä/ö", "x" * 500, "\udcff\0", "."):
        assert is_run_id(run_id_of(name, "identity"))
