"""A user's walk: what it shows is what happened, and text from outside cannot break its page."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from leadre.domain.ads import Ad
from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.retrieval import Beam, RetrievalList
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.explain import beam_tree, prompt_parts
from leadre.prompts.render import render
from leadre.recipe import PromptRecipe
from leadre.report.trace import Trace, as_markdown

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIDS = {7: SemanticId((3, 1, 0)), 8: SemanticId((3, 2, 0)), 9: SemanticId((5, 0, 0))}


def beam(ad_id: int, probability: float) -> Beam:
    return Beam(sid=SIDS[ad_id], ad_id=ad_id, log_probability=math.log(probability))


@pytest.fixture
def walk() -> Trace:
    click = Behavior(user_id=4, domain=Domain.AD, action=Action.CLICK, item_id=7, occurred_at=NOW)
    context = Context(
        profile=Profile(user_id=4, age=30),
        summary=InterestSummary(liked=(("Sofas", 2),)),
        behaviors=(ContextBehavior(behavior=click, title="Sofa | <b>bold</b>"),),
        now=NOW,
    )
    ads = {
        ad_id: Ad(
            ad_id=ad_id,
            source_id=str(ad_id),
            name=f"Ad {ad_id} | x",
            ad_type="",
            first_category="Home",
            second_category="Sofas",
            attributes=(),
            advertiser_id=1,
            bid=1.0,
            created_at=NOW,
        )
        for ad_id in SIDS
    }
    beams = (beam(7, 0.5), beam(8, 0.25), beam(9, 0.05))
    return Trace(
        user=4,
        context=context,
        prompt=render(context, recipe=PromptRecipe(), sid_of=SIDS.get),
        prompt_tokens=61,
        retrieved=RetrievalList(
            user_id=4, release="r1", index_version="i1", generated_at=NOW, event_at=NOW, beams=beams
        ),
        ads=ads,
        target_ads=(7, 9),
        simulated_ecpm=True,
        features={"hit": [1, 1], "rank": [1, 3], "retrieved_count": [3, 3], "entropy": [0.8, 0.8]},
        now=NOW,
    )


def test_the_tree_has_parents_before_children_and_shares_that_add_up(walk: Trace) -> None:
    tree = beam_tree(walk.retrieved.beams)
    shares = dict(tree)
    assert [prefix for prefix, _ in tree] == sorted(shares)
    assert shares[(3,)] == pytest.approx(0.75 / 0.8)
    assert shares[(3,)] == pytest.approx(shares[(3, 1)] + shares[(3, 2)])
    assert shares[(3,)] + shares[(5,)] == pytest.approx(1.0)


def test_the_pages_tables_keep_their_columns_whatever_a_title_holds(walk: Trace) -> None:
    page = as_markdown(walk)
    for block in page.split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    assert "| 7 | Ad 7 \\| x | 1 | 1 |" in page


@given(name=st.text(st.sampled_from("aZ7ö_*`|\\<>[]()&;#~!-. "), min_size=1, max_size=12).map(str.strip).filter(bool))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_are_shown_letter_for_letter_whatever_marks_they_hold(walk: Trace, name: str) -> None:
    ads = {**walk.ads, 7: replace(walk.ads[7], source_id=name)}
    page = as_markdown(replace(walk, user=name, ads=ads))
    read = MarkdownIt().enable("table").parse(page)
    texts = ["".join(part.content for part in token.children or ()) for token in read if token.type == "inline"]
    assert any(text.startswith(f"User {name}, release r1, ") for text in texts)
    assert texts.count(name) >= 2  # in the list, and as a target ad
    command = next(token.content for token in read if token.type == "code_block")
    assert shlex.split(command) == ["leadre", "trace", name, name, "9"]


def test_the_page_shows_the_prompt_word_for_word(walk: Trace) -> None:
    page = as_markdown(walk)
    fenced = page.split("```text\n")[1].split("\n```")[0]
    assert " ".join(fenced.split()) == " ".join(walk.prompt.text().split())


def test_coloured_parts_together_are_the_prompt(walk: Trace) -> None:
    parts = list(prompt_parts(walk.prompt))
    assert "".join(text for _, text in parts) == walk.prompt.text()
    assert ("sid", "<a_3, b_1, c_0>") in parts
