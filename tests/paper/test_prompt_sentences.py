"""Every sentence and example of §4.2.1, §4.2.2 and §4.3.1, as the paper prints it."""

from datetime import UTC, datetime, timedelta

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.semantic_id import SemanticId
from leadre.domain.users import Context, ContextBehavior, InterestSummary, Profile
from leadre.prompts import templates
from leadre.prompts.augment import reuse_positives
from leadre.prompts.render import render, render_explicit
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import PromptRecipe

NOW = datetime(2025, 1, 31, tzinfo=UTC)
# The example's behaviors: days ago, action, content title or S-ID, and the implicit example's title.
EXAMPLE = (
    (32, Action.WATCH, "reality", ""),
    (31, Action.CLICK, (51, 10, 67, 93, 0), "Bali 7-Day Tour"),
    (27, Action.WATCH, "shuttlecock", ""),
    (25, Action.WATCH, "Emotional/psychological age test", ""),
    (22, Action.CONVERSION, (243, 136, 23, 245, 0), "psychological test"),
    (19, Action.CLICK, (164, 243, 38, 88, 0), "Educational Counseling"),
    (16, Action.CONVERSION, (51, 10, 67, 93, 0), "Tarot reading"),
)
RECIPE = PromptRecipe()


def example_context() -> Context:
    behaviors = []
    for number, (days, action, shown, title) in enumerate(EXAMPLE):
        domain = Domain.CONTENT if isinstance(shown, str) else Domain.AD
        behavior = Behavior(
            user_id=1, domain=domain, action=action, item_id=number, occurred_at=NOW - timedelta(days=days)
        )
        behaviors.append(ContextBehavior(behavior=behavior, title=shown if isinstance(shown, str) else title))
    return Context(
        profile=Profile(
            user_id=1,
            age=22,
            sex="male",
            residence="Haidian, Beijing",
            education_level="bachelor's",
            occupation="Internet industry",
            consumption_level="medium",
        ),
        summary=InterestSummary(
            liked=(("emotion", 115), ("entertainment", 28), ("mental health", 8), ("education", 6), ("finance", 6))
        ),
        behaviors=tuple(behaviors),
        now=NOW,
    )


def sid_of(number: int) -> SemanticId | None:
    shown = EXAMPLE[number][2]
    return None if isinstance(shown, str) else SemanticId(shown)


def test_task_instruction():
    paper = (
        "The following is an instruction describing a task. "
        "Please give a response to complete this request appropriately.\n"
        "[Instruction]:<Learnable Token>Assuming you are an ad recommender system, <Prompt>, "
        "what ad will the user be interested in next time?"
    )
    words = templates.WORDINGS[0]
    assert f"{words.opening}{templates.LEARNABLE}{words.role}<Prompt>{words.question}" == paper
    empty = Context(profile=Profile(user_id=1), summary=InterestSummary(), behaviors=(), now=NOW)
    before, after = paper.split("<Prompt>")
    assert render(empty, recipe=RECIPE, sid_of=sid_of).text() == f"{before}{after}\n[Response]:"


def test_user_profile():
    paper = (
        "22-year-old male, resident in Haidian, Beijing, with a bachelor's degree, working in Internet industry, "
        "with a medium consumption level. "
    )
    assert paper in render(example_context(), recipe=RECIPE, sid_of=sid_of).text()


def test_interest_summary():
    paper = (
        "The categories that have been frequently interacted recently are (format: category^interaction times): "
        "emotion^115 times; entertainment^28 times; mental health^8 times; education^6 times; finance^6 times; "
    )
    assert paper in render(example_context(), recipe=RECIPE, sid_of=sid_of).text()


def test_the_whole_example_prompt():
    # The paper writes the types of its example in three ways; the words here are the ones it repeats. Its example
    # leaves out "[Instruction]: ... Assuming you are an ad recommender system", which its template has.
    paper = (
        "The following is an instruction describing a task. "
        "Please give a response to complete this request appropriately.\n"
        "[Instruction]:<Learnable Token>Assuming you are an ad recommender system, "
        "22-year-old male, resident in Haidian, Beijing, with a bachelor's degree, working in Internet industry, "
        "with a medium consumption level. "
        "The categories that have been frequently interacted recently are (format: category^interaction times): "
        "emotion^115 times; entertainment^28 times; mental health^8 times; education^6 times; finance^6 times; "
        "The most recent interaction behavior sequence details (format: time^behavior type^title) are "
        "32 days ago^Play short video^reality; "
        "31 days ago^Click ad^<a_51, b_10, c_67, d_93, e_0>; "
        "27 days ago^Play short video^shuttlecock; "
        "25 days ago^Play short video^Emotional/psychological age test; "
        "22 days ago^Conversion ad^<a_243, b_136, c_23, d_245, e_0>; "
        "19 days ago^Click ad^<a_164, b_243, c_38, d_88, e_0>; "
        "16 days ago^Conversion ad^<a_51, b_10, c_67, d_93, e_0>, "
        "what ad will the user be interested in next time?\n"
        "[Response]:"
    )
    assert render(example_context(), recipe=RECIPE, sid_of=sid_of).text() == paper


def test_response():
    vocabulary = Vocabulary(text_size=1000, code_counts=(1024, 1024, 1024, 1024, 32))
    sid = SemanticId.parse("<a_122, b_28, c_35, d_15, e_0>")
    names = vocabulary.tokens()
    assert [names[token - 1000] for token in vocabulary.sid_ids(sid)] == [
        "<a_122>", "<b_28>", "<c_35>", "<d_15>", "<e_0>",
    ]  # fmt: skip


def test_ad_positive_interaction_reuse():
    # The third sample is printed without a target, ⟨[c1, a2]⟩; as the two others go, it is ⟨[c1], a2⟩.
    samples = reuse_positives(["c1", "a2", "a3", "c4", "a5"], [False, True, True, False, True])
    assert samples == [(["c1", "a2", "a3", "c4"], "a5"), (["c1", "a2"], "a3"), (["c1"], "a2")]


def test_explicit_alignment():
    description = (
        "The name of the ad is SAIC Volkswagen-New Energy-ID.3; The product type is Automobile Products; "
        "The first-level category is Automobile; The second-level category is SAIC Volkswagen-New Energy; "
        "The attributes include: automobile brand_Volkswagen, automobile series_Volkswagen ID.3."
    )
    paper = f'Given the ad\'s detailed description "{description}", what is the corresponding ad?\n[Response]:'
    assert render_explicit(description, recipe=RECIPE).text() == f"<Learnable Token>{paper}"
    assert render_explicit(description, recipe=PromptRecipe(learnable_token=False)).text() == paper


def test_implicit_alignment():
    paper = (
        "The most recent interaction behavior sequence details (format: time^behavior type^title) are "
        "32 days ago^Play short video^reality; 31 days ago^Click ad^Bali 7-Day Tour; "
        "27 days ago^Play short video^shuttlecock; "
        "25 days ago^Play short video^Emotional/psychological age test; "
        "22 days ago^Conversion ad^psychological test; 19 days ago^Click ad^Educational Counseling; "
        "16 days ago^Conversion ad^Tarot reading, what ad will the user be interested in next time?\n[Response]:"
    )
    assert render(example_context(), recipe=RECIPE, sid_of=sid_of, describe="title").text().endswith(paper)
