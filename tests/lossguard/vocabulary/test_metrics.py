"""What the registry says of metrics that are one series of several."""

from lossguard.vocabulary import metrics


def test_a_series_of_a_family_is_named_after_it() -> None:
    assert metrics.title("source_loss/web") == "Loss of web (nats per token)"
    assert metrics.short_name("layer_grad_norm/blocks 0-3") == "grad norm of blocks 0-3"
    assert metrics.title("source_loss/") == metrics.short_name("source_loss/") == "source_loss/"


def test_the_detection_reads_advisory_signals_of_the_runs_that_report_them() -> None:
    reported = ["loss", "source_loss/web", "accuracy", "update_norm"]
    assert metrics.detector_inputs(reported) == [*metrics.DETECTOR_INPUTS, "source_loss/web", "update_norm"]
    assert not metrics.is_advisory("loss")
    assert not metrics.is_advisory("source_loss/")


def test_a_name_that_an_incident_has_no_room_for_is_stored_and_not_judged() -> None:
    name = "source_loss/" + "x" * metrics.MAX_SIGNAL_NAME
    assert not metrics.is_advisory(name)
    assert metrics.is_advisory(name[: metrics.MAX_SIGNAL_NAME])
