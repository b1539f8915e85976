"""API keys: what a file lets in, how often, and what a server without keys may listen on."""

from __future__ import annotations

import asyncio
import logging
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from leadre.cli import cli
from leadre.errors import ConfigError
from leadre.serving.guard import Guarded, check_reach
from leadre.serving.keys import LONGEST_KEY, Allowed, Keys, Refused, new_key, presented_key, read_keys


def line(name: str, key: str, limit: str = "") -> str:
    return f"{name}:{sha256(key.encode()).hexdigest()}{limit}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_text("# the shop's\n\n" + line("shop", "first") + line("slow", "second", ":2") + line("shop", "next"))
    return path


def test_a_key_of_the_file_comes_in_under_its_name_and_others_do_not(file: Path) -> None:
    keys = Keys(file)
    assert keys.allow(b"first", 0.0) == keys.allow(b"next", 0.0) == Allowed(name="shop")
    for wrong in (None, b"", b"First", b"first ", b"x" * (LONGEST_KEY + 1), b"\xff\0", sha256(b"first").digest()):
        answer = keys.allow(wrong, 0.0)
        assert isinstance(answer, Refused)
        assert answer.status == 401


def test_every_known_hash_is_compared_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare_digest(known: str, presented: str) -> bool:
        compared.append((known, presented))
        return known == presented

    monkeypatch.setattr("leadre.serving.keys.hmac.compare_digest", compare_digest)
    keys = Keys(file)
    for key in (b"first", b"next", b"nobody's"):
        compared.clear()
        keys.allow(key, 0.0)
        assert [known for known, _ in compared] == [known.sha256 for known in read_keys(file)]
        assert {presented for _, presented in compared} == {sha256(key).hexdigest()}


def test_a_key_that_asks_too_often_is_told_when_to_come_back(file: Path) -> None:
    keys = Keys(file)
    assert [isinstance(keys.allow(b"second", 10.0), Allowed) for _ in range(4)] == [True, True, False, False]
    answer = keys.allow(b"second", 10.0)
    assert isinstance(answer, Refused)
    assert (answer.status, answer.retry_after_s) == (429, 1)
    assert "2 requests/s" in answer.problem
    assert isinstance(keys.allow(b"first", 10.0), Allowed)  # others are not held up
    assert isinstance(keys.allow(b"second", 10.5), Allowed)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.floats(0.5, 50))
def test_no_window_sees_more_than_its_seconds_bring_and_one_burst(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[float], rate: float
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    rate = round(rate, 3)
    path.write_text(line("one", "k", f":{rate}"))
    keys, now, taken = Keys(path), 0.0, []
    for pause in pauses:
        now += pause
        if isinstance(keys.allow(b"k", now), Allowed):
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= (taken[last] - taken[first]) * rate + max(1.0, rate) + 1e-6


def test_a_changed_file_counts_within_a_second_and_a_broken_one_leaves_the_keys_as_they_were(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Keys(file)
    assert isinstance(keys.allow(b"second", 0.0), Allowed)
    assert isinstance(keys.allow(b"second", 0.0), Allowed)
    file.write_text(line("slow", "second", ":2") + line("new", "third"))
    os.utime(file, ns=(1, 1))
    assert isinstance(keys.allow(b"third", 0.5), Refused)
    assert isinstance(keys.allow(b"third", 1.0), Allowed)
    assert isinstance(keys.allow(b"first", 1.0), Refused)
    with caplog.at_level(logging.ERROR):
        file.write_text("nonsense")
        assert isinstance(keys.allow(b"third", 2.0), Allowed)
        file.unlink()
        assert isinstance(keys.allow(b"third", 3.0), Allowed)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "keys_not_read"
    ] * 2
    file.write_text(line("other", "fourth"))
    assert isinstance(keys.allow(b"fourth", 4.0), Allowed)
    assert isinstance(keys.allow(b"third", 4.0), Refused)


def test_reading_the_file_anew_fills_no_bucket(file: Path) -> None:
    file.write_text(line("slow", "second", ":0.5"))
    keys = Keys(file)
    assert isinstance(keys.allow(b"second", 0.0), Allowed)
    file.write_text(file.read_text() + line("new", "third"))
    assert isinstance(keys.allow(b"second", 1.0), Refused)
    assert isinstance(keys.allow(b"third", 1.0), Allowed)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a b:" + "0" * 64, "line 1: its name"),
        ("#\nshop", "line 2: its hash"),
        ("shop:" + "0" * 63, "its hash"),
        ("shop:" + "G" * 64, "its hash"),
        ("shop:" + "0" * 64 + ":", "its requests/s"),
        ("shop:" + "0" * 64 + ":0", "its requests/s"),
        ("shop:" + "0" * 64 + ":1e9", "its requests/s"),
        ("shop:" + "0" * 64 + ":nan", "its requests/s"),
        ("shop:" + "0" * 64 + "\nother:" + "0" * 64, "line 2: its hash is in the file already"),
        ("sh\xf6p:" + "0" * 64, "not ASCII"),
    ],
)
def test_a_file_that_is_none_is_refused_by_line_without_quoting_it(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "keys.txt").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=problem) as caught:
        Keys(tmp_path / "keys.txt")
    assert "0" * 20 not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"LEADRE_API_KEYS_FILE .*no such file"):
        Keys(tmp_path / "keys.txt")


@given(name=st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z"), rate=st.none() | st.floats(0.001, 9_999_999))
def test_a_new_key_s_line_lets_that_key_in(
    tmp_path_factory: pytest.TempPathFactory, name: str, rate: float | None
) -> None:
    key, written = new_key(name, requests_per_s=rate)
    assert key not in written
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.write_text(written + "\n")
    assert Keys(path).allow(key.encode(), 0.0) == Allowed(name=name)
    (read,) = read_keys(path)
    assert read.requests_per_s == (None if rate is None else pytest.approx(rate, rel=1e-2, abs=1e-3))


def test_the_command_shows_the_key_apart_from_its_line() -> None:
    done = CliRunner().invoke(cli, ["keys", "new", "shop", "--rate", "500"])
    assert done.exit_code == 0
    key = done.stderr.split()[-1]
    assert done.stdout == line("shop", key, ":500")
    assert CliRunner().invoke(cli, ["keys", "new", "shop"]).stderr.split()[-1] != key
    refused = CliRunner().invoke(cli, ["keys", "new", "a:b"])
    assert isinstance(refused.exception, ConfigError)


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"authorization", b"Bearer abc")], b"abc"),
        ([(b"authorization", b"bearer  abc ")], b"abc"),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"x-api-key", b"abc"), (b"authorization", b"Bearer other")], b"abc"),
    ],
)
def test_a_key_is_presented_in_either_header(headers: list[tuple[bytes, bytes]], key: bytes | None) -> None:
    assert presented_key(headers) == key


@pytest.fixture
def asked(file: Path) -> Any:
    """Ask a guarded application; return status, headers and body."""
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})

    guarded = Guarded(app, Keys(file), clock=lambda: 0.0)

    def ask(path: str, *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(guarded({"type": "http", "path": path, "headers": list(headers)}, None, send))
        assert bool(reached) == (sent[0]["status"] == 200)
        reached.clear()
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]

    return ask


def test_without_a_key_only_the_probes_are_answered(asked: Any) -> None:
    for path in ("/healthz", "/readyz"):
        assert asked(path)[0] == 200
    for path in ("/", "/metrics", "/openapi.json", "/v1/users/5/ads", "/healthz/../v1/users/5/ads", "/HEALTHZ"):
        status, headers, body = asked(path)
        assert (status, headers[b"www-authenticate"]) == (401, b"Bearer")
        assert b"API key" in body
    assert asked("/v1/users/5/ads", (b"authorization", b"Bearer first"))[2] == b"inside"


def test_too_many_requests_get_429_with_retry_after(asked: Any) -> None:
    answers = [asked("/", (b"x-api-key", b"second")) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert answers[-1][1][b"retry-after"] == b"1"


def test_a_server_without_keys_listens_on_the_loopback_only(file: Path) -> None:
    for address in ("127.0.0.1", "127.0.0.2", "::1", "::1%lo"):
        check_reach(address, keys=None, open_to_all=False)
    for address in ("0.0.0.0", "::", "192.168.0.7", "fe80::1%eth0"):
        with pytest.raises(ConfigError, match=r"LEADRE_API_KEYS_FILE.*--open"):
            check_reach(address, keys=None, open_to_all=False)
        check_reach(address, keys=Keys(file), open_to_all=False)
        check_reach(address, keys=None, open_to_all=True)
