import os
import signal

import pytest

from lossguard import Guard
from tests.lossguard.scripted import Indices, Memory, ScriptedRun


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    run, checkpoints = ScriptedRun(), Memory([])
    guard = Guard(run, checkpoints=checkpoints)
    finished = []
    for step, _ in guard.steps(Indices(), 100):
        if step == 3:
            os.kill(os.getpid(), number)
        finished.append(step)
    assert finished == [0, 1, 2, 3]
    assert checkpoints.steps() == [0, 4]
    assert guard.interrupted
    assert guard.interrupted_by is number
    assert run.interrupted
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_is_a_keyboard_interrupt_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)

    def loop() -> None:
        for _ in Guard(ScriptedRun(), checkpoints=Memory([])).steps(Indices(), 100):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert signal.getsignal(signal.SIGINT) is before
