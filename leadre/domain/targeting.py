"""Targeting: which users may see an ad. A per-request filter over the ad index of LEADRE §3.3.

An ad may restrict age (an inclusive range) and any of `ATTRIBUTES` (the values it accepts); every restriction must
hold. Texts are compared casefolded and without needless spaces. It fails closed: an ad that restricts an attribute is
not shown to a user whose value of it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from leadre.domain.users import Profile
from leadre.errors import InvalidInput
from leadre.names import did_you_mean

ATTRIBUTES = ("sex", "residence", "education_level", "occupation", "consumption_level", "device")
"""Profile fields that an ad may name the accepted values of."""
AGE = "age"
OLDEST = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Targeting:
    """Which users may see an ad; everybody by default. `Targeting.of` makes one from plain data.

    Args:
        age: lowest and highest age, both included.
        accepted: (attribute, accepted values) in the order of `ATTRIBUTES`, the values as `values_of` spells them.
    """

    age: tuple[int, int] | None = None
    accepted: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, plain: object) -> Targeting:
        """Read the plain form, `{"age": [18, 45], "sex": ["female"], "residence": ["Beijing"], "device": ["ios"]}`.

        Raises:
            InvalidInput: not an object, an unknown attribute, or values of another kind.
        """
        if not isinstance(plain, dict):
            raise InvalidInput(f'targeting is an object such as {{"age": [18, 45]}}, this is a {type(plain).__name__}')
        for name in plain:
            if name != AGE and name not in ATTRIBUTES:
                hint = did_you_mean(str(name), (AGE, *ATTRIBUTES))
                raise InvalidInput(
                    f"targeting by {str(name)[:60]!r} is unknown; {hint}known are {', '.join((AGE, *ATTRIBUTES))}"
                )
        return cls(
            age=_age_range(plain[AGE]) if AGE in plain else None,
            accepted=tuple((name, _accepted(name, plain[name])) for name in ATTRIBUTES if name in plain),
        )

    def plain(self) -> dict[str, Any]:
        """Return the plain form, which is JSON; that of everybody is empty."""
        age = {} if self.age is None else {AGE: list(self.age)}
        return {**age, **{name: list(values) for name, values in self.accepted}}

    def admits(self, profile: Profile) -> bool:
        """Return whether the user may see the ad."""
        if self.age is not None and (profile.age is None or not self.age[0] <= profile.age <= self.age[1]):
            return False
        return all(set(values) & values_of(profile, name) for name, values in self.accepted)


EVERYBODY = Targeting()

NOBODY = Targeting(accepted=((ATTRIBUTES[0], ()),))
"""What a targeting that cannot be read counts as: an ad that nobody may see. `Targeting.of` makes none such."""


def values_of(profile: Profile, attribute: str) -> frozenset[str]:
    """Return the values of a user that an ad may accept; none when the attribute is unknown.

    One value, but of a residence every part too: "Haidian, Beijing" lives in "haidian", in "beijing" and in
    "haidian, beijing".
    """
    text = getattr(profile, attribute)
    return _spelled(attribute, text) | (_spelled(attribute, *text.split(",")) if attribute == "residence" else set())


def _spelled(attribute: str, *texts: str) -> frozenset[str]:
    """Return texts as they are compared, without empty ones."""
    if attribute == "residence":  # spaces around its commas do not count either
        texts = tuple(", ".join(_folded(text.split(","))) for text in texts)
    return frozenset(_folded(texts))


def _folded(texts: Iterable[str]) -> list[str]:
    return [folded for text in texts if (folded := " ".join(text.casefold().split()))]


def _age_range(value: object) -> tuple[int, int]:
    whole = isinstance(value, list | tuple) and len(value) == 2 and all(type(age) is int for age in value)
    if not whole or not 0 <= value[0] <= value[1] <= OLDEST:  # type: ignore[index]
        raise InvalidInput(
            f"targeting by age takes [lowest, highest], whole numbers from 0 to {OLDEST}, both included, "
            f"not {_cut(value)}"
        )
    return value[0], value[1]  # type: ignore[index]


def _accepted(attribute: str, value: object) -> tuple[str, ...]:
    texts = list(value) if isinstance(value, list | tuple) else []
    values = _spelled(attribute, *texts) if all(isinstance(text, str) for text in texts) else frozenset()
    if not values or not all(_spelled(attribute, text) for text in texts):
        raise InvalidInput(
            f'targeting by {attribute} takes a list of texts such as ["a", "b"], none of them empty, '
            f"not {_cut(value)}; leave the attribute out to accept everybody"
        )
    return tuple(sorted(values))


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
