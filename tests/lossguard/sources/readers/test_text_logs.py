from pathlib import Path

from lossguard.sources.joining import Joiner
from lossguard.sources.names import NameMap
from lossguard.sources.readers.printed_lines import own_pattern
from lossguard.sources.readers.text_logs import follow, places_in, runs_in

NANOCHAT = (
    b"step 00500/05568 (8.98%) | loss: 10.397663 | lrm: 0.03 | dt: 77971.27ms | tok/sec: 13,448 | bf16_mfu: 2.57 |"
    b" epoch: 1 pq: 0 rg: 8 | total time: 0.00m"
)


def test_a_log_is_a_run_and_says_what_its_loss_is(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing of the kind")
    (tmp_path / "image.log").write_bytes(b"\x89PNG\0\0" + NANOCHAT)
    (tmp_path / "speedrun.log").write_bytes(b"a banner\n" + NANOCHAT + b"\n" + NANOCHAT[:60])
    (run,) = runs_in(tmp_path)
    assert (run.name, run.config, run.facts.smoothing) == ("speedrun", {"trainer": "nanochat"}, 0.9)
    assert [row.step for row in run.rows()] == [500]


def test_a_log_that_no_trainer_printed_is_read_by_the_users_own_pattern(tmp_path: Path) -> None:
    own = own_pattern(r"at (?P<step>\d+) ce (?P<train_ce>\S+)", NameMap())
    path = tmp_path / "train.anything"
    path.write_text("a banner\nat 3 ce 2.5\nat 4 ce 2.25\n")
    assert list(runs_in(path)) == []
    assert list(places_in(path, own)) == [path]
    (run,) = runs_in(path, own)
    assert run.config == {"pattern": r"at (?P<step>\d+) ce (?P<train_ce>\S+)"}
    assert [(row.step, row.values) for row in run.rows()] == [(3, {"train_ce": 2.5}), (4, {"train_ce": 2.25})]


def test_a_first_row_may_come_after_a_long_banner(tmp_path: Path) -> None:
    (tmp_path / "late.log").write_bytes(b"a launcher's configuration\n" * 10_000 + NANOCHAT + b"\n")
    assert [run.name for run in runs_in(tmp_path)] == ["late"]


def test_a_log_without_a_row_since_it_was_rotated_is_followed_by_the_rows_before(tmp_path: Path) -> None:
    (tmp_path / "train.log").touch()
    assert list(places_in(tmp_path)) == []
    (tmp_path / "train.log.1").write_bytes(NANOCHAT + b"\n")
    assert list(places_in(tmp_path)) == [tmp_path / "train.log"]
    follower = follow(tmp_path / "train.log", Joiner(NameMap()))
    assert follower.facts.smoothing == 0.9
    follower.close()
    assert list(runs_in(tmp_path)) == []
