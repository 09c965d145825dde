"""deploy/kubernetes, built with kustomize: valid for several versions of Kubernetes, and whole. Without a cluster."""

import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lossguard.vocabulary.protocol import API
from tests.deploy.files import DEPLOY, RULES, read

pytestmark = [pytest.mark.system, pytest.mark.needs("kustomize")]

KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.28", "1.32", "1.37")
OPERATOR = "monitoring.coreos.com/v1"
"""Kinds of the Prometheus Operator, which Kubernetes itself has no schema for."""
SECRETS = ("lossguard_token", "trainer_token", "prometheus_token", "postgres_password", "login.toml")
Resource = dict[str, Any]


def build(folder: Path) -> list[Resource]:
    done = subprocess.run(["kustomize", "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Resource]:
    """Production with both components and secrets of its own."""
    copy = tmp_path_factory.mktemp("kubernetes") / "copy"
    shutil.copytree(KUBERNETES, copy, ignore=shutil.ignore_patterns("secrets"))
    production = copy / "production"
    (production / "secrets").mkdir()
    for name in SECRETS:
        (production / "secrets" / name).write_text(f"the {name}")
    file = production / "kustomization.yaml"
    text = file.read_text().replace("# components:", "components:")
    file.write_text(text.rstrip("\n") + "\n      - secrets/login.toml\n")
    return build(production)


def of_kind(resources: list[Resource], *kinds: str) -> list[Resource]:
    return [each for each in resources if each["kind"] in kinds]


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """The pod templates, by the name of their Deployment or Job."""
    return {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind(resources, "Deployment", "Job")}


def references(value: Any) -> Iterator[tuple[str, str, str | None]]:
    """(kind, name, key) of every Secret and ConfigMap that a value names; key None: all of them."""
    if isinstance(value, list):
        for each in value:
            yield from references(each)
    if not isinstance(value, dict):
        return
    if "secretName" in value and "items" in value:
        yield from (("Secret", value["secretName"], item["key"]) for item in value["items"])
    if "configMapRef" in value:
        yield "ConfigMap", value["configMapRef"]["name"], None
    if "credentials" in value:
        yield "Secret", value["credentials"]["name"], value["credentials"]["key"]
    for each in value.values():
        yield from references(each)


def services_behind(ingress: Resource) -> set[str]:
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    return {path["backend"]["service"]["name"] for path in paths}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_fits_the_schema_of_kubernetes(resources: list[Resource], version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of jsonschema, in the package
        for each in resources:
            if each["apiVersion"] != OPERATOR:
                kubernetes_validate.validate(each, version, strict=True)
    assert {each["kind"] for each in resources if each["apiVersion"] == OPERATOR} == {"PodMonitor", "PrometheusRule"}


def test_every_key_of_a_secret_and_every_config_map_that_is_named_exists(resources: list[Resource]) -> None:
    defined = {
        (each["kind"], each["metadata"]["name"]): set(each.get("data", {}))
        for each in of_kind(resources, "Secret", "ConfigMap")
    }
    named = list(references(resources))
    assert {kind for kind, _, _ in named} == {"Secret", "ConfigMap"}
    for kind, name, key in named:
        assert (kind, name) in defined, (kind, name)
        assert key is None or key in defined[kind, name], (name, key)


def test_no_secret_is_in_version_control() -> None:
    """The only kustomization that makes one reads it from files that git ignores."""
    assert not (KUBERNETES / "base" / "secrets").exists()
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert "deploy/kubernetes/production/secrets/" in ignored
    for file in KUBERNETES.rglob("*.yaml"):
        for each in yaml.safe_load_all(file.read_text()):
            assert each.get("kind") != "Secret", file
            for generator in each.get("secretGenerator", []):
                assert set(generator) == {"name", "files"}
                assert all(path.startswith("secrets/") for path in generator["files"])


def test_every_selector_matches_a_pod_and_every_port_has_its_name(resources: list[Resource]) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(resources).items()}
    for each in of_kind(resources, "Deployment", "Service", "PodDisruptionBudget", "PodMonitor"):
        selector = each["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        (pod,) = [name for name, has in labels.items() if wanted.items() <= has.items()]
        ports = {port["name"] for one in pods(resources)[pod]["spec"]["containers"] for port in one["ports"]}
        if each["kind"] == "Service":
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
        if each["kind"] == "PodMonitor":
            assert {endpoint["port"] for endpoint in each["spec"]["podMetricsEndpoints"]} <= ports
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in of_kind(resources, "Service")}
    for ingress in of_kind(resources, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                assert backend["port"]["name"] in {port["name"] for port in services[backend["name"]]}


def test_the_ingress_lets_trainers_reach_what_a_client_asks_of_a_collector(resources: list[Resource]) -> None:
    (ingress,) = (each for each in of_kind(resources, "Ingress") if each["metadata"]["name"] == "collector")
    (rule,) = ingress["spec"]["rules"]
    paths = {(path["path"], path["pathType"]) for path in rule["http"]["paths"]}
    assert paths == {(API, "Prefix"), ("/api/2.0/mlflow", "Prefix"), ("/healthz", "Exact")}


def test_the_ingress_sends_all_reports_of_a_run_to_one_collector(resources: list[Resource]) -> None:
    """ingress-nginx has one upstream for each service: a second ingress to it could change the hash."""
    prefix = "nginx.ingress.kubernetes.io"
    (collector,) = [each for each in of_kind(resources, "Ingress") if "collector" in services_behind(each)]
    annotations = collector["metadata"]["annotations"]
    assert annotations[f"{prefix}/upstream-hash-by"] == "$uri"
    # these would hash something else, or leave the choice to the service
    assert not annotations.keys() & {f"{prefix}/{name}" for name in ("rewrite-target", "service-upstream")}


def test_every_pod_has_few_rights_and_limited_memory(resources: list[Resource]) -> None:
    for name, pod in pods(resources).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_the_image_is_named_in_one_place(resources: list[Resource]) -> None:
    images = {container["image"] for pod in pods(resources).values() for container in pod["spec"]["containers"]}
    assert images == {"registry.example.org/lossguard/service:1.0.0"}


def test_the_token_that_permits_everything_is_the_collectors_alone(resources: list[Resource]) -> None:
    keys = {name: {key for _, _, key in references(pod["spec"])} for name, pod in pods(resources).items()}
    assert {name for name, has in keys.items() if "lossguard_token" in has} == {"collector"}


def test_nothing_may_connect_except_what_is_named(resources: list[Resource]) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(resources, "NetworkPolicy")}
    assert policies.pop("deny-all") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = {name: {direction.lower() for direction in spec["policyTypes"]} for name, spec in policies.items()}
    assert all(spec[direction] for name, spec in policies.items() for direction in opened[name])
    assert {name for name, directions in opened.items() if "ingress" in directions} == {
        "collector",
        "prometheus",
        "ingress",
    }
    base = {each["metadata"]["name"] for each in of_kind(build(KUBERNETES / "base"), "NetworkPolicy")}
    assert base == {"deny-all", "dns-and-database", "collector", "dashboard"}, "without a login it is not reachable"


def test_commands_and_settings_are_those_of_the_image(resources: list[Resource]) -> None:
    """The arguments follow the entrypoint; the paths are those that the secrets are mounted at."""
    for pod in pods(resources).values():
        (container,) = pod["spec"]["containers"]
        files = {each["value"] for each in container["env"] if each["name"].endswith("_FILE")}
        files |= set(re.findall(r"/run/lossguard/[\w.]+", " ".join(container["args"])))
        (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "secrets"]
        assert {f"/run/lossguard/{item['path']}" for item in volume["secret"]["items"]} == files


def test_a_command_within_a_collector_is_started_by_the_entrypoint_which_reads_its_secrets() -> None:
    """A $(cat ..) on the command line would be expanded by the operator's own shell."""
    page = (DEPLOY.parent / "docs" / "kubernetes.md").read_text()
    (entrypoint,) = re.findall(r"^COPY deploy/entrypoint.sh (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    commands = re.findall(r"exec deployment/collector -- (?:\\\n *)?(\S+)", page)
    assert set(commands) == {entrypoint}


def test_the_alerts_are_those_of_prometheus(resources: list[Resource]) -> None:
    (rule,) = of_kind(resources, "PrometheusRule")
    assert rule["spec"] == read(RULES)


def test_the_collectors_have_the_job_that_the_alerts_look_for(resources: list[Resource]) -> None:
    """The operator names the job after the PodMonitor, namespace/name."""
    (monitor,) = of_kind(resources, "PodMonitor")
    jobs = set(re.findall(r'up{job="([^"]*)"}', RULES.read_text()))
    assert len(jobs) == 1
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert {each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"} == jobs
