"""The Mixer over real servers: three branches, each ad with its source, and paused ads gone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from leadre.domain.behavior import Action, Behavior, Domain
from leadre.domain.identity import id_of
from leadre.serving.mixer import create_app
from leadre.store.features.client import FeatureClient
from leadre.store.records import catalog, events, summaries
from leadre.store.records.database import connect, transaction

pytestmark = pytest.mark.slow


def test_every_branch_brings_ads_and_paused_ones_go(shop, running, until) -> None:
    user, now = shop.users[0], datetime.now(UTC) - timedelta(minutes=1)

    def clicked(user_id: int, *ads: str) -> list[Behavior]:
        return [
            Behavior(
                user_id=user_id,
                domain=Domain.AD,
                action=Action.CLICK,
                item_id=id_of(ad),
                occurred_at=now - timedelta(minutes=len(ads) - place),
            )
            for place, ad in enumerate(ads)
        ]

    database = connect(shop.settings.database_url)
    with transaction(database) as connection:
        others = [clicked(number, "SKU-8", f"SKU-{number}") for number in (10, 11, 11, 10)]
        for of_one in (*others, clicked(id_of(user), "SKU-8")):
            events.append_behaviors(connection, of_one, arrived_at=now)
        summaries.write_summaries(connection, now=datetime.now(UTC))
    features = FeatureClient(shop.settings.feature_repo, shop.settings.feast_environment())
    features.refresh_user_features([id_of(user)], now=datetime.now(UTC))
    features.close()

    async def scenario() -> None:
        async with running(create_app(shop.settings)) as mixer:

            async def mixed() -> dict[str, dict[str, object]]:
                answer = (await mixer.get(f"/v1/users/{user}/candidates")).json()
                return {} if answer["degraded"] else {str(ad["ad_id"]): ad for ad in answer["ads"]}

            async def complete() -> bool:
                return bool(await mixed())

            await until(complete, seconds=60)
            found = await mixed()
            assert (found["SKU-1"]["branches"], found["SKU-1"]["source"]) == (["leadre"], "llm")
            assert found["SKU-10"]["branches"] == ["covisitation", "popular"]
            assert found["SKU-10"]["source"] == "covisitation"
            assert (found["SKU-8"]["branches"], found["SKU-8"]["source"]) == (["popular"], "popular")
            with transaction(database) as connection:
                catalog.set_live(connection, ["SKU-10"], live=False)

            async def paused() -> bool:
                return "SKU-10" not in await mixed()

            await until(paused, seconds=60)
            metrics = (await mixer.get("/metrics")).text
            assert 'leadre_consumption_ratio{branch="leadre"}' in metrics

    asyncio.run(scenario())
    database.dispose()
