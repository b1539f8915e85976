"""The engine's contract: prompts (token ids) in, scored S-IDs out.

LEADRE §3.4. An engine knows nothing of users, ads' texts or features. One contract test covers all implementations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from leadre.domain.retrieval import Beam
from leadre.indexing.trie import LiveMask


class Engine(Protocol):
    """Generates ads under the trie of one index version."""

    @property
    def index_version(self) -> str:
        """The index whose S-IDs this engine generates."""
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        beam_width: int,
        filters: Sequence[LiveMask | None] | None = None,
    ) -> list[list[Beam]]:
        """Return the best ads of each prompt, best first.

        Args:
            prompts: one sequence of token ids a user, of any lengths, none empty.
            beam_width: B of Algorithm 2; at most this many beams a prompt.
            filters: one mask a prompt (None: every ad of the index may be generated).

        Returns:
            For each prompt at most `beam_width` beams in falling log-probability; fewer when fewer ads are
            live, none when no ad is. Every beam is a live ad of the index.

        Raises:
            InvalidInput: an empty prompt, one longer than the model's limit, a token id outside the vocabulary,
                `beam_width` below 1, or as many filters as there are not prompts.
        """
        ...
