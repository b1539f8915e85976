"""A seeded ad world whose right answers are known: demo data, tests, simulation.

Users have interests in products; an interest becomes an intent; an intent shows first in the content domain and then
decides which of the ads shown are clicked and converted. So whoever reads both domains can know the next ad, and
`World.truth` says how well it could be known. Everything here is made up; eCPM is marked simulated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from leadre.domain.ads import Ad, ContentItem
from leadre.domain.behavior import Action, Behavior, Domain, Impression
from leadre.domain.users import Profile
from leadre.errors import InvalidInput

CATALOGUE: dict[str, dict[str, tuple[str, ...]]] = {
    "Automobile": {
        "Electric Cars": ("electric sedan", "electric SUV", "city electric car"),
        "Car Care": ("engine oil", "car wax", "winter tyres"),
        "Motorcycles": ("touring motorcycle", "scooter", "motorcycle helmet"),
        "Car Rental": ("weekend car rental", "camper van rental", "airport car rental"),
    },
    "Travel": {
        "Island Holidays": ("Bali holiday", "Maldives resort", "Hainan beach week"),
        "City Trips": ("Tokyo city trip", "Paris museum pass", "Singapore weekend"),
        "Outdoor Trips": ("alpine hiking tour", "desert safari", "river rafting"),
        "Hotels": ("business hotel", "hot spring hotel", "family hotel"),
    },
    "Education": {
        "Languages": ("English course", "Japanese course", "Spanish tutor"),
        "Programming": ("Python bootcamp", "web design class", "data analysis course"),
        "Exam Coaching": ("college entrance coaching", "maths tutoring", "graduate exam coaching"),
        "Music Lessons": ("piano lessons", "guitar lessons", "singing lessons"),
    },
    "Beauty": {
        "Skin Care": ("face cream", "sunscreen", "cleansing foam"),
        "Makeup": ("lipstick", "eyeshadow palette", "foundation"),
        "Hair Care": ("shampoo", "hair dryer", "hair oil"),
        "Fragrance": ("rose perfume", "cologne", "scented candle"),
    },
    "Electronics": {
        "Phones": ("flagship phone", "folding phone", "budget phone"),
        "Phone Accessories": ("phone case", "wireless charger", "power bank"),
        "Computers": ("gaming laptop", "office laptop", "tablet computer"),
        "Audio": ("noise cancelling headphones", "bluetooth speaker", "studio microphone"),
    },
    "Games": {
        "Role Playing": ("dragon role playing game", "martial arts game", "space opera game"),
        "Strategy": ("kingdom strategy game", "tower defence game", "chess app"),
        "Casual": ("puzzle game", "farm game", "card game"),
        "Sports Games": ("football manager", "racing game", "basketball game"),
    },
    "Home": {
        "Furniture": ("sofa", "standing desk", "bookshelf"),
        "Kitchen": ("air fryer", "coffee machine", "chef knife"),
        "Pets": ("cat food", "dog harness", "aquarium"),
        "Garden": ("lawn mower", "garden lights", "rose seedlings"),
    },
    "Finance": {
        "Insurance": ("car insurance", "health insurance", "travel insurance"),
        "Credit": ("credit card", "mortgage", "instalment plan"),
        "Investing": ("index fund", "gold savings", "stock trading app"),
        "Tax": ("tax software", "bookkeeping app", "payroll service"),
    },
}
"""First-level category -> second-level category -> products."""

_SYLLABLES = ("Lu", "Mira", "Ko", "Ven", "Tao", "Sol", "Neri", "Or", "Zan", "Hai", "Bel", "Qi")
_VARIANTS = ("Classic", "Pro", "Lite", "Plus", "Mini", "Max", "Studio", "Prime")
_TOPICS = ("review", "unboxing", "tips", "guide", "best of", "story")
_CITIES = ("Haidian, Beijing", "Nanshan, Shenzhen", "Tianhe, Guangzhou", "Wuhou, Chengdu", "Xuhui, Shanghai")
_EDUCATION = ("high school", "bachelor's", "master's")
_WORK = ("Internet industry", "education", "manufacturing", "healthcare", "retail")
_SPENDING = ("low", "medium", "high")


CONVERSIONS_A_CLICK = 0.25
"""Share of clicks that convert, whatever the ad. So an ad's bid a click is a quarter of what a conversion is worth."""
TOPICS_A_PRODUCT = 6
"""Content items of each product; the first is a search, the others are watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the world knows and a recommender does not.

    Args:
        ad_product: int64[A], the product each ad sells.
        ad_brand: int64[A], whose it is.
        product_first: int64[P], the first-level category of each product.
        product_second: int64[P], the second-level one.
        follow_up: int64[P], "after this, that": phone -> charger.
        interests: float64[U, P], each user's distribution over products.
        favourite_brand: int64[U, F], the brand each user prefers in each first-level category.
        last_intent: int64[U], the product each user last had in mind.
        quality: float64[A], an ad's own pull, in logits.
    """

    ad_product: NDArray[np.int64]
    ad_brand: NDArray[np.int64]
    product_first: NDArray[np.int64]
    product_second: NDArray[np.int64]
    follow_up: NDArray[np.int64]
    interests: NDArray[np.float64]
    favourite_brand: NDArray[np.int64]
    last_intent: NDArray[np.int64]
    quality: NDArray[np.float64]

    def next_intent(self, rng: np.random.Generator, intent: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what each user has in mind at the next visit, int64[U]: the same, what follows it, or something new.

        Args:
            rng: draws two numbers a user.
            intent: int64[U], of the visit before.
        """
        mood = rng.random(len(intent))
        new = _sample_rows(rng, self.interests)
        return np.where(mood < 0.3, intent, np.where(mood < 0.55, self.follow_up[intent], new))

    def click_probability(
        self, users: NDArray[np.int64], intent: NDArray[np.int64], ads: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return how likely each shown ad is clicked, float64[n, k].

        Args:
            users: int64[n], positions.
            intent: int64[n], the product each has in mind.
            ads: int64[n, k], positions of the ads shown.
        """
        product = self.ad_product[ads]
        brand_match = self.ad_brand[ads] == self.favourite_brand[users[:, None], self.product_first[product]]
        logits = (
            -5.0
            + 4.2 * (product == intent[:, None])
            + 1.2 * (self.product_second[product] == self.product_second[intent][:, None])
            + 1.6 * brand_match
            + self.quality[ads]
        )
        probability: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
        return probability


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A whole made-up ad system: catalog, users, and what happened up to `now`."""

    seed: int
    now: datetime
    ads: tuple[Ad, ...]
    profiles: tuple[Profile, ...]
    content_items: tuple[ContentItem, ...]
    behaviors: tuple[Behavior, ...]
    impressions: tuple[Impression, ...]
    truth: Truth


def make_world(
    *,
    seed: int = 7,
    ads: int = 400,
    users: int = 2000,
    sessions: int = 9,
    slate: int = 6,
    days: int = 85,
    unlaunched: int = 0,
    now: datetime = datetime(2025, 6, 1, tzinfo=UTC),
) -> World:
    """Make a world. The same arguments give the same world.

    Args:
        seed: of all its randomness.
        ads: size of the inventory, at least one a product (96).
        users: how many.
        sessions: visits of each user; in each one intent, some content and one slate of ads.
        slate: ads shown in a visit.
        days: length of the history in days, ending at `now`.
        unlaunched: the last so many ads have never been shown yet.
        now: the end of the history.

    Raises:
        InvalidInput: fewer ads than products, or a size below 1.
    """
    products = _products()
    if ads - unlaunched < len(products) or min(users, sessions, slate, days) < 1 or unlaunched < 0:
        raise InvalidInput(
            f"{ads} ads, {unlaunched} of them not launched, {users} users: a world needs at least {len(products)} ads "
            "that are launched, and sizes of at least 1"
        )
    rng = np.random.default_rng(seed)
    inventory, ad_product, ad_brand, quality, bids = _make_ads(rng, ads, products, now - timedelta(days=days))
    content = _make_content(products)
    profiles, interests, favourite = _make_users(rng, users, products)
    product_first = np.array([first for first, _, _ in products])
    product_second = np.array([second for _, second, _ in products])
    follow_up = rng.permutation(len(products))  # a fixed "after this, that": phone -> charger
    popularity = rng.permutation(1.0 / (np.arange(ads) + 8.0))
    popularity[ads - unlaunched :] = 0.0
    popularity /= popularity.sum()
    truth = Truth(
        ad_product=ad_product,
        ad_brand=ad_brand,
        product_first=product_first,
        product_second=product_second,
        follow_up=follow_up.astype(np.int64),
        interests=interests,
        favourite_brand=favourite,
        last_intent=np.zeros(users, np.int64),
        quality=quality,
    )
    everyone = np.arange(users)

    behaviors: list[Behavior] = []
    impressions: list[Impression] = []
    intent = _sample_rows(rng, interests)
    starts = np.sort(rng.uniform(0.3, days, (users, sessions)), axis=1)[:, ::-1]  # days before now, oldest first
    for visit in range(sessions):
        intent = truth.next_intent(rng, intent)
        shown = _slates(rng, intent, ad_product, product_second, popularity, slate)
        click_probability = truth.click_probability(everyone, intent, shown)
        clicked = rng.random(shown.shape) < click_probability
        converted = clicked & (rng.random(shown.shape) < CONVERSIONS_A_CLICK)
        ecpm = 1000.0 * click_probability * bids[shown] * rng.lognormal(0.0, 0.1, shown.shape)
        watched, distraction = rng.random(users) < 0.85, rng.random(users) < 0.3
        topic, other_topic = rng.integers(0, len(_TOPICS), (2, users))
        for user in range(users):
            at = now - timedelta(days=float(starts[user, visit]))
            if watched[user]:
                item = int(intent[user]) * len(_TOPICS) + int(topic[user])
                action = Action.SEARCH if topic[user] == 0 else Action.WATCH
                behaviors.append(_behavior(user, Domain.CONTENT, action, item, at - timedelta(minutes=30), visit))
            if distraction[user]:
                item = int(rng.integers(len(products))) * len(_TOPICS) + int(other_topic[user])
                behaviors.append(_behavior(user, Domain.CONTENT, Action.SKIP, item, at - timedelta(minutes=20), visit))
            for place in range(slate):
                ad, then = int(shown[user, place]), at + timedelta(minutes=place)
                hit, bought = bool(clicked[user, place]), bool(converted[user, place])
                impressions.append(
                    Impression(
                        user_id=user,
                        ad_id=ad,
                        occurred_at=then,
                        ecpm=round(float(ecpm[user, place]), 4),
                        clicked=hit,
                        converted=bought,
                        simulated=True,
                    )
                )
                if hit:
                    action = Action.CONVERSION if bought else Action.CLICK
                    behaviors.append(_behavior(user, Domain.AD, action, ad, then, visit))
    return World(
        seed=seed,
        now=now,
        ads=inventory,
        profiles=profiles,
        content_items=content,
        behaviors=tuple(behaviors),
        impressions=tuple(impressions),
        truth=replace(truth, last_intent=intent),
    )


def _products() -> list[tuple[int, int, str]]:
    """Return (first-level index, second-level index, product) of every product."""
    products, second = [], 0
    for first, seconds in enumerate(CATALOGUE.values()):
        for names in seconds.values():
            products += [(first, second, name) for name in names]
            second += 1
    return products


def _brand_names() -> Iterator[str]:
    for head in _SYLLABLES:
        for tail in _SYLLABLES:
            if head != tail:
                yield head + tail.lower()


def _make_ads(
    rng: np.random.Generator, count: int, products: list[tuple[int, int, str]], created_at: datetime
) -> tuple[tuple[Ad, ...], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    firsts = list(CATALOGUE)
    seconds = [name for by_second in CATALOGUE.values() for name in by_second]
    brands_each = 5
    names = _brand_names()
    brands = [[next(names) for _ in range(brands_each)] for _ in firsts]
    ad_product = np.concatenate([np.arange(len(products)), rng.integers(0, len(products), count - len(products))])
    place = rng.integers(0, brands_each, count)
    ad_brand = np.array([products[p][0] for p in ad_product]) * brands_each + place
    quality = rng.normal(0.0, 0.8, count)
    bids = np.round(rng.lognormal(0.0, 0.7, count), 4)
    ads = []
    for ad in range(count):
        first, second, product = products[ad_product[ad]]
        brand = brands[first][place[ad]]
        variant = _VARIANTS[int(rng.integers(len(_VARIANTS)))]
        ads.append(
            Ad(
                ad_id=ad,
                source_id=str(ad),
                name=f"{brand} {product} {variant}",
                ad_type=f"{firsts[first]} Products",
                first_category=firsts[first],
                second_category=seconds[second],
                attributes=(f"brand_{brand}", f"product_{product}", f"series_{brand} {variant}"),
                advertiser_id=int(ad_brand[ad]),
                spu=product,
                bid=float(bids[ad]),
                created_at=created_at,
            )
        )
    return tuple(ads), ad_product.astype(np.int64), ad_brand.astype(np.int64), quality, bids


def _make_content(products: list[tuple[int, int, str]]) -> tuple[ContentItem, ...]:
    seconds = [name for by_second in CATALOGUE.values() for name in by_second]
    return tuple(
        ContentItem(
            content_id=index * len(_TOPICS) + topic,
            source_id=str(index * len(_TOPICS) + topic),
            title=f"{product} {word}",
            category=seconds[second],
            spu=product,
        )
        for index, (_, second, product) in enumerate(products)
        for topic, word in enumerate(_TOPICS)
    )


def _make_users(
    rng: np.random.Generator, count: int, products: list[tuple[int, int, str]]
) -> tuple[tuple[Profile, ...], NDArray[np.float64], NDArray[np.int64]]:
    firsts = len(CATALOGUE)
    product_first = np.array([first for first, _, _ in products])
    age = rng.integers(18, 66, count)
    male = rng.random(count) < 0.5
    spending = rng.integers(0, len(_SPENDING), count)
    arpu = np.round(rng.lognormal(0.5 + 0.8 * spending, 0.6), 2)
    # What people like depends on who they are (age decade and sex), beyond their own taste.
    group = (age // 10) * 2 + male
    group_taste = rng.gamma(0.6, 1.0, (int(group.max()) + 1, firsts))
    taste = rng.gamma(0.08, 1.0, (count, len(products))) * (0.1 + group_taste[group][:, product_first]) + 1e-9
    interests = taste / taste.sum(axis=1, keepdims=True)
    favourite = np.arange(firsts) * 5 + rng.integers(0, 5, (count, firsts))
    profiles = tuple(
        Profile(
            user_id=user,
            age=int(age[user]),
            sex="male" if male[user] else "female",
            residence=_CITIES[int(rng.integers(len(_CITIES)))],
            education_level=_EDUCATION[int(rng.integers(len(_EDUCATION)))],
            occupation=_WORK[int(rng.integers(len(_WORK)))],
            consumption_level=_SPENDING[spending[user]],
            arpu=float(arpu[user]),
        )
        for user in range(count)
    )
    return profiles, interests, favourite.astype(np.int64)


def _slates(
    rng: np.random.Generator,
    intent: NDArray[np.int64],
    ad_product: NDArray[np.int64],
    product_second: NDArray[np.int64],
    popularity: NDArray[np.float64],
    slate: int,
) -> NDArray[np.int64]:
    """Return int64[U, slate] different ads a user: the auction favours what fits the intent, and what is popular."""
    same_product = ad_product[None, :] == intent[:, None]
    same_second = product_second[ad_product][None, :] == product_second[intent][:, None]
    weight = popularity[None, :] * (1.0 + 60.0 * same_product + 12.0 * same_second)
    races = rng.exponential(size=weight.shape)  # exponential races draw without replacement
    keys = np.divide(races, weight, out=np.full_like(weight, np.inf), where=weight > 0)
    order: NDArray[np.int64] = np.argpartition(keys, slate - 1, axis=1)[:, :slate]
    return order


def _sample_rows(rng: np.random.Generator, distribution: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one draw from each row of a [U, P] distribution."""
    cumulative = np.cumsum(distribution, axis=1)
    draw = rng.random(len(distribution))[:, None] * cumulative[:, -1:]
    chosen: NDArray[np.int64] = (cumulative < draw).sum(axis=1)
    return chosen


def _behavior(user: int, domain: Domain, action: Action, item: int, at: datetime, visit: int) -> Behavior:
    return Behavior(user_id=user, domain=domain, action=action, item_id=item, occurred_at=at, ordinal=visit)
