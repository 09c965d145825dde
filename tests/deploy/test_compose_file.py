"""docker-compose.yml, the Dockerfile and what they read, as far as they can be checked without an engine.

`make test-compose` runs them on a real one.
"""

import fnmatch
import hashlib
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.files import DEPLOY, read
from trainer.config import Recipe

ROOT = DEPLOY.parent
COMPOSE: dict[str, Any] = read(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
IN_THE_IMAGES = {"monitor", "dashboard", "trainer"}
"""The extras that the Dockerfile installs."""

UNWATCHED = {
    "migrate": "ends once the store has the newest schema",
    "trainer": "ends with its run; Lossguard itself watches it",
}
"""Services without a health check, and why."""


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_pinned_restarts_and_has_few_rights_and_limited_resources(service: str) -> None:
    """Images of others may be pinned further, by a digest from the environment."""
    config = SERVICES[service]
    assert re.search(r":v?\d+\.\d+(\.\d+)?[\w.-]*(\$\{[A-Z]+_DIGEST:-\})?$", config["image"])
    assert config["image"].endswith("_DIGEST:-}") is not config["image"].startswith("lossguard/")
    assert (config["read_only"], config["cap_drop"]) == (True, ["ALL"])
    assert not {"cap_add", "privileged"} & config.keys()
    assert config["security_opt"] == ["no-new-privileges:true"]
    assert config["user"].split(":")[0] not in ("", "0", "root")
    assert config["mem_limit"]
    assert config["pids_limit"]
    assert config["logging"]["options"]["max-size"], "a log must not fill the disk"
    if service in UNWATCHED:
        assert "healthcheck" not in config
        assert config["restart"] in ("no", "on-failure:3")
    else:
        assert config["restart"] == "unless-stopped"
        assert config["healthcheck"]["test"][0] == "CMD"


def test_base_images_have_an_exact_version() -> None:
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    for service in ("migrate", "trainer"):
        assert SERVICES[service]["build"]["args"]["PYTHON"] == base + "${PYTHON_DIGEST:-}"
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE).count("${PYTHON}") == 2
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)


def test_the_store_is_migrated_before_anything_reads_it() -> None:
    assert SERVICES["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for service in ("collector", "dashboard"):
        assert SERVICES[service]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_what_the_start_of_alertmanager_reads_reaches_it_also_as_files() -> None:
    script = (DEPLOY / "alertmanager" / "start.sh").read_text()
    named = set(re.findall(r"\b(?:PAGE|NOTICE|SMTP|QUIET)_[A-Z]+(?:_[A-Z]+)*\b", script))
    wanted = named | {f"{name}_FILE" for name in named if name.endswith("_URL")}
    assert {"PAGE_SLACK_URL_FILE", "NOTICE_WEBHOOK_URL_FILE", "SMTP_PASSWORD_FILE"} < wanted
    assert SERVICES["alertmanager"]["environment"].keys() == wanted


def test_only_what_people_and_trainers_use_is_published_on_loopback_by_default() -> None:
    published = {name: config["ports"] for name, config in SERVICES.items() if "ports" in config}
    assert set(published) == {"collector", "dashboard", "prometheus", "alertmanager", "grafana"}
    for ports in published.values():
        (port,) = ports
        assert re.match(r"(127\.0\.0\.1|\$\{LOSSGUARD_BIND:-127\.0\.0\.1\}):\$\{LOSSGUARD_\w+_PORT:-\d+\}:\d+$", port)


def test_secrets_come_from_files_and_none_has_a_default() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"${{LOSSGUARD_SECRETS:-./deploy/secrets}}/{name}"}
    for service, config in SERVICES.items():
        for name, value in config.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET", name):
                assert name.endswith("_FILE"), f"{service}: {name} is not a file"
                assert str(value).startswith(("/run/secrets/", "${")), f"{service}: {name}"
                secret = str(value).removeprefix("/run/secrets/")
                assert secret in config.get("secrets", []) or secret == "${SMTP_PASSWORD_FILE:-}"
    assert all(set(config.get("secrets", [])) <= set(COMPOSE["secrets"]) for config in SERVICES.values())


def test_only_the_collector_has_the_token_that_permits_everything() -> None:
    holders = {name for name, config in SERVICES.items() if "lossguard_token" in config.get("secrets", [])}
    assert holders == {"collector"}
    script = SERVICES["migrate"]["command"][-1]
    project = '"${LOSSGUARD_TRAINER_PROJECT:-trainer}"'
    assert f"install compose-trainer /run/secrets/trainer_token --scope report --project {project}\n" in script
    assert "install compose-prometheus /run/secrets/prometheus_token --scope read\n" in script
    assert Recipe().project == "trainer"


def test_secrets_are_created_once_differ_and_are_readable_by_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make = [str(DEPLOY / "secrets.sh"), str(folder)]
    subprocess.run(make, check=True, capture_output=True)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in made.values())
    assert folder.stat().st_mode & 0o077 == 0
    subprocess.run(make, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == made, "a second call changes nothing"


def test_the_entry_point_reads_secrets_from_files_and_names_an_empty_one(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("a b$(c)'\n")
    command = [str(DEPLOY / "entrypoint.sh"), "sh", "-c", 'printf %s "$LOSSGUARD_TOKEN"']
    path = {"PATH": "/usr/bin:/bin", "LOSSGUARD_TOKEN_FILE": str(secret)}
    assert subprocess.run(command, env=path, check=True, capture_output=True, text=True).stdout == "a b$(c)'"
    secret.write_text("")
    refused = subprocess.run(command, env=path, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert f"LOSSGUARD_TOKEN_FILE={secret}" in refused.stderr


def test_every_named_volume_is_declared_and_used() -> None:
    mounts = [mount for config in SERVICES.values() for mount in config.get("volumes", [])]
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    for mount in mounts:
        if mount.startswith("."):
            source, _, mode = mount.split(":")
            assert (ROOT / source).exists()
            assert mode == "ro", f"{mount}: containers must not write to the checkout"


def copied() -> set[str]:
    """The paths that the Dockerfile copies from the checkout."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return {source.removeprefix("./") for line in lines for source in line.split()[:-1]}


def test_the_build_context_holds_exactly_what_the_images_copy() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    included = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert included == copied()
    assert all((ROOT / path).exists() for path in included)
    excluded = [line for line in lines[1:] if not line.startswith("!")]
    assert any(fnmatch.fnmatch("monitor/__pycache__", pattern) for pattern in excluded)


def test_the_last_stages_have_neither_pip_nor_a_compiler() -> None:
    last = DOCKERFILE[DOCKERFILE.index("AS runtime") :]
    assert "pip uninstall --yes" in last
    assert not re.search(r"apt-get|gcc|build-essential|pip install", last.replace(build_stage("build-trainer"), ""))


def build_stage(name: str) -> str:
    found = re.search(rf"^FROM \S+ AS {name}\n(?:(?!FROM ).*\n)*", DOCKERFILE, re.MULTILINE)
    assert found
    return found[0]


FAKE_DOCKER = """#!/bin/sh
[ "$1" = pull ] && { [ "$3" != "$MISSING" ]; exit; }
echo "${5%:*}@sha256:$(printf %s "$5" | sha256sum | cut -d' ' -f1)"
"""


def test_the_images_of_others_can_be_pinned_by_the_digests_of_what_the_engine_pulls(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("docker-compose.yml", "deploy/digests.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docker").write_text(FAKE_DOCKER)
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / ".env").write_text("PAGE_WEBHOOK_URL=https://page.example.org\nGRAFANA_DIGEST=@sha256:old\n")

    def pin(**environment: str) -> int:
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | environment
        return subprocess.run([tmp_path / "deploy/digests.sh"], env=path, capture_output=True, check=False).returncode

    before = (tmp_path / ".env").read_text()
    assert pin(MISSING="prom/alertmanager:v0.28.1") == 1
    assert (tmp_path / ".env").read_text() == before
    for _ in range(2):
        assert pin() == 0
        lines = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
        assert lines.pop("PAGE_WEBHOOK_URL") == "https://page.example.org"
        text = (ROOT / "docker-compose.yml").read_text()
        assert set(lines) == set(re.findall(r"[A-Z]+_DIGEST", text))
        for name, image in (("GRAFANA", "grafana/grafana:11.6.0"), ("PYTHON", "python:3.11.13-slim-bookworm")):
            assert lines[f"{name}_DIGEST"] == f"@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def locked(name: str) -> dict[str, list[str]]:
    """Requirement -> its hashes, of a file of deploy/requirements."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "requirements" / name).read_text().splitlines()[1:]:
        text = line.removesuffix("\\").strip()
        if text.startswith("--hash=sha256:"):
            found[list(found)[-1]].append(text.removeprefix("--hash=sha256:"))
        else:
            found[text] = []
    return found


LOCKS = {"build.txt": None, "service.txt": {"monitor", "dashboard"}, "trainer.txt": {"trainer"}, "torch.txt": None}
"""Files of deploy/requirements, and the extras that they install."""


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_an_image_is_pinned_as_in_the_constraints_and_by_its_hashes(name: str) -> None:
    constraints = pins()
    text = (DEPLOY / "requirements" / name).read_text()
    assert "://" not in text, "no host of a registry"
    for requirement, hashes in locked(name).items():
        parsed = Requirement(requirement)
        assert hashes
        assert all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes)
        assert re.fullmatch(r"==[\w.]+", str(parsed.specifier)), "exact versions only"
        if parsed.marker is None:
            assert str(parsed.specifier)[2:] == constraints[canonicalize_name(parsed.name)]


def test_the_files_with_hashes_hold_all_that_the_images_need() -> None:
    for name, extras in LOCKS.items():
        if extras is not None:
            known = {canonicalize_name(Requirement(text).name) for text in locked(name) | locked("torch.txt")}
            asked = {canonicalize_name(one.name) for _, one in every_requirement(extras)} - {"lossguard"}
            cuda = {package for package in asked if re.match("nvidia-|cuda-|triton$", package)}
            assert asked - cuda <= known
    assert set(locked("build.txt")) >= {f"{name}=={pins()[name]}" for name in ("hatchling", "tomlkit")}


def test_no_package_is_installed_without_a_hash_but_our_own() -> None:
    for line in re.findall(r"pip(?: --python=\S+)? install[^&]*", DOCKERFILE):
        own = "--no-deps wheels/*.whl" in line
        assert own or "--require-hashes" in line or "torch.sh" in DOCKERFILE.split(line)[0].splitlines()[-1]


WHEEL_INSTALLER = """#!/bin/sh
echo "$@"; cat cpu.txt 2>/dev/null || true
"""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "install --no-deps --require-hashes --requirement requirements/torch.txt\n"),
        ({"PIP_EXTRA_INDEX_URL": "x"}, "install --no-deps torch=={version}+cpu\n"),
        (
            {"PIP_EXTRA_INDEX_URL": "x", "TORCH_CPU_SHA256": "a1"},
            "install --no-deps --require-hashes --requirement cpu.txt\ntorch=={version}+cpu --hash=sha256:a1\n",
        ),
    ],
)
def test_pytorch_comes_with_a_hash_unless_a_cpu_wheel_is_wanted_without_one(
    tmp_path: Path, settings: dict[str, str], expected: str
) -> None:
    shutil.copytree(DEPLOY / "requirements", tmp_path / "requirements")
    (tmp_path / "pip").write_text(WHEEL_INSTALLER)
    command = ["sh", str(DEPLOY / "torch.sh"), "sh", "pip", "install"]
    path = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=path | settings, capture_output=True, text=True, check=True)
    assert done.stdout == expected.format(version=pins()["torch"])


def pins() -> dict[str, str]:
    lines = (DEPLOY / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(one.specifier)) for one in requirements), "exact versions only"
    return {canonicalize_name(one.name): str(one.specifier)[2:] for one in requirements}


def requirements(name: str, extras: set[str]) -> list[Requirement]:
    """The requirements of an installed distribution with these extras that apply to this environment."""
    declared = [Requirement(text) for text in distribution(name).requires or []]
    environments = [{"extra": extra} for extra in extras or {""}]
    return [one for one in declared if one.marker is None or any(map(one.marker.evaluate, environments))]


def every_requirement(extras: set[str] = IN_THE_IMAGES) -> list[tuple[str, Requirement]]:
    """(distribution, requirement) of everything that the extras need, directly or not."""
    found: list[tuple[str, Requirement]] = []
    visited: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, set[str]]] = [("lossguard", extras)]
    while waiting:
        name, extras = waiting.pop()
        if (canonicalize_name(name), frozenset(extras)) not in visited:
            visited.add((canonicalize_name(name), frozenset(extras)))
            required = requirements(name, extras)
            found += [(name, one) for one in required]
            waiting += [(one.name, one.extras) for one in required]
    return found


def test_the_dockerfile_installs_these_extras() -> None:
    installed = {name for name in LOCKS if f"--requirement requirements/{name}" in DOCKERFILE}
    assert installed == {"build.txt", "service.txt", "trainer.txt"}
    assert set().union(*(LOCKS[name] or set() for name in installed)) == IN_THE_IMAGES


def test_everything_that_the_extras_need_is_pinned_to_a_version_that_fits_every_requirement() -> None:
    pinned = pins()
    for who, asked in every_requirement():
        name = canonicalize_name(asked.name)
        exact = str(asked.specifier).startswith("==")  # torch itself pins the parts of CUDA
        if name != "lossguard" and not (exact and name not in pinned):
            assert name in pinned, f"{who} needs {asked}, which is not in constraints.txt"
            assert asked.specifier.contains(pinned[name], prereleases=True), f"{who} needs {asked}"


def test_nothing_is_pinned_that_nothing_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    builders = {canonicalize_name(Requirement(text).name) for text in project["build-system"]["requires"]}
    asked = {canonicalize_name(one.name) for _, one in every_requirement()}
    assert builders <= set(pins())
    assert set(pins()) - asked - builders <= {"pathspec", "pluggy", "tomlkit", "trove-classifiers"}, (
        "the requirements of hatchling"
    )


def test_the_override_of_the_compose_test_changes_no_service() -> None:
    override = yaml.safe_load((ROOT / "tests" / "compose" / "override.yml").read_text())["services"]
    assert {name: config for name, config in override.items() if name in SERVICES} == {
        name: {"build": {"network": "host"}} for name, config in SERVICES.items() if "build" in config
    }
