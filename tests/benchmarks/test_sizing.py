from dataclasses import replace

import pytest

from benchmarks.sizing import Figures, described, lines, needs, scrape_interval

FIGURES = Figures(
    report_us=400.0, report_database_us=50.0, step_us=12.0, step_database_us=4.0, step_bytes=100.0, live_run_kib=64.0,
    collector_mib=150.0, collector_run_kib=100.0, scrape_run_ms=0.1, open_page_ms=3_000.0,
)  # fmt: skip


def test_cores_follow_from_the_reports_and_half_of_each_stays_free() -> None:
    need = needs(FIGURES, live_runs=1_000, steps_per_second=1.0)
    assert need.reports_per_second == 1_000
    assert need.collector_cores == pytest.approx(0.4)
    assert need.collectors == 1
    assert need.database_cores == pytest.approx(0.1)
    assert needs(FIGURES, live_runs=2_000, steps_per_second=1.0).collectors == 2


def test_a_run_sends_ten_reports_a_second_at_most_and_further_steps_in_them() -> None:
    need = needs(FIGURES, live_runs=100, steps_per_second=50.0)
    assert need.reports_per_second == pytest.approx(1_000)
    assert need.collector_cores == pytest.approx(1e-6 * (1_000 * 400 + 4_000 * 12))


def test_a_month_of_steps_fills_the_disk() -> None:
    """10 runs at 10 steps a second are 259.2 million steps in 30 days."""
    assert needs(FIGURES, live_runs=10, steps_per_second=10.0).disk_gb_month == pytest.approx(25.92)


def test_memory_has_room_and_is_never_below_what_the_docs_ask_for() -> None:
    few, many = (needs(FIGURES, live_runs=count, steps_per_second=1.0) for count in (1, 8_000))
    assert few.collector_mib == 512
    assert many.collector_mib == 2_048  # twice 150 + 8,000 x 100 / 1,024, in steps of 256
    assert few.database_gib == pytest.approx(1.0, abs=0.01)
    assert many.database_gib == pytest.approx(1.0 + 2 * 8_000 * 64 / 2**20)


@pytest.mark.parametrize(("seconds", "interval"), [(0.0, 15), (0.3, 15), (0.31, 30), (1.2, 60), (100.0, 300)])
def test_scrapes_take_a_fiftieth_of_a_core_at_most(seconds: float, interval: int) -> None:
    assert scrape_interval(seconds) == interval


def test_no_runs_need_one_collector_and_no_disk() -> None:
    need = needs(FIGURES, live_runs=0, steps_per_second=1.0)
    assert (need.collectors, need.disk_gb_month, need.scrape_seconds) == (1, 0.0, 15)


def test_negative_numbers_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="neither may be negative"):
        needs(FIGURES, live_runs=-1, steps_per_second=1.0)


def test_the_table_has_a_row_for_each_number_of_runs_and_rate() -> None:
    table = list(lines(FIGURES, one_writer=False))
    assert len(table) == 2 + 6
    assert all(line.count("|") == table[0].count("|") for line in table)
    assert table[4].startswith("| 1,000, 1 | 1,000 | 1 (0.40) | 512 MiB |")


def test_what_one_writer_cannot_carry_is_said() -> None:
    *_, most = lines(FIGURES, one_writer=True)
    assert "too much for SQLite (4.00)" in most


def test_a_dashboard_that_was_not_measured_is_no_number() -> None:
    figures = replace(FIGURES, open_page_ms=None)
    assert needs(figures, live_runs=10, steps_per_second=1.0).pages_per_core is None
    assert "not measured" in list(lines(figures, one_writer=False))[2]
    assert "open_page_ms" not in described(figures)
