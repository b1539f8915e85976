"""The example deployments of engines: whole, and of the options that there are."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from leadre.cli.serve import serve
from leadre.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((DEPLOY / "kubernetes/engine.yaml").read_text())
    return {document["kind"]: document for document in found}


def test_the_service_is_headless_and_finds_the_pods(documents: dict[str, dict[str, Any]]) -> None:
    service, pods = documents["Service"]["spec"], documents["Deployment"]["spec"]["template"]
    assert service["clusterIP"] == "None"
    assert service["selector"].items() <= pods["metadata"]["labels"].items()
    assert documents["Deployment"]["spec"]["selector"]["matchLabels"] == service["selector"]
    ports = {port["name"]: port["containerPort"] for port in pods["spec"]["containers"][0]["ports"]}
    assert ports[service["ports"][0]["targetPort"]] == service["ports"][0]["port"]


def test_the_container_runs_a_command_that_there_is(documents: dict[str, dict[str, Any]]) -> None:
    [container] = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    _, group, name, *arguments = container["command"]
    assert group == "serve"
    serve.commands[name].make_context(name, list(arguments))
    names = {variable["name"]: variable["value"] for variable in container["env"]}
    settings = Settings.from_environment(
        {"LEADRE_DATABASE_URL": "postgresql://a/b", "LEADRE_REDIS_URL": "redis://a", **names}
    )
    assert (settings.engine, settings.precision) == ("device", "bf16")


def test_it_is_scaled_by_a_metric_that_the_server_has(documents: dict[str, dict[str, Any]]) -> None:
    scaled = documents["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == documents["Deployment"]["metadata"]["name"]
    assert "replicas" not in documents["Deployment"]["spec"]
    assert scaled["metrics"][0]["pods"]["metric"]["name"] == "leadre_engine_waiting"


def test_probes_ask_routes_that_there_are(documents: dict[str, dict[str, Any]]) -> None:
    [container] = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
    asked = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    server = (DEPLOY.parent / "leadre/serving/engine_server.py").read_text()
    assert all(f'"{path}"' in server for path in asked)


def test_the_ray_application_uses_what_there_is() -> None:
    """Its imports of ours resolve; Ray itself is not started here."""
    tree = ast.parse((DEPLOY / "ray_serve/engine.py").read_text())
    ours = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("leadre")]
    assert ours
    for node in ours:
        module = __import__(node.module, fromlist=[alias.name for alias in node.names])
        assert all(hasattr(module, alias.name) for alias in node.names)
