"""What the containers may do, checked in the running containers."""

from typing import Any

from tests.compose.stack import OMITTED, Failed, Stack

BUILT_IMAGES = {"collector": "lossguard/service:1.0.0", "trainer": "lossguard/trainer:1.0.0"}
NO_TOOLS = "command -v pip pip3 cc gcc g++ make"
NO_PIP = "import importlib.util, sys; sys.exit(any(map(importlib.util.find_spec, ('pip', 'ensurepip'))))"


def check_containers(stack: Stack) -> None:
    """No container runs as root, writes outside volumes and tmpfs, publishes beyond loopback, or shows a secret."""
    secrets = [path.read_text() for path in stack.secrets.iterdir()]
    for service in stack.services:
        if service in OMITTED or service == "trainer":
            continue
        described = stack.container(service)
        if not described["State"]["Running"]:
            continue  # the migrations have ended
        _check(service, described)
        if any(secret in str(described) for secret in secrets):
            raise Failed(f"{service}: docker inspect shows a secret")
        if stack.compose("exec", "-T", service, "id", "-u").strip() == "0":
            raise Failed(f"{service} runs as root")
        if _succeeds(stack, service, "touch", "/etc/written"):
            raise Failed(f"{service} can write to its root file system")


def _check(service: str, described: dict[str, Any]) -> None:
    host = described["HostConfig"]
    if not (host["ReadonlyRootfs"] and host["Memory"] and host["PidsLimit"] and host["CapDrop"] == ["ALL"]):
        raise Failed(f"{service} runs without its limits: {host}")
    addresses = {one["HostIp"] for bindings in (host["PortBindings"] or {}).values() for one in bindings}
    if addresses - {"127.0.0.1"}:
        raise Failed(f"{service} is published on {sorted(addresses)}")


def check_images(stack: Stack) -> dict[str, str]:
    """Our images contain neither a compiler nor pip; their sizes."""
    sizes = {}
    for service, image in BUILT_IMAGES.items():
        inside = ["run", "--rm", "--network=none", image]
        if stack.docker(*inside, "sh", "-c", f"{NO_TOOLS} || true").strip():
            raise Failed(f"{image} has a compiler or pip")
        stack.docker(*inside, "python", "-c", NO_PIP)
        size = int(stack.docker("image", "inspect", "--format={{.Size}}", image))
        sizes[f"{service}'s image"] = f"{size / 1e6:.0f} MB"
    return sizes


def _succeeds(stack: Stack, service: str, *command: str) -> bool:
    try:
        stack.compose("exec", "-T", service, *command)
    except Failed:
        return False
    return True
