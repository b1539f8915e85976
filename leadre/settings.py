"""Settings: where things run. Environment variables only (`LEADRE_*`); secrets live here and are never printed.

What was trained is a recipe (leadre.recipe), not a setting.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, quote, unquote, urlsplit

from leadre.errors import ConfigError
from leadre.names import did_you_mean

SERVICES_FILE = "services.json"

EngineKind = Literal["auto", "device", "hf", "remote", "shared_prefix", "stub", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where data, servers and models are.

    Args:
        home: folder for artifacts and for the embedded servers' data (`LEADRE_HOME`, default `.leadre`).
        database_url: PostgreSQL, `postgresql://user:password@host:port/name` (`LEADRE_DATABASE_URL`).
        redis_url: Redis, `redis://:password@host:port/0` (`LEADRE_REDIS_URL`).
        feature_repo: folder of feature_store.yaml (`LEADRE_FEATURE_REPO`, default `feature_repo`).
        beam_width: ads retrieved per user (`LEADRE_BEAM_WIDTH`, default 20; the paper names none).
        refresh_batch: users a worker claims at once (`LEADRE_REFRESH_BATCH`, default 32; ours).
        refresh_tokens: prompt tokens that a worker decodes at once (`LEADRE_REFRESH_TOKENS`, default 65,536; ours); a
            batch of more is decoded in parts.
        lease_s: seconds a claimed user stays claimed when its worker dies (`LEADRE_LEASE_S`, default 4; ours); a worker
            at work renews them.
        engine: which engine decodes (`LEADRE_ENGINE`, default "auto"); "stub" runs no model, "remote" asks the engine
            servers at `engine_urls`; "tensorrt" is for an engine server.
        engine_urls: engine servers (`LEADRE_ENGINE_URLS`, comma-separated): `http://host:port`, or
            `dns+http://name:port` for every address that a name has.
        engine_timeout_s: seconds within which an engine server has to answer (`LEADRE_ENGINE_TIMEOUT_S`, default 30;
            ours).
        engine_key: API key that the engine servers ask for (`LEADRE_ENGINE_KEY`); empty, the default: none.
        device: where the model is, as torch names it (`LEADRE_DEVICE`, default "cpu").
        precision: of the model's weights and activations (`LEADRE_PRECISION`, default "fp32").
        stream_max: entries that the stream of reported behaviors holds at most (`LEADRE_STREAM_MAX`, default 1,000,000,
            190 MB; ours); a full one refuses.
        list_ttl_s: age at which a retrieval list counts as absent (`LEADRE_LIST_TTL_S`, default 7 days; ours).
        retention_days: age at which months of lists, summaries and sequences are dropped (`LEADRE_RETENTION_DAYS`, 30
            or more); None, the default, keeps them all.
        retention_export: folder to which a month goes before it is dropped (`LEADRE_RETENTION_EXPORT`); default: none.
        registry_url: of Feast's registry (`LEADRE_REGISTRY_URL`); default: a schema of its own in `database_url`.
        redis_cluster: the online store's nodes under feature_store.production.yaml, as Feast writes them,
            `host:port,host:port,password=...` (`LEADRE_REDIS_CLUSTER`).
        gpu_budget: users a second that the LLM may refresh, of all workers together (`LEADRE_GPU_BUDGET`); 0, the
            default, sets no bound.
        gpu_burst: users that an idle budget saves up (`LEADRE_GPU_BURST`); 0, the default: two seconds' worth (ours).
        unseen_discount: what a list is worth after each behavior it does not know, as a share of the worth before
            (`LEADRE_UNSEEN_DISCOUNT`, default .8; ours).
        floor_share: share of the LLM's refreshes that go to who has waited longest, whatever the group
            (`LEADRE_FLOOR_SHARE`, default .1; ours).
        cut_horizon_s: seconds that users the LLM serves may wait; groups beyond what the budget serves in this time are
            the cheap lane's (`LEADRE_CUT_HORIZON_S`, default 30; ours).
        arpu_margin: how far beyond its ARPU group a user must be to change it, in widths of a group
            (`LEADRE_ARPU_MARGIN`, default .25; ours).
        branches: the Mixer's branches in order of turns, each with its ads a round (`LEADRE_BRANCHES`, default
            "leadre:2,covisitation:1,popular:1"; ours).
        visits_days: how far back the clicks go that co-visitation counts (`LEADRE_VISITS_DAYS`, default 30; ours).
        visits_every_s: seconds between two counts of them (`LEADRE_VISITS_EVERY_S`, default 300; ours).
        arpu_smoothing: weight of today's mean ARPU in a group's value (`LEADRE_ARPU_SMOOTHING`, default .5; ours).
        api_keys_file: hashes of the keys that the servers ask for (`LEADRE_API_KEYS_FILE`, leadre.serving.keys); None,
            the default, asks for none, and then only the loopback is listened on.
        worker_metrics_port: where a worker answers `GET /metrics` (`LEADRE_WORKER_METRICS_PORT`, 0 takes a free one);
            None, the default, nowhere.
        worker_metrics_host: the address of that port (`LEADRE_WORKER_METRICS_HOST`, default 127.0.0.1).
        trace_sample: share of batches that are traced (`LEADRE_TRACE_SAMPLE`, 0 to 1, default 0; ours).
    """

    home: Path
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    feature_repo: Path
    beam_width: int = 20
    refresh_batch: int = 32
    refresh_tokens: int = 65_536
    lease_s: float = 4.0
    engine: EngineKind = "auto"
    engine_urls: tuple[str, ...] = ()
    engine_timeout_s: float = 30.0
    engine_key: str = field(default="", repr=False)
    device: str = "cpu"
    precision: Precision = "fp32"
    stream_max: int = 1_000_000
    list_ttl_s: float = 7 * 86_400.0
    retention_days: int | None = None
    retention_export: Path | None = None
    registry_url: str = field(default="", repr=False)
    redis_cluster: str = field(default="", repr=False)
    gpu_budget: float = 0.0
    gpu_burst: float = 0.0
    unseen_discount: float = 0.8
    floor_share: float = 0.1
    cut_horizon_s: float = 30.0
    arpu_margin: float = 0.25
    arpu_smoothing: float = 0.5
    branches: str = "leadre:2,covisitation:1,popular:1"
    visits_days: float = 30.0
    visits_every_s: float = 300.0
    api_keys_file: Path | None = None
    worker_metrics_port: int | None = None
    worker_metrics_host: str = "127.0.0.1"
    trace_sample: float = 0.0

    @property
    def indexes(self) -> Path:
        """Folder of index artifacts, one sub-folder a version."""
        return self.home / "indexes"

    @property
    def releases(self) -> Path:
        """Folder of releases, one sub-folder each."""
        return self.home / "releases"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings: environment first, then the embedded servers' addresses in `home`/services.json.

        Raises:
            ConfigError: no database or Redis is known, or a number is not one.
        """
        env = os.environ if environment is None else environment
        home = Path(env.get("LEADRE_HOME", ".leadre")).absolute()
        addresses: dict[str, str] = {}
        if (services := home / SERVICES_FILE).is_file():
            try:
                addresses = json.loads(services.read_text())
            except json.JSONDecodeError:
                raise ConfigError(f"{services} is damaged: `leadre services up` writes it anew") from None
        urls = {}
        for name in ("database_url", "redis_url"):
            variable = f"LEADRE_{name.upper()}"
            url = env.get(variable) or addresses.get(name)
            if not url:
                raise ConfigError(
                    f"{variable} is not set and no embedded servers run: `leadre services up` starts them"
                )
            urls[name] = url
        if not urls["database_url"].startswith(("postgresql://", "postgresql+psycopg2://")):
            raise ConfigError("LEADRE_DATABASE_URL must start with postgresql:// (PostgreSQL is the system of record)")
        if not urls["redis_url"].startswith(("redis://", "rediss://")):
            raise ConfigError("LEADRE_REDIS_URL must start with redis:// or rediss://")
        if "," in unquote(urls["redis_url"]):
            raise ConfigError(
                "LEADRE_REDIS_URL holds a comma, which Feast takes for the end of a password or path: change it"
            )
        registry_url = env.get("LEADRE_REGISTRY_URL", "")
        if registry_url and not registry_url.startswith(("postgresql://", "postgresql+psycopg2://")):
            raise ConfigError("LEADRE_REGISTRY_URL must start with postgresql://, like LEADRE_DATABASE_URL")
        return cls(
            home=home,
            database_url=urls["database_url"],
            redis_url=urls["redis_url"],
            feature_repo=Path(env.get("LEADRE_FEATURE_REPO", "feature_repo")).absolute(),
            beam_width=_whole(env, "LEADRE_BEAM_WIDTH", 20, 1, 1024),
            refresh_batch=_whole(env, "LEADRE_REFRESH_BATCH", 32, 1, 10_000),
            refresh_tokens=_whole(env, "LEADRE_REFRESH_TOKENS", 65_536, 1, 1 << 30),
            lease_s=_number(env, "LEADRE_LEASE_S", 4.0, 0.5, 86_400),
            engine=_one_of(env, "LEADRE_ENGINE", get_args(EngineKind), "auto"),
            engine_urls=_engine_urls(env),
            engine_timeout_s=_number(env, "LEADRE_ENGINE_TIMEOUT_S", 30.0, 0.1, 3600),
            engine_key=env.get("LEADRE_ENGINE_KEY", ""),
            device=env.get("LEADRE_DEVICE", "cpu"),
            precision=_one_of(env, "LEADRE_PRECISION", get_args(Precision), "fp32"),
            stream_max=_whole(env, "LEADRE_STREAM_MAX", 1_000_000, 1, 1_000_000_000),
            list_ttl_s=_number(env, "LEADRE_LIST_TTL_S", 7 * 86_400.0, 1, 10 * 365 * 86_400),
            retention_days=(
                _whole(env, "LEADRE_RETENTION_DAYS", 0, 30, 100_000) if env.get("LEADRE_RETENTION_DAYS") else None
            ),
            retention_export=Path(export).absolute() if (export := env.get("LEADRE_RETENTION_EXPORT")) else None,
            registry_url=registry_url,
            redis_cluster=env.get("LEADRE_REDIS_CLUSTER", ""),
            gpu_budget=_number(env, "LEADRE_GPU_BUDGET", 0.0, 0, 1e9),
            gpu_burst=_number(env, "LEADRE_GPU_BURST", 0.0, 0, 1e9),
            unseen_discount=_number(env, "LEADRE_UNSEEN_DISCOUNT", 0.8, 0.01, 0.99),
            floor_share=_number(env, "LEADRE_FLOOR_SHARE", 0.1, 0, 1),
            cut_horizon_s=_number(env, "LEADRE_CUT_HORIZON_S", 30.0, 0.1, 86_400),
            arpu_margin=_number(env, "LEADRE_ARPU_MARGIN", 0.25, 0, 25),
            arpu_smoothing=_number(env, "LEADRE_ARPU_SMOOTHING", 0.5, 0.01, 1),
            branches=env.get("LEADRE_BRANCHES", "leadre:2,covisitation:1,popular:1"),
            visits_days=_number(env, "LEADRE_VISITS_DAYS", 30.0, 0.01, 3650),
            visits_every_s=_number(env, "LEADRE_VISITS_EVERY_S", 300.0, 1, 86_400),
            api_keys_file=Path(keys).absolute() if (keys := env.get("LEADRE_API_KEYS_FILE")) else None,
            worker_metrics_port=(
                _whole(env, "LEADRE_WORKER_METRICS_PORT", 0, 0, 65_535)
                if env.get("LEADRE_WORKER_METRICS_PORT")
                else None
            ),
            worker_metrics_host=env.get("LEADRE_WORKER_METRICS_HOST", "127.0.0.1"),
            trace_sample=_number(env, "LEADRE_TRACE_SAMPLE", 0.0, 0, 1),
        )

    def feast_environment(self) -> dict[str, str]:
        """Return the variables that feature_repo/feature_store*.yaml expand, derived from the URLs."""
        database = urlsplit(self.database_url)
        query = parse_qs(database.query)
        redis = urlsplit(self.redis_url)
        login_of_redis = {"username": unquote(redis.username or ""), "password": unquote(redis.password or "")}
        if redis.scheme == "rediss":
            login_of_redis["ssl"] = "true"
        tls = {name: values[0] for name, values in parse_qs(redis.query).items() if name.startswith("ssl_")}
        redis_options = "".join(f",{name}={value}" for name, value in (login_of_redis | tls).items() if value)
        user, password = unquote(database.username or ""), unquote(database.password or "")
        host, name = database.hostname or "localhost", database.path.lstrip("/")
        sslmode = query.get("sslmode", ["prefer"])[0]
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        registry = self.registry_url or (
            f"postgresql://{login}@{host}:{database.port or 5432}/{name}"
            f"?sslmode={sslmode}&options=-csearch_path%3Dfeast_registry"
        )
        waits = "socket_timeout=5,socket_connect_timeout=1"
        variables = {
            "LEADRE_FEAST_DB_HOST": host,
            "LEADRE_FEAST_DB_PORT": str(database.port or 5432),
            "LEADRE_FEAST_DB_NAME": name,
            "LEADRE_FEAST_DB_USER": user,
            "LEADRE_FEAST_DB_PASSWORD": password,
            "LEADRE_FEAST_DB_SSLMODE": sslmode,
            "LEADRE_FEAST_REGISTRY_URL": registry.replace("postgresql://", "postgresql+psycopg2://", 1),
            "LEADRE_FEAST_REDIS": (
                f"{redis.hostname or 'localhost'}:{redis.port or 6379},db={redis.path.lstrip('/') or '0'}"
                f"{redis_options},{waits}"
            ),
        }
        if self.redis_cluster:
            variables["LEADRE_FEAST_REDIS_CLUSTER"] = f"{self.redis_cluster},{waits}"
        return variables


def _one_of(env: Mapping[str, str], name: str, known: tuple[str, ...], default: str) -> Any:
    value = env.get(name, default)
    if value not in known:
        hint = did_you_mean(value, known)
        raise ConfigError(f"{name}={value!r} is not one of {', '.join(known)}; {hint}".rstrip("; "))
    return value


def _engine_urls(env: Mapping[str, str]) -> tuple[str, ...]:
    urls = tuple(url.strip().rstrip("/") for url in env.get("LEADRE_ENGINE_URLS", "").split(",") if url.strip())
    for url in urls:
        if not url.startswith(("http://", "https://", "dns+http://")):
            raise ConfigError(
                f"LEADRE_ENGINE_URLS holds {url!r}; an engine server is at http://host:port, https://host:port, or "
                "dns+http://name:port for every address that the name has"
            )
    if env.get("LEADRE_ENGINE") == "remote" and not urls:
        raise ConfigError("LEADRE_ENGINE=remote needs LEADRE_ENGINE_URLS: where `leadre serve engine` runs")
    return urls


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = _number(env, name, default, low, high)
    if value != int(value):
        raise ConfigError(f"{name}={env[name]!r} is not a whole number")
    return int(value)


def _number(env: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = env.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r} is not a number") from None
    if not low <= value <= high:
        raise ConfigError(f"{name}={text} is out of range: {low:g} to {high:g}")
    return value
