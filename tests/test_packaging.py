"""The wheel of the SDK for a training environment, that of the server for one of its own, and both at work."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from packaging.metadata import Metadata
from packaging.requirements import Requirement

from lossguard import Client
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parent.parent
PROJECTS = (ROOT, ROOT / "deploy" / "server")
SERVER_PACKAGES = {"lossguard_server", "monitor", "db", "dashboard", "trainer"}
TRAINING = ROOT / "tests" / "floats_loop.py"
SDK_ALONE = """
import sys
for name in ("torch", "numpy", "pandas", "sqlalchemy", "fastapi"):
    sys.modules[name] = None  # importing it raises
import lossguard
with lossguard.init("p", directory=sys.argv[1], mode="offline") as run:
    run.log(0, loss=1.0)
"""


def build(project: Path, out: Path) -> None:
    """An sdist, and the wheel from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(project)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def metadata_of(wheel: Path) -> Metadata:
    """Raises ExceptionGroup for a field that an index would refuse."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name), validate=True)


class Wheels:
    """What `make dist` builds: each wheel from its sdist."""

    def __init__(self, folder: Path) -> None:
        for project in PROJECTS:
            build(project, folder)
        (self.sdk,) = folder.glob("lossguard-*.whl")
        (self.server,) = folder.glob("lossguard_server-*.whl")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    return Wheels(tmp_path_factory.mktemp("dist"))


def packages_in(wheel: Path) -> set[str]:
    names = zipfile.ZipFile(wheel).namelist()
    return {name.split("/")[0] for name in names if ".dist-info/" not in name}


@pytest.mark.slow(4)
def test_each_wheel_holds_its_own_packages_with_all_their_files(wheels: Wheels) -> None:
    assert packages_in(wheels.sdk) == {"lossguard"}
    assert packages_in(wheels.server) == SERVER_PACKAGES
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for wheel in (wheels.sdk, wheels.server):
        packages = packages_in(wheel)
        expected = {name for name in tracked if name.split("/")[0] in packages}
        assert expected <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow(1)
def test_the_server_needs_the_sdk_of_its_own_version(wheels: Wheels) -> None:
    sdk, server = metadata_of(wheels.sdk), metadata_of(wheels.server)
    assert sdk.version == server.version
    assert f"lossguard=={sdk.version}" in map(str, server.requires_dist or [])
    assert [str(each) for each in sdk.requires_dist or [] if each.marker is None] == ["urllib3>=2.2"]
    for each in (sdk, server):
        assert (each.license_expression, each.description_content_type) == ("Apache-2.0", "text/markdown")
        assert each.description


def test_both_distributions_have_the_same_licence() -> None:
    first, second = ((project / "LICENSE").read_text(encoding="utf-8") for project in PROJECTS)
    assert first == second


@pytest.mark.system
def test_a_second_build_gives_the_same_bytes(wheels: Wheels, tmp_path: Path) -> None:
    build(PROJECTS[1], tmp_path)
    first = {path.name: path.read_bytes() for path in wheels.server.parent.glob("lossguard_server-*")}
    assert len(first) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_the_sdk_runs_with_the_standard_library_and_urllib3_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SDK_ALONE, str(tmp_path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*.spool"))


class Installed:
    """An environment with wheels of ours, and of other packages exactly those that they require.

    These are links into the environment of the tests, so that nothing is downloaded.
    """

    def __init__(self, folder: Path, *wheels: Path) -> None:
        venv.create(folder, symlinks=True)
        self.programs = folder / "bin"
        (self._site,) = folder.glob("lib/python*/site-packages")
        install = [sys.executable, "-m", "pip", "--python", str(self.programs / "python"), "install", "--quiet"]
        subprocess.run([*install, "--no-deps", "--no-index", *map(str, wheels)], check=True)
        self._linked: set[tuple[str, str]] = set()
        for wheel in wheels:
            self._link(metadata_of(wheel).requires_dist or [], extra="")

    def _link(self, requirements: Iterable[Requirement], extra: str) -> None:
        for one in requirements:
            needed = one.marker is None or one.marker.evaluate({"extra": extra})
            for inner in ("", *one.extras) if needed and not one.name.startswith("lossguard") else ():
                if (one.name, inner) not in self._linked:
                    self._linked.add((one.name, inner))
                    self._link_one(importlib.metadata.distribution(one.name))
                    self._link(map(Requirement, importlib.metadata.requires(one.name) or []), inner)

    def _link_one(self, distribution: importlib.metadata.Distribution) -> None:
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (self._site / top).exists():
                (self._site / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())

    def origins(self, packages: Iterable[str]) -> set[str]:
        """The folders that these packages would be imported from."""
        code = "import sys; from importlib.util import find_spec; print([find_spec(n).origin for n in sys.argv[1:]])"
        found = subprocess.check_output([self.programs / "python", "-I", "-c", code, *packages], text=True)
        return {str(Path(origin).parents[1]) for origin in eval(found)}

    @property
    def site(self) -> str:
        return str(self._site)


def user_repository(folder: Path) -> dict[str, str]:
    """A folder with a loop, and modules that are called like ours; the environment of somebody who works in it."""
    folder.mkdir()
    shutil.copy(TRAINING, folder / "train.py")
    for name in ("db", "trainer", "monitor"):
        (folder / f"{name}.py").write_text("raise SystemExit('this is the module of the user')")
    return {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "PYTHONPATH": str(folder)}


@pytest.mark.slow(15)
def test_a_spike_is_detected_rolled_back_and_verified_with_the_two_wheels_alone(wheels: Wheels, tmp_path: Path) -> None:
    server = Installed(tmp_path / "server", wheels.server, wheels.sdk)
    training = Installed(tmp_path / "training", wheels.sdk)
    assert server.origins({*SERVER_PACKAGES, "lossguard"}) == {server.site}
    assert training.origins(["lossguard"]) == {training.site}

    repository = tmp_path / "repository"
    environment = user_repository(repository)
    command = str(server.programs / "lossguard-server")
    collector, dashboard = free_port(), free_port()
    url = f"http://127.0.0.1:{collector}"

    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environ = environment | more
        return subprocess.run(arguments, cwd=repository, env=environ, capture_output=True, text=True, check=False)

    options = ["--collector-port", str(collector), "--dashboard-port", str(dashboard)]
    with started([command, *options], repository, environment) as running:
        assert running.stdout is not None
        assert url in running.stdout.readline()
        trained = call(str(training.programs / "python"), "train.py", LOSSGUARD_URL=url)
        assert trained.returncode == 0, trained.stderr
        with Client(url) as client:
            wait_for(lambda: verified(client.get("/runs/floats")), seconds=60, what="a verified rollback")
            assert [(one["kind"], one["onset_step"]) for one in client.get("/runs/floats/incidents")] == [
                ("loss_spike", 300)
            ]
        for address in (f"{url}/healthz", f"http://127.0.0.1:{dashboard}/"):
            assert urllib3.request("GET", address).status == 200
        report = call(command, "report", "floats", "--output", "report.html")
        assert report.returncode == 0, report.stderr
        assert "floats" in (repository / "report.html").read_text(encoding="utf-8")
        assert call(command, "db", "check").returncode == 0
        missing = call(command, "db", "check", "--url", "sqlite:///none.db")
        assert "to create it, run: lossguard-server db upgrade" in missing.stderr
        replay = call(command, "replay", "floats/1")
        assert (replay.returncode, replay.stderr.count("\n")) == (2, 1)
        assert "pipx install --force 'lossguard-server[replay]'" in replay.stderr
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0


@contextmanager
def started(command: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block."""
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.terminate()


def verified(run: Mapping[str, Any]) -> bool:
    return [one["state"] for one in run["interventions"]] == ["verified"]
