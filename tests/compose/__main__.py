"""docker-compose.yml on a real engine: built, brought up, trained against with a planted spike, broken, taken down.

    python -m tests.compose        what `make test-compose` runs: as root on Debian, about a quarter of an hour

Nothing is pulled: stand-in images from Debian's packages bear the names that the files use (stand_ins.sh), and Grafana,
which Debian does not have, is left out. Exit 0: everything held, or no engine can run here, which one sentence says; 1:
something did not hold.
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
from tests.compose.stand_ins import make_stand_ins, wheels_served


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
    print("everything held")
    return 0


def exercise(stack: Stack, folder: Path) -> None:
    with wheels_served() as wheels:
        with stage("stand-in images"):
            make_stand_ins(stack, folder, wheels)
        for service in ("migrate", "trainer"):
            with stage(f"build of {stack.services[service]['image']}"):
                stack.compose("build", service)
    tell(hardening.check_images(stack))
    try:
        tell(scenario.missing_secrets(stack))
        with stage("up and healthy"):
            stack.up()
        hardening.check_containers(stack)
        for part in (scenario.clean_run, scenario.planted_spike, scenario.broken_services, scenario.wrong_webhook):
            with stage(part.__name__.replace("_", " ")):
                tell(part(stack))
    except Failed:
        print(stack.compose("logs", "--no-color", "--tail", "10"), file=sys.stderr)
        raise
    finally:
        stack.down()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    print(f"{name} ..", flush=True)
    began = time.monotonic()
    yield
    tell({name: f"{time.monotonic() - began:.0f} s"})


def tell(figures: dict[str, str]) -> None:
    for name, figure in figures.items():
        print(f"  {name}: {figure}", flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
