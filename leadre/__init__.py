"""LEADRE: LLM-empowered display-ad retrieval and ranking features.

An open implementation of "LEADRE: Multi-Faceted Knowledge Enhanced LLM Empowered Display
Advertisement Recommender System", PVLDB 18(12), 2025.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # a type checker takes it for true; `typing` is not worth loading for it
if TYPE_CHECKING:
    from leadre.api import Live
    from leadre.settings import EngineKind, Precision, Settings


def load(
    release: str | None = None,
    *,
    settings: Settings | None = None,
    engine: EngineKind | None = None,
    precision: Precision | None = None,
) -> Live:
    """Load a release, to retrieve ads with it, explain its lists and read ranking features. Nothing is stored.

    It takes seconds: torch and Feast are imported here, not with `leadre`.

    Args:
        release: its name; None: the live one. It stays the same until `close`, whatever is promoted meanwhile.
        settings: where things run; None: the environment (`LEADRE_*`), as the commands read it.
        engine: another engine than the settings'.
        precision: another one than the settings'.

    Raises:
        ConfigError: no such release, none is live, or a setting is missing or wrong.
        ArtifactIncomplete, ReleaseMismatch: the release cannot be loaded.
        Unavailable: PostgreSQL or Redis does not answer.
    """
    from leadre.api import Live

    return Live.load(release, settings=settings, engine=engine, precision=precision)
