"""The installation: which extras are there, settings, and the project's feature repository."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path

from leadre.errors import ConfigError
from leadre.names import nearest
from leadre.pipelines.doctor.finding import Finding, State, fault, ok, warning
from leadre.project.extras import EXTRAS, ON_ONE_MACHINE, install
from leadre.settings import Settings

_SHOWN = ("feast", "sqlalchemy", "torch", "transformers", "celery", "redis")
_NEEDED = ("features", "store")
"""Without these no command works that reads data."""
_OTHERS = ("LEADRE_HOME", "LEADRE_FEAST_PARQUET", "LEADRE_COMPLETE")


def extras(missing: Collection[str] | None = None) -> list[Finding]:
    """Look which extras of `leadre[all]` are installed, a finding each that is not.

    Args:
        missing: modules that are not there; None looks.
    """
    if missing is None:
        wanted = {module for extra in ON_ONE_MACHINE for module in EXTRAS[extra]}
        missing = {it for it in wanted if it not in sys.modules and importlib.util.find_spec(it) is None}
    lacking = {extra: [it for it in EXTRAS[extra] if it in missing] for extra in ON_ONE_MACHINE}
    lacking = {extra: modules for extra, modules in lacking.items() if modules}
    if set(lacking) >= set(_NEEDED):
        said = "the core alone is installed: the formulas of the features, and no command that reads data"
        return [fault("extras", said, run=install("all"))]
    findings = []
    for extra, modules in lacking.items():
        state: State = "fault" if extra in _NEEDED else "warning"
        said = f"the extra {extra} is not whole: no {', '.join(modules)}"
        findings.append(Finding(check="extras", state=state, said=said, run=install(extra)))
    if not findings:
        shown = [f"{name} {metadata.version(name)}" for name in _SHOWN]
        findings.append(ok("extras", ", ".join(["all extras", *shown])))
    return findings


def settings(environment: Mapping[str, str]) -> tuple[Settings | None, Finding]:
    """Read the settings; None where they cannot be read."""
    try:
        found = Settings.from_environment(environment)
    except ConfigError as error:
        unset = "is not set" in str(error)
        run = "leadre services up" if unset else ""
        return None, fault("settings", str(error), run=run)
    return found, ok("settings", f"LEADRE_HOME={found.home}")


def unknown_variables(environment: Collection[str]) -> list[Finding]:
    """Look for variables LEADRE_… that nobody reads: typing errors, most of all."""
    known = {f"LEADRE_{field.name.upper()}" for field in fields(Settings)} | set(_OTHERS)
    findings = []
    for name in sorted(environment):
        if name.startswith("LEADRE_") and name not in known and not name.startswith("LEADRE_FEAST_"):
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else "docs/operations.md lists those that are"
            findings.append(warning("settings", f"{name} is read by nobody; {hint}", run=f"unset {name}"))
    return findings


def project(feature_repo: Path) -> Finding:
    """Look whether the feature repository is where the settings say."""
    if not (feature_repo / "feature_store.yaml").is_file():
        said = f"no feature_store.yaml in {feature_repo}: this folder is no project"
        return fault("project", said, run="leadre init my_ads && cd my_ads")
    return ok("project", f"feature repository {feature_repo}")


def commands(path: str | None = None) -> Finding:
    """Look whether feast, alembic and celery can be called."""
    lacking = [name for name in ("feast", "alembic", "celery") if shutil.which(name, path=path) is None]
    if lacking:
        said = f"{', '.join(lacking)} cannot be called: the folder of the virtual environment's programs is not on PATH"
        return warning("commands", said, run="source .venv/bin/activate")
    return ok("commands", "feast, alembic and celery are on PATH")
