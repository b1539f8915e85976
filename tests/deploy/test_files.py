"""What deploy/ holds, by its schemas: compose, Kubernetes, systemd, Grafana, Prometheus; and that it fits the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from leadre.cli import cli
from leadre.serving.keys import Allowed, Keys
from leadre.settings import Settings
from workers.app import BACKFILL, INDEXING, MAINTENANCE, RETRIEVAL

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
QUEUES = {RETRIEVAL, INDEXING, MAINTENANCE, BACKFILL, "ingest"}
KUBERNETES_VERSION = "1.32"


def kubernetes() -> Iterator[dict[str, Any]]:
    """Every object of every manifest; a kustomization is none."""
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from (found for found in yaml.safe_load_all(path.read_text()) if found)


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The name, the pod and each container of every workload."""
    for found in kubernetes():
        if "template" in found.get("spec", {}):
            pod = found["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield found["metadata"]["name"], pod, container


def test_compose_is_what_the_compose_specification_says() -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)
    broken = {**COMPOSE, "services": {**COMPOSE["services"], "mixer": {"comand": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_compose_names_nothing_that_it_does_not_define() -> None:
    services, volumes, secrets = COMPOSE["services"], set(COMPOSE["volumes"]), set(COMPOSE["secrets"])
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
        assert set(service.get("secrets", ())) <= secrets
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert {name for name in named if not name.startswith(".")} <= volumes
        for path in (name for name in named if name.startswith(".")):
            assert (DEPLOY / path).exists(), path
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "published beyond the loopback"
    for name, service in services.items():
        for waited in service.get("depends_on", {}).values():
            assert waited["condition"] in {"service_healthy", "service_completed_successfully"}, name


def test_compose_s_redis_loses_and_evicts_nothing() -> None:
    command = COMPOSE["services"]["redis"]["command"]
    for option, value in (("--appendonly", "yes"), ("--maxmemory-policy", "noeviction")):
        assert command[command.index(option) + 1] == value


def test_compose_s_secrets_are_made_by_the_script_and_let_the_first_key_in(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "make-secrets.sh", tmp_path)
    said = subprocess.run(["sh", tmp_path / "make-secrets.sh"], capture_output=True, text=True, check=True).stdout
    made = {str(path.relative_to(tmp_path)) for path in (tmp_path / "secrets").iterdir()}
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} <= made
    assert {file for service in COMPOSE["services"].values() for file in service.get("env_file", ())} <= made
    assert (tmp_path / "secrets").stat().st_mode & 0o77 == 0
    key = said.split()[-1]
    assert Keys(tmp_path / "secrets/api_keys").allow(key.encode(), 0.0) == Allowed(name="first")
    for role in ("owner", "app"):
        lines = (tmp_path / f"secrets/{role}.env").read_text().splitlines()
        settings = Settings.from_environment(dict(line.split("=", 1) for line in lines))
        assert settings.database_url.startswith(f"postgresql://leadre_{role}:")
    before = (tmp_path / "secrets/app.env").read_bytes()
    again = subprocess.run(["sh", tmp_path / "make-secrets.sh"], capture_output=True, text=True, check=True)
    assert again.stdout == ""
    assert (tmp_path / "secrets/app.env").read_bytes() == before


def test_kubernetes_objects_are_what_its_schemas_say() -> None:
    objects = list(kubernetes())
    assert {"Deployment", "Service", "Job", "NetworkPolicy", "PersistentVolumeClaim"} <= {it["kind"] for it in objects}
    for found in (it for it in objects if not it["apiVersion"].startswith("keda.sh/")):  # a schema of its own
        kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**objects[0], "dta": {}}, KUBERNETES_VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs the program kubectl")
@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml")), ids=lambda it: it.name
)
def test_a_kustomization_builds(folder: Path) -> None:
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
    for found in yaml.safe_load_all(built):
        kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)


def test_no_pod_of_ours_is_root_or_can_become_it() -> None:
    for name, pod, container in containers():
        assert pod.get("securityContext", {}).get("runAsNonRoot") is True, name
        assert pod.get("automountServiceAccountToken") is False, name
        careful = container.get("securityContext", {})
        assert careful.get("allowPrivilegeEscalation") is False, name
        assert careful.get("readOnlyRootFilesystem") is True, name
        assert careful.get("capabilities") == {"drop": ["ALL"]}, name
        for volume in container.get("volumeMounts", ()):
            assert volume["name"] in {it["name"] for it in pod["volumes"]}, name


def test_images_are_built_without_root_and_without_secrets() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    stages = {line.split()[-1]: line.split()[1] for line in lines if line.startswith("FROM ")}
    assert stages["server"] == stages["worker"] == "run"
    assert "USER 10001:10001" in lines[: lines.index("FROM run AS server")]
    assert not re.search(r"(PASSWORD|SECRET|TOKEN)", "\n".join(lines))
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".leadre", ".env", "deploy"} <= set(ignored)
    copied = [line.split() for line in lines if line.startswith("RUN pip install")]
    assert all("constraints.txt" in words for words in copied)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command of ours in compose, Kubernetes and systemd, as words."""
    for name, service in COMPOSE["services"].items():
        if service.get("image", "").startswith("leadre"):
            yield name, [str(word) for word in service["command"]]
    for name, _, container in containers():
        yield name, [*container.get("command", ()), *container.get("args", ())]
    for path in (DEPLOY / "systemd").glob("*.service"):
        for line in re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE):
            yield path.name, [Path(line.split()[0]).name, *line.split()[1:]]


def test_every_command_of_ours_exists_with_its_options() -> None:
    served, queues = set(), set()
    for name, words in commands():
        if words[:2] == ["leadre", "serve"]:
            serve = cli.get_command(None, "serve")  # type: ignore[arg-type]
            command = serve.commands[words[2]]  # type: ignore[union-attr]
            options = {option for parameter in command.params for option in parameter.opts}
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= options, name
            served.add(words[2])
        elif words[0] == "celery":
            assert words[1:3] == ["-A", "workers.app"], name
            if "worker" in words:
                assert "--pool=threads" in words, name
                assert {"--without-gossip", "--without-mingle", "--without-heartbeat"} <= set(words), name
                queues |= set(words[words.index("-Q") + 1].split(","))
    assert {"user-server", "mixer"} <= served
    assert queues == QUEUES | {"%i"}


def test_settings_that_are_set_exist() -> None:
    source = (ROOT / "leadre/settings.py").read_text()
    known = set(re.findall(r"\bLEADRE_[A-Z_]+", source))
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "secrets" not in path.parts and path.suffix != ".py":
            assert set(re.findall(r"\bLEADRE_[A-Z_]+", path.read_text())) <= known, path


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs the program systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for path in (DEPLOY / "systemd").iterdir():
        (tmp_path / path.name).write_text(re.sub(r"/opt/leadre/bin/\w+", "/usr/bin/true", path.read_text()))
    units = sorted(tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "leadre" in line]
    assert (done.returncode, ours) == (0, [])
    assert {path.name for path in units} >= {
        name.replace("@retrieval", "@")
        for name in re.findall(r"leadre-[\w@-]+\.service", (DEPLOY / "systemd/leadre.target").read_text())
        if "@" not in name or name.endswith("@retrieval.service")
    }


def metric_names() -> set[str]:
    """Every name that our code gives a metric, as Prometheus sees it."""
    texts = [path.read_text() for folder in ("leadre", "workers") for path in (ROOT / folder).rglob("*.py")]
    names = {name for text in texts for name in re.findall(r'"(leadre_[a-z_]+)"', text)}
    figures = {f"leadre_feature_{word}" for text in texts for word in re.findall(r'"([a-z_]+)"', text)}
    return {f"{name}{end}" for name in names for end in ("", "_total", "_bucket", "_sum", "_count")} | figures


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard and of the alerts."""
    for panel in json.loads((DEPLOY / "grafana/leadre.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_every_expression_is_promql_over_metrics_that_the_code_has() -> None:
    known, asked = metric_names(), set()
    for where, expression in expressions():
        promql_parser.parse(expression)
        found = set(re.findall(r"\bleadre_[a-z_]+", expression))
        assert found, where
        assert found <= known, (where, found - known)
        asked |= found
    assert len(asked) > 20
    with pytest.raises(ValueError):
        promql_parser.parse("sum by (x (rate(y[1m])")


def test_every_alert_names_a_runbook_that_exists() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert f"### {rule['annotations']['runbook']}\n" in page, rule["alert"]


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    board = json.loads((DEPLOY / "grafana/leadre.json").read_text())
    assert (board["uid"], board["title"], board["schemaVersion"]) == ("leadre", "LEADRE", 41)
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_prometheus_scrapes_what_compose_runs() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    targets = {target for job in scraped["scrape_configs"] for it in job["static_configs"] for target in it["targets"]}
    for target in targets:
        host, _, port = target.partition(":")
        service = COMPOSE["services"][host]
        assert port in [*map(str, service["command"]), service["environment"]["LEADRE_WORKER_METRICS_PORT"]]
    assert all((DEPLOY / "prometheus" / name).is_file() for name in scraped["rule_files"])
