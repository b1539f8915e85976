"""Settings: the environment, then the embedded servers' addresses."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from leadre.errors import ConfigError
from leadre.settings import Settings

DATABASE = "postgresql://rita:pa%2Fss%40@db.example:6543/ads?sslmode=require"
REDIS = "redis://:se%3Acret@cache.example:6380/2"


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"LEADRE_HOME": str(tmp_path), "LEADRE_DATABASE_URL": DATABASE, "LEADRE_REDIS_URL": REDIS, **more}


def test_the_environment_is_read_and_the_rest_has_defaults(tmp_path: Path) -> None:
    settings = Settings.from_environment(environment(tmp_path, LEADRE_BEAM_WIDTH="7", LEADRE_LEASE_S="12.5"))
    assert (settings.database_url, settings.redis_url, settings.home) == (DATABASE, REDIS, tmp_path)
    assert (settings.beam_width, settings.lease_s, settings.refresh_batch) == (7, 12.5, 32)
    assert settings.indexes == tmp_path / "indexes"
    assert settings.releases == tmp_path / "releases"
    assert settings.feature_repo.is_absolute()
    assert (settings.retention_days, settings.retention_export) == (None, None)


def test_retention_is_in_whole_days_and_a_folder(tmp_path: Path) -> None:
    changes = {"LEADRE_RETENTION_DAYS": "400", "LEADRE_RETENTION_EXPORT": str(tmp_path / "archive")}
    settings = Settings.from_environment(environment(tmp_path, **changes))
    assert (settings.retention_days, settings.retention_export) == (400, tmp_path / "archive")


def test_engine_servers_are_named_by_their_addresses(tmp_path: Path) -> None:
    changes = {
        "LEADRE_ENGINE": "remote",
        "LEADRE_ENGINE_URLS": "http://a:8030/, dns+http://engines:8030",
        "LEADRE_ENGINE_TIMEOUT_S": "12",
    }
    settings = Settings.from_environment(environment(tmp_path, **changes))
    assert settings.engine_urls == ("http://a:8030", "dns+http://engines:8030")
    assert settings.engine_timeout_s == 12.0
    assert Settings.from_environment(environment(tmp_path)).engine_urls == ()


def test_embedded_servers_are_found_and_the_environment_outranks_them(tmp_path: Path) -> None:
    addresses = {"database_url": "postgresql://leadre:x@127.0.0.1:5555/leadre", "redis_url": "redis://:y@127.0.0.1:6/0"}
    (tmp_path / "services.json").write_text(json.dumps({**addresses, "postgres": {"pid": 1}}))
    found = Settings.from_environment({"LEADRE_HOME": str(tmp_path)})
    assert {"database_url": found.database_url, "redis_url": found.redis_url} == addresses
    assert Settings.from_environment(environment(tmp_path)).database_url == DATABASE


def test_secrets_are_not_printed(tmp_path: Path) -> None:
    more = {"LEADRE_REGISTRY_URL": DATABASE.replace("rita", "registrar"), "LEADRE_REDIS_CLUSTER": "n:1,password=open"}
    printed = repr(Settings.from_environment(environment(tmp_path, **more)))
    for secret in ("pa%2Fss", "se%3Acret", "password=open"):
        assert secret not in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LEADRE_ENGINE": "remote"}, "needs LEADRE_ENGINE_URLS: where `leadre serve engine` runs"),
        ({"LEADRE_ENGINE_URLS": "engine-1:8030"}, "http://host:port"),
        ({"LEADRE_ENGINE_TIMEOUT_S": "0"}, "out of range"),
        ({"LEADRE_DATABASE_URL": ""}, "LEADRE_DATABASE_URL is not set.*leadre services up"),
        ({"LEADRE_REDIS_URL": ""}, "LEADRE_REDIS_URL is not set.*leadre services up"),
        ({"LEADRE_DATABASE_URL": "sqlite:///x"}, "must start with postgresql://"),
        ({"LEADRE_REDIS_URL": "cache.example:6379"}, "must start with redis://"),
        ({"LEADRE_REGISTRY_URL": "mysql://h/registry"}, "LEADRE_REGISTRY_URL must start with postgresql://"),
        ({"LEADRE_REDIS_URL": "redis://:a%2Cb@cache.example"}, "holds a comma"),
        ({"LEADRE_BEAM_WIDTH": "wide"}, "LEADRE_BEAM_WIDTH='wide' is not a number"),
        ({"LEADRE_BEAM_WIDTH": "nan"}, "LEADRE_BEAM_WIDTH=nan is out of range: 1 to 1024"),
        ({"LEADRE_BEAM_WIDTH": "0"}, "LEADRE_BEAM_WIDTH=0 is out of range: 1 to 1024"),
        ({"LEADRE_REFRESH_BATCH": "2.5"}, "LEADRE_REFRESH_BATCH='2.5' is not a whole number"),
        ({"LEADRE_RETENTION_DAYS": "7"}, "LEADRE_RETENTION_DAYS=7 is out of range: 30 to"),
        ({"LEADRE_LEASE_S": "1e9"}, "LEADRE_LEASE_S=1e9 is out of range"),
        ({"LEADRE_ENGINE": "magic"}, "LEADRE_ENGINE='magic' is not one of auto"),
    ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.from_environment(environment(tmp_path, **changes))


def test_a_damaged_address_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text("{")
    with pytest.raises(ConfigError, match=r"services\.json is damaged: `leadre services up`"):
        Settings.from_environment({"LEADRE_HOME": str(tmp_path)})


def test_feast_gets_its_variables_from_the_two_urls(tmp_path: Path) -> None:
    variables = Settings.from_environment(environment(tmp_path)).feast_environment()
    assert variables.pop("LEADRE_FEAST_REDIS").startswith("cache.example:6380,db=2,password=se:cret,")
    assert variables == {
        "LEADRE_FEAST_DB_HOST": "db.example",
        "LEADRE_FEAST_DB_PORT": "6543",
        "LEADRE_FEAST_DB_NAME": "ads",
        "LEADRE_FEAST_DB_USER": "rita",
        "LEADRE_FEAST_DB_PASSWORD": "pa/ss@",
        "LEADRE_FEAST_DB_SSLMODE": "require",
        "LEADRE_FEAST_REGISTRY_URL": (
            "postgresql+psycopg2://rita:pa%2Fss%40@db.example:6543/ads"
            "?sslmode=require&options=-csearch_path%3Dfeast_registry"
        ),
    }


def test_feast_gets_a_registry_and_a_cluster_of_their_own_where_they_are_named(tmp_path: Path) -> None:
    more = {
        "LEADRE_REGISTRY_URL": "postgresql://r:p@registry.example/feast",
        "LEADRE_REDIS_CLUSTER": "a:1,b:2,ssl=true",
    }
    variables = Settings.from_environment(environment(tmp_path, **more)).feast_environment()
    assert variables["LEADRE_FEAST_REGISTRY_URL"] == "postgresql+psycopg2://r:p@registry.example/feast"
    assert variables["LEADRE_FEAST_REDIS_CLUSTER"].startswith("a:1,b:2,ssl=true,socket_timeout=")
    assert variables["LEADRE_FEAST_REDIS"].startswith("cache.example:6380,")  # the queue stays where it was


@given(user=st.text(min_size=1, max_size=12), password=st.text(min_size=1, max_size=12))
def test_any_login_survives_the_way_to_the_registry(user: str, password: str) -> None:
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@db.example:6543/ads"
    settings = Settings(home=Path(), database_url=url, redis_url="rediss://h", feature_repo=Path())
    variables = settings.feast_environment()
    registry = make_url(variables["LEADRE_FEAST_REGISTRY_URL"])
    assert (registry.username, registry.password) == (user, password)
    assert (variables["LEADRE_FEAST_DB_USER"], variables["LEADRE_FEAST_DB_PASSWORD"]) == (user, password)
    assert registry.query["options"] == "-csearch_path=feast_registry"
    assert variables["LEADRE_FEAST_REDIS"].startswith("h:6379,db=0,ssl=true")
