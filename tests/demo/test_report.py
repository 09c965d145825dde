"""The demo's report says what happened, and only that."""

from demo.report import Report

GOT_PAST = Report(
    run_id="r",
    kind="loss_spike",
    onset=320,
    detected_after=3,
    rewound_to=200,
    skip_from=200,
    skip_to=400,
    steps_lost=124,
    verified=True,
    final_step=599,
    final_loss=2.125,
)


def test_a_spike_that_was_got_past_is_described_from_onset_to_final_loss() -> None:
    assert GOT_PAST.lines() == [
        ("spike", "loss_spike, onset at step 320"),
        ("detected", "3 steps after the onset"),
        ("rewound to", "step 200"),
        ("skipped", "200 batches (200 to 399)"),
        ("steps lost", "124"),
        ("verified", "yes"),
        ("final loss", "2.1250 nats per token at step 599"),
    ]


def test_a_run_without_an_incident_says_that_nothing_was_detected() -> None:
    report = Report(
        run_id="r",
        kind=None,
        onset=None,
        detected_after=None,
        rewound_to=None,
        skip_from=None,
        skip_to=None,
        steps_lost=0,
        verified=False,
        final_step=9,
        final_loss="NaN",
    )
    assert report.lines() == [("spike", "not detected"), ("final loss", "NaN at step 9")]
