"""Builds the stand-in images, with the pip settings of this machine."""

import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.compose.stack import Stack, run

SCRIPT = Path(__file__).with_suffix(".sh")
INHERITED_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")
"""Settings of pip on this machine that also apply in a container."""


@contextmanager
def wheels_served() -> Iterator[str | None]:
    """The address of the folder that PIP_FIND_LINKS names, if any: builds see the host's network, not its disk."""
    folder = os.environ.get("PIP_FIND_LINKS", "")
    if not Path(folder).is_dir():
        yield None
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def cpu_wheel() -> dict[str, str]:
    """The build argument with the hash of PyTorch's CPU wheel, if PIP_FIND_LINKS has one."""
    for wheel in Path(os.environ.get("PIP_FIND_LINKS", "-")).glob("torch-*+cpu-*.whl"):
        return {"TORCH_CPU_SHA256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    return {}


def make_stand_ins(stack: Stack, folder: Path, wheels: str | None) -> None:
    roots = folder / "roots"
    roots.mkdir()
    settings = _pip_settings() | ({"find-links": wheels} if wheels else {})
    (roots / "pip.conf").write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items())]))
    run(["bash", SCRIPT, roots, sys.base_prefix], **stack.environment)
    run(["rm", "-rf", roots])


def _pip_settings() -> dict[str, str]:
    lines = run([sys.executable, "-m", "pip", "config", "list"]).splitlines()
    pairs = (line.partition("=") for line in lines)
    known = {name.rpartition(".")[2]: value.strip("'") for name, _, value in pairs}
    return {"cert": "/etc/ssl/certs/ca-certificates.crt"} | {
        name: known[name] for name in INHERITED_PIP_SETTINGS if name in known
    }


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """What pip fetches is no news."""
