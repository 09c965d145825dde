"""What the containers may do, asked of the containers themselves."""

from typing import Any

from tests.compose.stack import LEFT_OUT, Failed, Stack

OURS = {"collector": "lossguard/service:0.1.0", "trainer": "lossguard/trainer:0.1.0"}
NO_TOOLS = "command -v pip pip3 cc gcc g++ make"
NO_PIP = "import importlib.util, sys; sys.exit(any(map(importlib.util.find_spec, ('pip', 'ensurepip'))))"


def check_containers(stack: Stack) -> None:
    """Nobody is root, only volumes and tmpfs can be written to, only loopback is published, no secret is told."""
    secrets = [path.read_text() for path in stack.secrets.iterdir()]
    for service in stack.services:
        if service in LEFT_OUT or service == "trainer":
            continue
        described = stack.container(service)
        if not described["State"]["Running"]:
            continue  # the migrations have ended
        _check(service, described)
        if any(secret in str(described) for secret in secrets):
            raise Failed(f"{service}: a secret can be read with docker inspect")
        if stack.compose("exec", "-T", service, "id", "-u").strip() == "0":
            raise Failed(f"{service} runs as root")
        if _possible(stack, service, "touch", "/etc/written"):
            raise Failed(f"{service} can write to its root file system")


def _check(service: str, described: dict[str, Any]) -> None:
    host = described["HostConfig"]
    if not (host["ReadonlyRootfs"] and host["Memory"] and host["PidsLimit"] and host["CapDrop"] == ["ALL"]):
        raise Failed(f"{service} runs without its limits: {host}")
    addresses = {one["HostIp"] for bindings in (host["PortBindings"] or {}).values() for one in bindings}
    if addresses - {"127.0.0.1"}:
        raise Failed(f"{service} is published on {sorted(addresses)}")


def check_images(stack: Stack) -> dict[str, str]:
    """No compiler and no pip in what we build; the sizes."""
    sizes = {}
    for service, image in OURS.items():
        inside = ["run", "--rm", "--network=none", image]
        if stack.docker(*inside, "sh", "-c", f"{NO_TOOLS} || true").strip():
            raise Failed(f"{image} has a compiler or pip")
        stack.docker(*inside, "python", "-c", NO_PIP)
        size = int(stack.docker("image", "inspect", "--format={{.Size}}", image))
        sizes[f"{service}'s image"] = f"{size / 1e6:.0f} MB"
    return sizes


def _possible(stack: Stack, service: str, *command: str) -> bool:
    try:
        stack.compose("exec", "-T", service, *command)
    except Failed:
        return False
    return True
