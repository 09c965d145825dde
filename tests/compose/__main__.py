"""Tests docker-compose.yml on a real engine: build, start, train with an injected spike, break services, stop.

    python -m tests.compose        the command of `make test-compose`: as root on Debian, about 15 minutes

Nothing is pulled: stand-in images from Debian's packages carry the names that the files use (stand_ins.sh). Grafana,
which Debian does not package, is omitted. Exit codes: 0 if every check passed, or if no engine can run here (one
sentence says why); 1 if a check failed.
"""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.compose import hardening, scenario
from tests.compose.engine import NoEngine, engine
from tests.compose.stack import Failed, Stack
from tests.compose.stand_ins import cpu_wheel, make_stand_ins, wheels_served


def main() -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="lossguard-compose-"))
    try:
        with engine(folder) as environment:
            exercise(Stack(environment, folder), folder)
    except NoEngine as reason:
        print(f"skipped: no engine can run here: {reason}")
        return 0
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder)
    print("every check passed")
    return 0


def exercise(stack: Stack, folder: Path) -> None:
    with wheels_served() as wheels:
        with stage("stand-in images"):
            make_stand_ins(stack, folder, wheels)
        for service in ("migrate", "trainer"):
            with stage(f"build of {stack.services[service]['image']}"):
                stack.compose("build", service, **cpu_wheel())
    print_figures(hardening.check_images(stack))
    try:
        print_figures(scenario.missing_secrets(stack))
        with stage("up and healthy"):
            stack.up()
        hardening.check_containers(stack)
        for part in (scenario.clean_run, scenario.injected_spike, scenario.broken_services, scenario.wrong_webhook):
            with stage(part.__name__.replace("_", " ")):
                print_figures(part(stack))
    except Failed:
        print(stack.compose("logs", "--no-color", "--tail", "10"), file=sys.stderr)
        raise
    finally:
        stack.down()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print what is being done, and how long it took."""
    print(f"{name} ..", flush=True)
    began = time.monotonic()
    yield
    print_figures({name: f"{time.monotonic() - began:.0f} s"})


def print_figures(figures: dict[str, str]) -> None:
    for name, figure in figures.items():
        print(f"  {name}: {figure}", flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
