"""The engines' tiny models and indexes, for the engine that generates texts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("engines", Path(__file__).parents[2] / "decoding" / "conftest.py")
assert SPEC is not None
assert SPEC.loader is not None
engines = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(engines)
vocabulary, make_index = engines.vocabulary, engines.make_index
make_model, make_prompts = engines.make_model, engines.make_prompts
