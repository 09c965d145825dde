"""A metric of runs as text is what prometheus_client writes of the same samples."""

import math

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from monitor.telemetry.run_family import FamilyType, RunFamily, label, run_labels


def test_lines_are_those_of_prometheus_client() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("lossguard_x", "Of a \\ and\na line", ["run", "project", "state", "kind"], registry=registry)
    values = {"r1": 1.5, 'r"2': 1e-5, "r\\3": 1234567.0, "r4": math.nan, "r5": math.inf, "r6": 12345678901234567890.0}
    for run, value in values.items():
        gauge.labels(run, "p ä", "open", "k").set(value)
    family = RunFamily("lossguard_x", "Of a \\ and\na line", FamilyType.GAUGE)
    before, after = f"{label('kind', 'k')},", f",{label('state', 'open')}"
    text = family.text((run_labels(run, "p ä"), [(before, after, value)]) for run, value in values.items())
    assert text == generate_latest(registry).decode()
    plain = family.plain_text([(run_labels("r", "p"), 2.0), (run_labels("s", "p"), None)])
    assert plain.splitlines()[2:] == ['lossguard_x{project="p",run="r"} 2.0']


def test_what_changed_is_written_anew_and_a_run_that_is_gone_is_left_out() -> None:
    family = RunFamily("lossguard_y", "y", FamilyType.COUNTER)
    for shown, lines in (
        ({"a": 0.0, "b": 0.0}, ['{project="p",run="a"} 0.0', '{project="p",run="b"} 0.0']),
        ({"a": 1.0, "b": 0.0}, ['{project="p",run="a"} 1.0', '{project="p",run="b"} 0.0']),
        ({"b": 0.0}, ['{project="p",run="b"} 0.0']),
    ):
        text = family.text((run_labels(run, "p"), [("", "", value)]) for run, value in shown.items())
        assert text.splitlines() == [
            "# HELP lossguard_y_total y",
            "# TYPE lossguard_y_total counter",
            *(f"lossguard_y_total{line}" for line in lines),
        ]
