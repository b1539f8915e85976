import json
from dataclasses import replace

import numpy as np
import pytest

from leadre.decoding.stub import StubEngine
from leadre.domain.behavior import Domain
from leadre.domain.retrieval import Beam
from leadre.errors import InvalidInput, ReleaseMismatch
from leadre.indexing.ad_index import AdIndex
from leadre.pipelines.learning.evaluate import evaluate
from leadre.pipelines.learning.measures import LTR_LABELS
from leadre.pipelines.learning.train import read_training_data
from leadre.prompts.fit_length import PromptEncoder
from leadre.prompts.vocabulary import Vocabulary
from leadre.recipe import DecodingRecipe, EvaluationRecipe, PromptRecipe, Recipe, SasRecRecipe, TigerRecipe
from leadre.store.records import catalog, events, summaries
from leadre.store.records.database import connect, transaction
from leadre.synthetic import make_world

RECIPE = Recipe(
    name="tiny",
    decoding=DecodingRecipe(beam_width=9),
    evaluation=EvaluationRecipe(cutoffs=(8, 1, 10), batch_users=7),
)


@pytest.fixture(scope="module")
def world():
    return make_world(seed=2, ads=97, users=50, sessions=6)


@pytest.fixture(scope="module")
def index(world):
    count = len(world.ads)
    return AdIndex.assemble(
        version="v1",
        ad_ids=np.array([ad.ad_id for ad in world.ads]),
        codes=np.array([(at // 16, at % 16, 0) for at in range(count)], np.int32),
        first_categories=[ad.first_category for ad in world.ads],
        second_categories=[ad.second_category for ad in world.ads],
        advertiser_ids=np.array([ad.advertiser_id for ad in world.ads]),
        embeddings=np.zeros((count, 5), np.float32),
        code_counts=(7, 16, 2),
        quality={},
    )


@pytest.fixture(scope="module")
def encoder(index):
    vocabulary = Vocabulary(text_size=256, code_counts=index.code_counts)
    return PromptEncoder(vocabulary, lambda text: list(text.encode()), PromptRecipe())


@pytest.fixture
def loaded(database_url, world):
    engine = connect(database_url)
    with transaction(engine) as connection:
        catalog.upsert_ads(connection, world.ads)
        catalog.upsert_users(connection, world.profiles, event_at=world.now)
        catalog.upsert_content_items(connection, world.content_items)
        events.upsert_behaviors(connection, world.behaviors, arrived_at=world.now)
        events.upsert_impressions(connection, world.impressions, arrived_at=world.now)
    engine.dispose()
    return database_url


class Repeating:
    """Answers every prompt with the same ads: popularity, as an engine."""

    def __init__(self, index, ad_ids):
        self.index_version, self._index, self._ads, self.prompts = index.version, index, ad_ids, []

    def generate(self, prompts, *, beam_width, filters=None):
        self.prompts += prompts
        beams = [Beam(sid=self._index.sid(ad), ad_id=ad, log_probability=-float(at)) for at, ad in enumerate(self._ads)]
        return [beams[:beam_width] for _ in prompts]


def positive_ads(world):
    """Each user's positive ads, oldest first."""
    rows = [row for row in world.behaviors if row.positive and row.domain is Domain.AD]
    rows.sort(key=lambda row: (row.user_id, row.occurred_at, row.ordinal))
    found = {}
    for row in rows:
        found.setdefault(row.user_id, []).append(row.item_id)
    return list(found.values())


def last_ads(world):
    """Those of the users that are evaluated."""
    return [ads for ads in positive_ads(world) if len(ads) >= 3]


def last_shown(world):
    """The ads of the highest eCPM that each evaluated user was shown since the last click but one."""
    clicks = {}
    for row in world.behaviors:
        if row.positive and row.domain is Domain.AD:
            clicks.setdefault(row.user_id, []).append(row.occurred_at)
    labels = []
    for user, times in clicks.items():
        worth = {}
        for row in world.impressions:
            if row.user_id == user and len(times) >= 3 and row.occurred_at >= sorted(times)[-2]:
                worth[row.ad_id] = max(row.ecpm, worth.get(row.ad_id, 0.0))
        if worth:
            labels.append(set(sorted(worth, key=worth.__getitem__, reverse=True)[:LTR_LABELS]))
    return labels


def test_figures_are_those_counted_by_hand(loaded, world, index, encoder):
    ads = sorted(int(ad) for ad in index.ad_ids)[:20]
    engine = Repeating(index, ads)
    found = evaluate(database_url=loaded, index=index, engine=engine, encoder=encoder, recipe=RECIPE)
    wanted = last_ads(world)
    assert found.users == len(wanted)
    assert found.cutoffs == (1, 8, 10)
    assert found.mean("HR@8") == pytest.approx(np.mean([row[-1] in ads[:8] for row in wanted]))
    assert found.mean("HR@10") == pytest.approx(np.mean([row[-1] in ads[:10] for row in wanted]))
    categories = [{ad.ad_id: ad.first_category for ad in world.ads}[ad] for ad in ads[:8]]
    assert found.lists["leadre"].abundance == len(set(categories))
    labels = last_shown(world)
    for cutoff in (4, 8):
        recalled = np.mean([len(set(ads[:cutoff]) & wanted) / len(wanted) for wanted in labels])
        assert found.lists["leadre"].ltrr[f"LTRR@{cutoff}"] == pytest.approx(recalled)
    difference = found.differences["popularity"]["HR@10"].mean
    assert difference == pytest.approx(found.mean("HR@10") - found.mean("HR@10", system="popularity"))


def test_the_target_and_what_follows_are_not_in_the_prompt(loaded, world, index, encoder):
    engine = Repeating(index, [int(index.ad_ids[0])])
    evaluate(database_url=loaded, index=index, engine=engine, encoder=encoder, recipe=RECIPE)
    histories = [row[:-1] for row in last_ads(world)]
    sids = [[token for ad in row for token in encoder.vocabulary.sid_ids(index.sid(ad))] for row in histories]
    own = [[token for token in prompt if encoder.vocabulary.level_of(token) is not None] for prompt in engine.prompts]
    assert len(own) == len(sids)  # the times of this world differ
    assert sorted(own) == sorted(sids)


def test_a_real_engine_and_the_baselines_give_a_plain_report(loaded, index, encoder):
    told = []
    found = evaluate(
        database_url=loaded,
        index=index,
        engine=StubEngine(index, vocabulary_size=encoder.vocabulary.size),
        encoder=encoder,
        recipe=replace_evaluation(max_users=11),
        progress=lambda *said: told.append(said),
    )
    assert told[-1] == ("users evaluated", 11, 11)
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["users"] == 11
    assert set(plain["metrics"]) == set(plain["lists"]) == {"leadre", "popularity", "co_visitation"}
    for views in plain["metrics"].values():
        assert set(views) == {"canonical", "untied", "shuffled"}
        for figure in views["shuffled"].values():
            assert 0 <= figure["low"] <= figure["mean"] <= figure["high"] <= 1
    assert plain["lists"]["leadre"]["mean_ecpm"] > 0
    assert set(plain["lists"]["popularity"]["ltrr"]) == {"LTRR@4", "LTRR@8"}


def test_without_impressions_there_is_no_ltrr(loaded, index, encoder):
    engine = connect(loaded)
    with transaction(engine) as connection:
        connection.exec_driver_sql("DELETE FROM impressions")
    engine.dispose()
    few = replace_evaluation(max_users=3)
    found = evaluate(database_url=loaded, index=index, engine=Repeating(index, []), encoder=encoder, recipe=few)
    assert found.lists["leadre"].ltrr == {}


def test_sasrec_is_measured_when_the_recipe_asks_for_it(loaded, index, encoder):
    told = set()
    tiny = SasRecRecipe(width=8, layers=1, heads=2, positions=20, epochs=2)
    found = evaluate(
        database_url=loaded,
        index=index,
        engine=Repeating(index, [int(index.ad_ids[0])]),
        encoder=encoder,
        recipe=replace_evaluation(baselines=("sasrec", "popularity"), sasrec=tiny),
        progress=lambda *said: told.add(said),
    )
    assert list(found.metrics) == ["leadre", "sasrec", "popularity"]
    assert ("SASRec epochs", 2, 2) in told
    assert found.mean("HR@8", system="sasrec") > 0
    assert found.lists["sasrec"].abundance > 1


def test_tiger_is_measured_when_the_recipe_asks_for_it(loaded, index, encoder):
    tiny = TigerRecipe(width=16, layers=1, heads=2, feed_forward=24, positions=5, epochs=2)
    found = evaluate(
        database_url=loaded,
        index=index,
        engine=Repeating(index, [int(index.ad_ids[0])]),
        encoder=encoder,
        recipe=replace_evaluation(baselines=("tiger", "popularity"), tiger=tiny),
    )
    assert list(found.metrics) == ["leadre", "tiger", "popularity"]
    assert found.mean("HR@8", system="tiger") > 0
    assert found.lists["tiger"].abundance > 1


def test_slices_count_their_users_and_their_figures_add_up(loaded, world, index, encoder):
    engine = connect(loaded)
    with transaction(engine) as connection:
        summaries.write_summaries(connection, now=world.now)
    engine.dispose()
    ads = sorted(int(ad) for ad in index.ad_ids)[:20]
    found = evaluate(
        database_url=loaded, index=index, engine=Repeating(index, ads), encoder=encoder, recipe=replace_evaluation()
    )
    wanted = last_ads(world)
    learnt = {ad for row in positive_ads(world) for ad in (row[:-2] if len(row) >= 3 else row)}
    cold = [row for row in wanted if row[-1] not in learnt]
    assert found.slices["cold_ads"].users == len(cold) > 0
    hits = found.slices["cold_ads"].metrics["leadre"]["HR@8"]
    assert hits.mean == pytest.approx(np.mean([row[-1] in ads[:8] for row in cold]))
    assert hits.low <= hits.mean <= hits.high
    assert found.slices["short_histories"].users == sum(len(row) - 1 <= 5 for row in wanted)
    both = [found.slices[f"{seen}_transitions"].users for seen in ("seen", "unseen")]
    assert min(both) > 0
    assert sum(both) == found.users
    bands = [part for name, part in found.slices.items() if name.startswith("arpu_")]
    assert sum(part.users for part in bands) == found.users
    for system in found.metrics:
        total = sum(part.users * part.metrics[system]["NDCG@8"].mean for part in bands)
        assert total == pytest.approx(found.users * found.mean("NDCG@8", system=system))


def test_one_cut_in_time_divides_what_is_learned_from_what_is_asked(loaded, world, index, encoder):
    recipe = replace_evaluation(split="global_time", test_share=0.4)
    times = sorted(row.occurred_at for row in world.behaviors if row.positive and row.domain is Domain.AD)
    cut = times[-1] - 0.4 * (times[-1] - times[0])
    rows = sorted(
        (row for row in world.behaviors if row.positive and row.domain is Domain.AD),
        key=lambda row: (row.user_id, row.occurred_at, row.ordinal),
    )
    wanted = []
    for user in {row.user_id for row in rows}:
        early = [row.item_id for row in rows if row.user_id == user and row.occurred_at < cut]
        late = [row.item_id for row in rows if row.user_id == user and row.occurred_at >= cut]
        if len(early) >= 2 and late:
            wanted.append(late[0])
    ads = sorted(int(ad) for ad in index.ad_ids)[:20]
    found = evaluate(database_url=loaded, index=index, engine=Repeating(index, ads), encoder=encoder, recipe=recipe)
    assert (found.users, found.tied) == (len(wanted), 0)
    assert 0 < found.users < len(last_ads(world))
    assert found.mean("HR@8") == pytest.approx(np.mean([target in ads[:8] for target in wanted]))
    data = read_training_data(database_url=loaded, index=index, recipe=recipe, now=world.now)
    learnt = [data.sequences[user][at].occurred_at for user, places in enumerate(data.targets) for at in places]
    assert max(learnt) < cut < world.now


def test_ties_are_shuffled_in_prompts_and_targets_alike(loaded, world, index, encoder):
    """With all behaviors at one instant every user is tied; a perfect engine stays perfect in either order."""
    engine = connect(loaded)
    at = world.now
    with transaction(engine) as connection:
        connection.exec_driver_sql("DELETE FROM behaviors")
        rows = [replace(row, occurred_at=at, ordinal=number) for number, row in enumerate(world.behaviors)]
        events.upsert_behaviors(connection, rows, arrived_at=world.now)
    engine.dispose()
    asked = Repeating(index, sorted(index.ad_ids.tolist()))
    wide = replace_evaluation(cutoffs=(len(index),))
    found = evaluate(database_url=loaded, index=index, engine=asked, encoder=encoder, recipe=wide)
    assert found.tied == found.users
    assert found.users * 1.2 < len(asked.prompts) < found.users * 1.8
    metric = f"HR@{len(index)}"
    assert found.mean(metric) == found.mean(metric, view="shuffled") == 1
    assert found.metrics["leadre"]["untied"][metric].mean == 0
    ndcg = f"NDCG@{len(index)}"
    assert found.mean(ndcg) != found.mean(ndcg, view="shuffled")


def test_another_index_and_no_users_are_refused(database_url, index, encoder):
    other = replace(index, version="v2")
    with pytest.raises(ReleaseMismatch, match="v1"):
        evaluate(database_url=database_url, index=other, engine=Repeating(index, []), encoder=encoder, recipe=RECIPE)
    with pytest.raises(InvalidInput, match="import behaviors"):
        evaluate(database_url=database_url, index=index, engine=Repeating(index, []), encoder=encoder, recipe=RECIPE)


def replace_evaluation(**settings):
    return Recipe(name="tiny", decoding=RECIPE.decoding, evaluation=EvaluationRecipe(**{"cutoffs": (1, 8), **settings}))
