"""Whose report is stored next: every run in turn, and the reports of a run in their order."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from monitor.ingestion.queue import MAX_GROUP_REPORTS, MAX_GROUP_STEPS, RUN_SHARE, PendingReport, WaitingReports
from monitor.schemas import ReportIn

LOOP = asyncio.new_event_loop()
SHARE = round(RUN_SHARE * MAX_GROUP_REPORTS)


def pending(run_id: str, num_steps: int = 1, *, first: int = 0, num_metrics: int = 1) -> PendingReport:
    steps = list(range(first, first + num_steps))
    metrics = {f"m{number}": [0.0] * num_steps for number in range(num_metrics)}
    report = ReportIn.model_construct(segment=0, steps=steps, times=[0.0] * num_steps, metrics=metrics)
    return PendingReport(run_id, report, None, None, asyncio.Future(loop=LOOP))


def waiting(*reports: PendingReport) -> WaitingReports:
    found = WaitingReports()
    for one in reports:
        found.add(one)
    return found


def runs(group: list[PendingReport]) -> Counter[str]:
    return Counter(one.run_id for one in group)


def test_a_run_with_many_reports_gives_its_share_while_others_wait() -> None:
    reports = waiting(*(pending("noisy", first=step) for step in range(300)), pending("quiet"))
    assert runs(reports.next_group()) == {"noisy": SHARE, "quiet": 1}
    assert runs(reports.next_group()) == {"noisy": MAX_GROUP_REPORTS}, "alone, it has all of it"


def test_the_share_of_a_run_is_one_of_steps_too_and_steps_with_many_metrics_count_more() -> None:
    for report in ({"num_steps": 1_000}, {"num_steps": 100, "num_metrics": 80}):
        reports = waiting(*(pending("noisy", **report) for _ in range(10)), pending("quiet"), pending("quiet"))
        assert runs(reports.next_group()) == {"noisy": 2, "quiet": 2}


def test_a_run_that_was_left_out_is_the_first_of_the_next_group() -> None:
    full = [pending(f"r{number:03}") for number in range(MAX_GROUP_REPORTS)]
    reports = waiting(*full, pending("late"))
    for one in full:
        reports.add(pending(one.run_id, first=1))
    assert "late" not in runs(reports.next_group())
    assert "late" in runs(reports.next_group())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, MAX_GROUP_STEPS)), max_size=60))
def test_every_report_is_taken_once_and_those_of_a_run_in_their_order(sent: list[tuple[str, int]]) -> None:
    reports = waiting(*(pending(run, steps, first=number) for number, (run, steps) in enumerate(sent)))
    taken: dict[str, list[int]] = {}
    while group := reports.next_group():
        for one in group:
            assert isinstance(one.report, ReportIn)
            taken.setdefault(one.run_id, []).append(one.report.steps[0])
    assert taken == {
        run: [number for number, (sender, _) in enumerate(sent) if sender == run] for run, _ in dict(sent).items()
    }
