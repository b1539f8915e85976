"""Where instances are: as named, or every address of a name, looked up now and then."""

from __future__ import annotations

import pytest

from leadre.errors import ConfigError
from leadre.retrieval.balancer.addresses import LOOK_UP_S, Addresses


def test_addresses_are_used_as_they_stand() -> None:
    urls = ("http://a:1", "https://b:2")
    assert Addresses(urls)() == urls


def test_a_name_stands_for_every_address_it_has_and_is_looked_up_again() -> None:
    found, now = [["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "fd00::3"]], [0.0]
    asked: list[tuple[str, int]] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return found[len(asked) - 1]

    addresses = Addresses(["dns+http://engines:8030", "http://a:1"], look_up=look_up, clock=lambda: now[0])

    assert addresses() == ("http://a:1", "http://10.0.0.1:8030", "http://10.0.0.2:8030")
    now[0] = LOOK_UP_S - 0.1
    assert len(addresses()) == 3
    now[0] = LOOK_UP_S
    assert addresses() == ("http://a:1", "http://10.0.0.2:8030", "http://[fd00::3]:8030")
    assert asked == [("engines", 8030)] * 2


def test_a_name_that_cannot_be_looked_up_keeps_its_addresses() -> None:
    now, fails = [0.0], [False]

    def look_up(host: str, port: int) -> list[str]:
        if fails[0]:
            raise OSError
        return ["10.0.0.1"]

    addresses = Addresses(["dns+http://engines:8030"], look_up=look_up, clock=lambda: now[0])
    assert addresses() == ("http://10.0.0.1:8030",)
    now[0], fails[0] = 2 * LOOK_UP_S, True
    assert addresses() == ("http://10.0.0.1:8030",)


def test_this_machine_has_an_address() -> None:
    assert "http://127.0.0.1:8030" in Addresses(["dns+http://localhost:8030"])()


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "LEADRE_ENGINE_URLS"),
        (["ftp://a:1"], "http://host:port"),
        (["http://a:1/v1"], "http://host:port"),
        (["http://"], "http://host:port"),
        (["dns+http://engines"], "has no port"),
    ],
)
def test_what_is_no_address_is_refused(urls: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Addresses(urls)
