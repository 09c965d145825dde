import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossguard.sources.names import NameMap
from lossguard.vocabulary.errors import ConfigurationError

NAMES = {
    "loss": (
        "loss, train/loss, lm loss, loss_metrics/global_avg_loss, train/CE loss, train/ce, train_loss_step, "
        "train_loss, Train/loss, Train/Samples/train_loss, loss/train, training_loss, train/CrossEntropyLoss, "
        "lm-loss-training/lm loss, metrics/train_loss"
    ),
    "grad_norm": (
        "grad_norm, train/grad_norm, grad-norm, train/gnorm, optim/total grad norm, optim/total_grad_norm, "
        "grad/norm/total, grad-norm/grad-norm"
    ),
    "lr": (
        "lr, learning_rate, learning-rate, train/learning_rate, lr-AdamW, lr-AdamW/pg1, optim/LR (group 0), "
        "Train/Samples/lr"
    ),
    "tokens": (
        "tokens, consumed_tokens, num_input_tokens_seen, train/num_input_tokens_seen, n_tokens_seen, "
        "throughput/total tokens, throughput/total_tokens, train/tokens_processed"
    ),
    "held_out_loss": "eval_loss, eval/loss, val/loss, val_loss, lm loss validation, validation_metrics/loss",
    "held_out_bits_per_byte": "val/bpb, eval/bpb",
    "step_seconds": "iteration-time, time_metrics/end_to_end(s), throughput/duration, train/dt",
    "z_loss": "z_loss, train/Z loss",
    "log_z": "log_z, train/logz",
    "tokens_per_second": "train/tok_per_sec, tokens_per_second, throughput/tokens_per_second",
}
OWN = (  # on another axis, of another param group or of one device, and what is counted in samples
    "lm loss vs samples, lr-AdamW/pg2, optim/LR (group 1), lm loss vs gigaflos, loss_metrics/global_max_loss, "
    "train/input_tokens, consumed_samples, train_samples_per_second, throughput(tps), test_loss, "
    "moe/load_balancing_loss, epoch"
)


@pytest.mark.parametrize("metric", NAMES)
def test_names_of_the_usual_trainers_are_known(metric: str) -> None:
    names = NAMES[metric].split(", ")
    assert {name: NameMap().metric_of(name) for name in names} == dict.fromkeys(names, metric)


def test_what_only_looks_like_a_metric_keeps_its_name() -> None:
    for name in OWN.split(", "):
        assert NameMap().metric_of(name) is None, name
        assert NameMap().mapped({name: 1.0}) == {name: 1.0}


HELD_OUT = st.sampled_from(["eval", "val", "valid", "validation", "test", "dev", "held_out", "Eval", "VAL"])


@given(
    words=st.lists(st.sampled_from(["loss", "train", "lm", "ce", "step", "epoch", "avg", "total"]), max_size=4),
    held_out=HELD_OUT,
    at=st.integers(0, 4),
    separator=st.sampled_from(["/", "_", " ", "-", "."]),
)
def test_a_loss_that_is_not_of_training_never_becomes_the_loss(
    words: list[str], held_out: str, at: int, separator: str
) -> None:
    words.insert(at, held_out)
    assert NameMap().metric_of(separator.join(words)) != "loss"


def test_of_two_names_in_a_row_the_more_specific_has_the_metric() -> None:
    names = NameMap()
    assert names.mapped({"train/loss": 2.0, "train/CE loss": 1.0}) == {"train/loss": 2.0, "loss": 1.0}
    assert names.mapped({"train/loss": 2.0}) == {"train/loss": 2.0}


def test_the_choice_stays_when_another_name_comes_later() -> None:
    names = NameMap()
    assert names.mapped({"train/loss": 2.0}) == {"loss": 2.0}
    assert names.mapped({"train/loss": 2.0, "train/CE loss": 1.0}) == {"loss": 2.0, "train/CE loss": 1.0}


def test_the_mean_of_a_whole_run_is_not_its_loss_beside_the_rows() -> None:
    names = NameMap()
    assert names.mapped({"train/loss": 2.0}) == {"loss": 2.0}
    assert names.mapped({"train/train_loss": 2.5}) == {"train/train_loss": 2.5}  # Hugging Face, at the end


def test_the_mean_of_an_epoch_gives_way_to_values_per_step() -> None:
    names = NameMap()
    assert names.mapped({"train_loss_epoch": 3.0}) == {"loss": 3.0}
    assert names.mapped({"train_loss_step": 2.0}) == {"loss": 2.0}
    assert names.mapped({"train_loss_epoch": 3.0}) == {"train_loss_epoch": 3.0}


def test_a_name_that_lost_its_metric_is_not_mistaken_for_it() -> None:
    names = NameMap({"loss": "train/ce"})
    assert names.mapped({"loss": 9.0, "train/ce": 1.0}) == {"logged/loss": 9.0, "loss": 1.0}


def test_an_override_wins_over_every_other_name() -> None:
    names = NameMap.parse(["loss=my/objective", "lr=eta"])
    assert names.mapped({"train/loss": 2.0}) == {"train/loss": 2.0}
    assert names.missing() == ["loss", "lr"]
    assert names.mapped({"my/objective": 1.0, "eta": 0.1}) == {"loss": 1.0, "lr": 0.1}
    assert names.missing() == []


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["loss"], "write metric=name"),
        (["=train/ce"], "write metric=name"),
        (["objective=train/ce"], "objective is no metric"),
        (["loss=a", "loss=b"], "loss is a already"),
        (["loss=a", "lr=a"], "two metrics"),
    ],
)
def test_an_override_that_means_nothing_is_refused_in_one_sentence(texts: list[str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        NameMap.parse(texts)


@given(st.dictionaries(st.text(min_size=1), st.floats(), max_size=8))
def test_no_value_is_lost_whatever_the_names(values: dict[str, float]) -> None:
    assert len(NameMap().mapped(values)) == len(values)


def test_a_name_that_has_lost_its_metric_is_no_missing_one() -> None:
    names = NameMap({"tokens": "n"})
    names.mapped({"n": 1.0})
    names.release("tokens")
    assert (names.missing(), names.target_of("n")) == ([], "n")


@pytest.mark.parametrize(
    ("before", "after", "target"),
    [({}, {}, "consumed"), ({}, {"tokens": "consumed"}, "tokens"), ({"tokens": "consumed"}, {}, "consumed")],
)
def test_a_metric_that_its_name_has_lost_goes_to_another_name_only_by_an_override(
    before: dict[str, str], after: dict[str, str], target: str
) -> None:
    names = NameMap(before)
    names.mapped({before.get("tokens", "num_tokens"): 1.0})
    lost = names.release("tokens")
    for overrides in (before, after):
        again = NameMap(overrides)
        again.go_on_with(names.chosen)
        assert again.target_of(lost) == lost
    assert again.target_of("consumed") == target
