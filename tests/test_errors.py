"""The tree of errors, and the log lines."""

from __future__ import annotations

import inspect
import json
import logging
import pickle
from collections.abc import Iterator
from datetime import datetime

import pytest

from leadre import errors, logs
from leadre.errors import ConfigError, InvalidInput, InvalidSemanticId, LeadreError, Unavailable, UnknownAd


@pytest.fixture
def loggers_restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("leadre", "workers")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.level, logger.propagate = handlers, level, propagate


def tree() -> list[type[LeadreError]]:
    return [each for _, each in inspect.getmembers(errors, inspect.isclass) if each is not LeadreError]


def test_the_drawn_tree_is_the_real_one() -> None:
    assert all(issubclass(each, LeadreError) for each in tree())
    drawn = [line.split()[1] for line in (errors.__doc__ or "").splitlines() if "──" in line]
    assert sorted(drawn) == sorted(each.__name__ for each in tree())


def test_standard_handlers_catch_what_they_would_expect() -> None:
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(InvalidSemanticId, ValueError)
    assert issubclass(UnknownAd, KeyError)
    assert issubclass(Unavailable, ConnectionError)


def test_only_a_server_that_does_not_answer_is_worth_a_retry() -> None:
    assert [each for each in tree() if issubclass(each, OSError)] == [Unavailable]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidInput("bid is -1", source="ads.csv", row=12, column="bid"), "ads.csv, row 12, column 'bid': bid is -1"),
        (InvalidInput("bid is -1", row=0), "row 0: bid is -1"),
        (InvalidInput("empty"), "empty"),
        (UnknownAd("ad 7 is not in index i1"), "ad 7 is not in index i1"),
        (UnknownAd(), ""),
        (ConfigError("no"), "no"),
    ],
)
def test_messages_read_as_sentences(error: LeadreError, text: str) -> None:
    assert str(error) == text


def test_bad_data_keeps_its_place() -> None:
    error = InvalidInput("bid is -1", source="ads.csv", row=12, column="bid")
    assert (error.problem, error.source, error.row, error.column) == ("bid is -1", "ads.csv", 12, "bid")


def test_errors_cross_process_boundaries() -> None:
    for each in tree():
        copied = pickle.loads(pickle.dumps(each("what happened").about(ads=[7], users=range(2))))
        assert (type(copied), str(copied)) == (each, "what happened")
        assert (copied.ad_ids, copied.user_ids) == ((7,), (0, 1))
        assert (each("another").ad_ids, each("another").user_ids) == ((), ())


@pytest.mark.usefixtures("loggers_restored")
def test_a_log_line_is_one_json_object_with_the_extra_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(level="INFO")
    logs.configure(level="INFO")
    logger = logging.getLogger("leadre.retrieval")
    logger.debug("hidden")
    logger.info("refreshed %d users", 5, extra={"release": "r1", "duration_s": 0.25, "_of_a_library": 1})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    entry = json.loads(lines[0])
    assert datetime.fromisoformat(entry.pop("time")).utcoffset() is not None
    assert entry == {
        "level": "info",
        "logger": "leadre.retrieval",
        "event": "refreshed 5 users",
        "release": "r1",
        "duration_s": 0.25,
    }


@pytest.mark.usefixtures("loggers_restored")
def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise Unavailable("Redis does not answer")
    except Unavailable:
        logging.getLogger("workers").exception("refresh failed")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "Redis does not answer" in json.loads(lines[0])["exception"]
