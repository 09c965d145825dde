"""The test's own Docker engine: a child process with its own socket and folders, which leaves nothing behind.

It creates no bridge, no iptables rule and no forwarding on this machine: the compose networks and the engine's proxy
for published ports need none, and the containers need nothing from outside.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lossguard_server.processes import end, end_with_parent
from tests.waiting import pause

PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker-cli",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
}
"""The Debian package of each program."""
FLAGS = [
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-masq=false",
    "--ip-forward=false",
    "--default-ulimit=nofile=20000:20000",
]
SHARED_FOLDERS = ("/opt/containerd", "/run/containerd", "/run/docker")
"""Folders that the engine creates outside its own."""
START_SECONDS = 30.0
"""The engine must answer within this time."""


class NoEngine(Exception):
    """No engine can run here; the message says why, in one sentence."""


@contextmanager
def engine(folder: Path) -> Iterator[dict[str, str]]:
    """Run an engine for the block; the environment with which docker and docker-compose use it. Raises NoEngine."""
    if os.geteuid() != 0:
        raise NoEngine("only root can run its own engine")
    _install_programs()
    foreign = [Path(place) for place in SHARED_FOLDERS if not Path(place).exists()]
    group = folder.name
    environment = {"DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_BUILDKIT": "0"}
    process = _start(folder, group)
    try:
        _wait_until_up(process, environment, folder / "dockerd.log")
        yield environment
    finally:
        end("Docker engine", process, timeout=60.0)
        _clear_mounts(folder)
        _clear_groups(group)
        for place in foreign:
            shutil.rmtree(place, ignore_errors=True)


def _install_programs() -> None:
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise NoEngine(f"{', '.join(missing)} must be installed, and this is not Debian")
    print(f"installing {', '.join(missing)}")
    quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=quietly, check=False, capture_output=True)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    done = subprocess.run(command, env=quietly, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoEngine(f"apt-get cannot install {', '.join(missing)}: {_last_line(done.stderr)}")


def _start(folder: Path, group: str) -> subprocess.Popen[bytes]:
    (folder / "daemon.json").write_text("{}")  # ignores the configuration of this machine
    own = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
    places = [f"--{flag}={folder / name}" for flag, name in own.items()]
    command = ["dockerd", f"--host=unix://{folder}/docker.sock", *places, f"--cgroup-parent=/{group}", *FLAGS]
    with (folder / "dockerd.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )


def _wait_until_up(process: subprocess.Popen[bytes], environment: Mapping[str, str], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        asked = subprocess.run(
            ["docker", "version"], env=os.environ | environment, check=False, capture_output=True, text=True
        )
        if asked.returncode == 0:
            return
        pause(0.2)
    raise NoEngine(f"dockerd did not start: {_last_line(log.read_text(errors='replace'))}")


def _clear_mounts(folder: Path) -> None:
    """Unmount what a container that crashed left mounted."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([one for one in mounts if one.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", mount], check=True)


def _clear_groups(group: str) -> None:
    """Remove the empty control groups of the containers, in every hierarchy."""
    root = Path("/sys/fs/cgroup")
    for top in [root / group, *root.glob(f"*/{group}")]:
        for place in sorted((one for one in [top, *top.rglob("*")] if one.is_dir()), reverse=True):
            place.rmdir()


def kill(pid: int) -> None:
    """End a container's process as a crash would: the engine does not know that it was on purpose."""
    os.kill(pid, signal.SIGKILL)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[-1]
