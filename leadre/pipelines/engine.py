"""Which engine a process decodes with: a model of its own, or engine servers behind the balancer. LEADRE §4.4.2."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from leadre.decoding.engine import Engine
from leadre.decoding.load import Precision, load_engine
from leadre.decoding.release import load_remote
from leadre.errors import ConfigError
from leadre.indexing.ad_index import AdIndex
from leadre.retrieval.balancer.balancer import Balancer
from leadre.settings import EngineKind, Settings


def engine_of_release(
    settings: Settings,
    folder: Path,
    *,
    index: AdIndex,
    kind: EngineKind | None = None,
    precision: Precision | None = None,
) -> Engine:
    """Return what decodes a release.

    Args:
        settings: name the engine, and where engine servers are.
        folder: the release.
        index: the index that it was trained for.
        kind: another engine than the settings'.
        precision: another one than the settings'.

    Raises:
        ArtifactIncomplete, ReleaseMismatch, ConfigError: as `leadre.decoding.load.load_engine`.
    """
    kind, precision = kind or settings.engine, precision or settings.precision
    if kind == "remote":
        if not settings.engine_urls:
            raise ConfigError("the engine `remote` needs LEADRE_ENGINE_URLS: where `leadre serve engine` runs")
        balancer = _balancer(settings.engine_urls, settings.redis_url, settings.engine_timeout_s, settings.engine_key)
        return load_remote(folder, index=index, ask=balancer.ask)
    if kind == "tensorrt":
        raise ConfigError(
            "TensorRT-LLM runs as an engine server (`leadre serve engine --engine tensorrt`), not beside Feast; "
            "ask it with LEADRE_ENGINE=remote"
        )
    return load_engine(folder, index=index, kind=kind, device=settings.device, precision=precision)


@cache
def _balancer(urls: tuple[str, ...], redis_url: str, timeout_s: float, key: str) -> Balancer:
    """Return the process's balancer: releases come and go, connections and what is known of the instances stay."""
    return Balancer.connect(urls, redis_url=redis_url, timeout_s=timeout_s, key=key)
