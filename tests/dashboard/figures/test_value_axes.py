"""What a viewer chooses for the value axes."""

from dashboard.axes import AxisChoices, Scale


def test_a_choice_for_one_metric_leaves_the_others_and_replaces_its_own() -> None:
    choices = AxisChoices(log=frozenset({"loss", "lr"}), fit_all=frozenset({"lr"}))
    changed = choices.changed("loss", Scale.LINEAR, fit_all=True)
    assert [changed.scale(metric) for metric in ("loss", "lr", "log_z")] == [Scale.LINEAR, Scale.LOG, Scale.AUTO]
    assert changed.fit_all == {"loss", "lr"}
    assert changed.changed("loss", Scale.AUTO, fit_all=False) == AxisChoices(
        log=frozenset({"lr"}), fit_all=frozenset({"lr"})
    )


def test_choices_for_metrics_that_are_not_drawn_are_left_out() -> None:
    choices = AxisChoices(log=frozenset({"loss", "lr"}), linear=frozenset({"log_z"}))
    assert choices.of(["loss"]) == AxisChoices(log=frozenset({"loss"}))
