"""How far a run is."""

from dashboard.data.facts import progress
from db.models import Run
from db.runs.overview import StepTime


def steps(*numbers: int) -> list[StepTime]:
    return [StepTime(step=number, time=2.0 * number) for number in numbers]


def test_time_left_is_steps_left_times_the_pace_of_the_newest_steps() -> None:
    now = progress(Run(total_steps=100), steps(10, 11, 19))
    assert (now.done, now.seconds_per_step, now.fraction, now.seconds_left) == (20, 2.0, 0.2, 160.0)


def test_a_clock_that_went_back_gives_no_pace() -> None:
    back = progress(Run(total_steps=100), [StepTime(step=0, time=9.0), StepTime(step=1, time=8.0)])
    assert (back.seconds_per_step, back.seconds_left) == (None, None)
