"""The ad index: Table 5's figures of this one, and what each level says. LEADRE §5.2.5."""

from __future__ import annotations

import math

from leadre.indexing.quality import warning_of
from leadre.report.content import Report, Section
from leadre.report.plots import shares

_LEVELS = {
    "usage": "usage: share of the codebook's codes that some ad has",
    "entropy_bits": "entropy of the level's codes, bits",
    "category_purity": "category purity: share of ads of the commonest category under their prefix",
    "variance_explained": "variance explained by the codes so far",
    "mutual_information_bits": "what the level's code says about the category, bits",
}


def index(report: Report) -> Section:
    """Return the section."""
    quality, codes = report.quality, report.recipe["index"]["codes"]
    limits = {"usage": 1.0, "category_purity": 1.0, "variance_explained": 1.0, "entropy_bits": math.log2(codes)}
    return Section(
        key="index",
        title="The ad index",
        parts={
            "quality": quality,
            "version": report.index_version,
            "levels": len(quality["usage"]),
            "codes": codes,
            "warning": warning_of(quality),
            "charts": [
                {
                    "title": title,
                    "limit": limits.get(name),
                    "bars": [
                        {"name": chr(97 + level), "value": value, "height": height}
                        for level, (value, height) in enumerate(
                            zip(quality[name], shares(quality[name], limit=limits.get(name)), strict=True)
                        )
                    ],
                }
                for name, title in _LEVELS.items()
                if quality.get(name)
            ],
        },
    )
