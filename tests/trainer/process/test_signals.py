"""Signals that a run reports where it is asked for them."""

from pathlib import Path

import pytest

from tests.trainer.small import logged, small_recipe
from trainer.errors import UsageError
from trainer.process.signals import ATTENTION_EVERY, SIGNALS, parse_signals
from trainer.train import Job, train


def test_names_are_read_from_a_list_and_an_unknown_one_is_refused() -> None:
    assert parse_signals("") == ()
    assert parse_signals("update_norm, attention") == ("update_norm", "attention")
    with pytest.raises(UsageError, match=r"--signals 'loss': 'loss' is none of update_norm, layer_norms, attention\."):
        parse_signals("loss")


@pytest.mark.slow
def test_a_run_reports_them_beside_the_same_training(tmp_path: Path) -> None:
    for name, signals in (("plain", ()), ("with", SIGNALS)):
        recipe = small_recipe(tmp_path, steps=ATTENTION_EVERY + 2)
        train(recipe, Job(directory=tmp_path, run_id=name, mode="offline", signals=signals, quiet=True))
    plain, measured = logged(tmp_path, "plain"), logged(tmp_path, "with")
    assert [each["loss"] for each in plain.values()] == [each["loss"] for each in measured.values()]
    assert [step for step, row in measured.items() if "attention_logit_max" in row] == [0, ATTENTION_EVERY]
    assert all(0 < row["update_norm"] < 1 for row in measured.values())
    groups = [name for name in measured[1] if name.startswith("layer_grad_norm/")]
    assert {"layer_grad_norm/embedding", "layer_grad_norm/norm"} < set(groups)
    whole = sum(measured[1][name] ** 2 for name in groups) ** 0.5
    assert whole == pytest.approx(measured[1]["grad_norm"], rel=1e-4)
    assert not any(name in plain[1] for name in ("update_norm", *groups))
