import os
from contextlib import nullcontext
from pathlib import Path

import pytest

import lossguard
from tests.lossguard.collectors import FakeCollector
from tests.lossguard.recorded import offline, records, steps
from tests.waiting import eventually, wait_for


@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "finished"), (SystemExit, "finished"), (RuntimeError, "failed"), (KeyboardInterrupt, "interrupted")],
)
def test_leaving_the_block_records_how_the_run_ended_and_passes_on_what_was_raised(
    tmp_path: Path, error: type[BaseException] | None, state: str
) -> None:
    run = offline(tmp_path)
    with nullcontext() if error is None else pytest.raises(error), run:
        if error is not None:
            raise error
    assert [record["finish"] for record in records(run) if "finish" in record] == [state]


def test_a_forked_child_records_nothing(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.log(0, loss=1.0)
        child = os.fork()
        if child == 0:
            run.log(1, loss=666.0)
            run.finish()
            os._exit(0)
        os.waitpid(child, 0)
        run.log(1, loss=2.0)
    assert [metrics["loss"] for _, metrics in steps(run)] == [1.0, 2.0]


def test_what_is_known_only_later_is_added_to_the_configuration_with_secrets_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path, config={"lr": 1.0, "model": "small"}) as run:
        run.add_config({"model": {"layers": 2}, "hub_token": "hf_abcdefghijklmnopqrstuvwxyz"}, total_steps=9)
        run.add_config({"model": {"layers": 2}})
        run.add_config({"nested": {"a" * 4: object()}}, total_steps=7)
        run.add_config(3)  # type: ignore[arg-type]
        run.log(0, loss=1.0)
    first, second, third = (record["run"] for record in records(run) if "run" in record)
    assert (first["config"], first["total_steps"]) == ({"lr": 1.0, "model": "small"}, None)
    assert second["config"] == {"lr": 1.0, "model": {"layers": 2}, "hub_token": "***"}
    assert (second["total_steps"], third["total_steps"]) == (9, 7)
    with offline(tmp_path, run_id="planned", total_steps=5) as planned:
        planned.add_config({}, total_steps=9)
        assert planned.planned_steps == 5
    assert "run.add_config was ignored" in caplog.text


def test_a_run_that_ends_well_without_a_step_says_what_to_do_and_one_that_has_done_its_steps_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with offline(tmp_path, run_id="r"):
        pass
    sentence = "run r ends with 0 steps: call run.log in the loop, or attach the guard before train() or fit()"
    assert caplog.messages == [sentence]
    offline(tmp_path, run_id="failed").finish("failed")
    with offline(tmp_path, run_id="r") as run:
        run.log(0, loss=1.0)
    with offline(tmp_path, run_id="r"):
        pass
    assert caplog.messages == [sentence]


def test_the_line_at_the_start_names_the_collector(collector: FakeCollector, tmp_path: Path) -> None:
    said: list[str] = []
    with lossguard.init("p", run_id="20251130-094812-3f9a1c", url=collector.url, directory=tmp_path) as run:
        run.announce(said.append, lambda: "a checkpoint every 50 steps, 26 kept (~36.2 GiB)")
        run.announce(said.append)
        run.log(0, loss=1.0)
    start = f"watching run 20251130-094812-3f9a1c, reported to {collector.url}; "
    assert said == [f"{start}a checkpoint every 50 steps, 26 kept (~36.2 GiB)", f"{start}it is never rolled back"]
    assert len(said[0].replace(collector.url, "http://127.0.0.1:8000")) <= 120


def test_the_limits_of_a_run_are_one_of_its_capabilities(tmp_path: Path) -> None:
    with offline(tmp_path) as run:
        run.can_roll_back()
        for limits in ("max_depth=3", "max_depth=2", "max_depth=2", ""):
            run.has_limits(limits)
    reported = [line["run"]["capabilities"] for line in records(run) if "run" in line]
    assert reported == [
        [],
        ["rollback"],
        ["rollback", "limits:max_depth=3"],
        ["rollback", "limits:max_depth=2"],
        ["rollback"],
    ]


@pytest.mark.slow
def test_a_run_that_lost_its_guard_withdraws_its_capability_and_refuses_what_is_open_and_what_comes(
    collector: FakeCollector, tmp_path: Path
) -> None:
    with lossguard.init("p", run_id="r", url=collector.url, directory=tmp_path) as run:
        run.can_roll_back()
        run.answers_questions()
        run.log(0, loss=1.0)
        collector.order(id=1, key="k1", kind="hold")
        taken = eventually(run.take_order)
        collector.order(id=2, key="k2", kind="hold")
        run.log(1, loss=1.0)
        run.cannot_roll_back("the guard has failed (KeyError: 'x')")
        collector.order(id=3, key="k3", kind="hold")
        wait_for(lambda: len(collector.answers) == 3, seconds=60, what="three answers")
        assert taken is not None
        assert {(each["state"], each["detail"], each["refusal"]) for each in collector.answers.values()} == {
            ("failed", "the guard has failed (KeyError: 'x')", "observes")
        }
        assert collector.runs["r"]["capabilities"] == ["no-rollback:the guard has failed (KeyError: 'x')"]
        run.cannot_roll_back("é" * 1000)
        run.can_roll_back()
    assert collector.runs["r"]["capabilities"] == ["rollback"]
    registered = [line["run"]["capabilities"] for line in records(run) if "run" in line]
    assert [len(each[0]) for each in registered[-3:]] == [48, 256, 8]
