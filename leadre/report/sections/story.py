"""One user's story: what is known, the prompt, the beam tree, the list, what a ranker reads. LEADRE §3.4, §4.2.1."""

from __future__ import annotations

import math
from typing import Any

from leadre.explain import prompt_parts
from leadre.report.content import Report, Section
from leadre.report.trace import SHOWN_FEATURES, Trace, label, written
from leadre.report.tree import SHOWN, draw

_USER_SIDE = ("retrieved_count", "top_probability", "entropy", "category_concentration", "expected_ecpm", "list_age_s")
_BEAMS = 12
_BEHAVIORS = 8


def story(report: Report) -> Section:
    """Return the section; empty for a release that is not live, for only the live one writes lists."""
    parts: dict[str, Any] = {"walk": None}
    if report.trace is not None:
        parts = {"walk": _walk(report.trace), "trace": report.trace, "parts": list(prompt_parts(report.trace.prompt))}
        parts |= {"explanation": report.trace.explanation, "tree": None, "shown": SHOWN}
        if report.trace.explanation is not None:
            parts["tree"] = draw(report.trace.explanation)
    return Section(key="story", title="One user's story", parts=parts)


def _walk(trace: Trace) -> dict[str, Any]:
    profile = trace.context.profile
    known = [f"age {profile.age}" if profile.age is not None else "", profile.sex, profile.residence]
    known += [profile.education_level, profile.occupation, profile.consumption_level]
    probabilities = [math.exp(beam.log_probability) for beam in trace.retrieved.beams]
    columns = [name for name in SHOWN_FEATURES if name in trace.features]
    behaviors = trace.context.behaviors
    return {
        "profile": f"User {trace.user}: " + (", ".join(part for part in known if part) or "no profile"),
        "summary": ", ".join(f"{name} × {count}" for name, count in trace.context.summary.liked),
        "behaviors": [
            {
                "at": f"{entry.behavior.occurred_at:%Y-%m-%d %H:%M}",
                "what": f"{entry.behavior.action.value}, {entry.behavior.domain.value}",
                "title": entry.title,
            }
            for entry in behaviors[-_BEHAVIORS:][::-1]
        ],
        "earlier": max(0, len(behaviors) - _BEHAVIORS),
        "beams": [
            {
                "ad": trace.ad_name(beam.ad_id),
                "name": trace.ads[beam.ad_id].name if beam.ad_id in trace.ads else "",
                "category": trace.ads[beam.ad_id].second_category if beam.ad_id in trace.ads else "",
                "sid": str(beam.sid),
                "probability": probability,
                "share": round(100 * probability / max(probabilities), 1),
            }
            for beam, probability in list(zip(trace.retrieved.beams, probabilities, strict=True))[:_BEAMS]
        ],
        "user_features": {
            label(trace, name): written(trace.features[name][0]) for name in _USER_SIDE if name in trace.features
        },
        "item_columns": columns,
        "items": [
            {
                "ad": trace.ad_name(ad),
                "name": trace.ads[ad].name if ad in trace.ads else "",
                "hit": bool(trace.features["hit"][row]) if "hit" in trace.features else False,
                "cells": [written(trace.features[column][row]) for column in columns],
            }
            for row, ad in enumerate(trace.target_ads)
        ],
    }
