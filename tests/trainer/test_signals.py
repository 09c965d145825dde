import os
import signal

from trainer.signals import noted_signals


def test_the_first_signal_is_known_whoever_handles_it() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None), signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        with noted_signals() as first_signal:
            assert first_signal() is None
            os.kill(os.getpid(), signal.SIGUSR2)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert first_signal() == first_signal() == signal.SIGUSR2
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
