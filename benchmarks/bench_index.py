"""How good S-IDs are, and how fast ads get them: the three quantisers, beside FAISS's residual quantiser.

LEADRE §3.2, Table 5, future work (2). `python benchmarks/bench_index.py --quick`, `--data amazon_beauty`, `--json`.
Two inventories: the 12,101 products of Amazon Beauty under MiniLM at 4 x 256, where their folder is there; and a
synthetic one at 4 x 1024: unit vectors of 128 dimensions, each the sum of its category (64, of uneven sizes), its topic
(32 a category), its product (16 a topic) and noise, all Gaussian. A mixture that tidy is easier than real ads.

Seconds are CPU seconds of one thread, so that other programs on the machine do not enter. FAISS gets the same
codebooks and a beam of 1, which is the same algorithm: as its ResidualQuantizer comes, and with a flat index that
searches each level (`faiss_flat`), an option with a fused kernel. `assign_ads_per_s` counts the encoder's layers,
the same ones on both sides, and `quantise_ads_per_s` the codebooks alone. Ours returns the quantised embeddings
too, FAISS codes only. The floor is the multiply-adds at the rate of a matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from leadre.domain.ads import Ad
from leadre.indexing.quality import index_quality
from leadre.indexing.quantisers.balance import balance
from leadre.indexing.quantisers.fit import fit_quantiser
from leadre.indexing.quantisers.quantiser import Codes, Floats, quantise
from leadre.indexing.texts.description import describe
from leadre.indexing.texts.embedding_store import EmbeddingStore
from leadre.indexing.texts.encoder import encode
from leadre.recipe import IndexRecipe

DATA_FOLDER = Path(__file__).parents[2] / "shared" / "data" / "amazon_beauty"
TIMED_ADS = 200_000
BEAM_ADS = 10_000
PAPER = [("paper (their ads)", 4, 1024, 0.0174, 25, 1.0), ("paper (their ads)", 4, 256, 0.0334, 25, 1.0)]  # Table 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Embeddings of ads, their categories, and the recipes to compare on them."""

    embeddings: Floats
    categories: NDArray[np.int32]
    codes: int
    epochs: int

    def recipes(self) -> dict[str, IndexRecipe]:
        """Return the recipes by the name of their quantiser."""
        return {
            "rqvae": IndexRecipe(quantiser="rqvae", codes=self.codes, epochs=self.epochs),
            "residual_kmeans": IndexRecipe(quantiser="residual_kmeans", codes=self.codes),
            "product": IndexRecipe(quantiser="product", codes=self.codes),
            "product_16": IndexRecipe(quantiser="product", codes=self.codes, width=16),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 synthetic ads at 4 x 256")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--ads", type=int, default=1_000_000, help="size of the synthetic inventory")
    parser.add_argument("--data", choices=["amazon_beauty", "synthetic", "all"], default="all")
    parser.add_argument("--data-folder", type=Path, default=DATA_FOLDER, help="of Amazon Beauty: items.jsonl")
    parser.add_argument("--epochs", type=int, help="of the RQ-VAE; without it as many as take minutes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    inventories: dict[str, Any] = {}
    with threadpool_limits(1):
        rate = _multiply_adds_per_s()
        if options.data != "synthetic" and not options.quick:
            if (items := options.data_folder / "items.jsonl").is_file():
                embeddings, categories = amazon_beauty(items)
                inventory = Inventory(
                    embeddings=embeddings, categories=categories, codes=256, epochs=options.epochs or 200
                )
                inventories["amazon_beauty"] = measure(inventory, rate)
            else:
                print(
                    f"amazon_beauty: skipped, there is no {items}; name its folder with --data-folder", file=sys.stderr
                )
        if options.data != "amazon_beauty" or options.quick:
            embeddings, categories = synthetic(20_000 if options.quick else options.ads)
            codes = 256 if options.quick else 1024
            inventory = Inventory(
                embeddings=embeddings, categories=categories, codes=codes, epochs=options.epochs or 15
            )
            inventories["synthetic"] = measure(inventory, rate)
    if options.json:
        print(json.dumps({"threads": 1, "multiply_adds_per_s": rate, "inventories": inventories}))
    else:
        _print_tables(inventories)
    return 0


def amazon_beauty(items: Path) -> tuple[Floats, NDArray[np.int32]]:
    """Return MiniLM's embeddings of the products, kept below LEADRE_HOME, and their second-level categories."""
    texts, names = [], []
    for line in items.read_text().splitlines():
        item = json.loads(line)
        first, second = [*item["categories"], "", ""][:2]
        names.append(f"{first}/{second}")
        ad = Ad(
            ad_id=item["item_id"],
            source_id=item["original_id"],
            name=item["title"] or item["original_id"],
            ad_type="product",
            first_category=first,
            second_category=second,
            attributes=tuple(filter(None, (item["brand"], *item["categories"][2:]))),
            advertiser_id=0,
            bid=0.0,
            created_at=datetime(2014, 1, 1, tzinfo=UTC),
        )
        texts.append(describe(ad))
    root = Path(os.environ.get("LEADRE_HOME", ".leadre")) / "embeddings"
    store = EmbeddingStore.of(root, encoder="minilm", pooling="auto", instruction="")
    embeddings = encode(texts, encoder="minilm", store=store)
    return embeddings, np.unique(names, return_inverse=True)[1].astype(np.int32)


def synthetic(ads: int, *, width: int = 128, seed: int = 0) -> tuple[Floats, NDArray[np.int32]]:
    """Return embeddings of a hierarchical mixture, float32[ads, width], and the ads' categories."""
    random = np.random.default_rng(seed)
    category = random.choice(64, ads, p=random.dirichlet(np.ones(64)))
    topic = category * 32 + random.integers(0, 32, ads)
    product = topic * 16 + random.integers(0, 16, ads)
    embeddings = random.standard_normal((ads, width), np.float32)
    embeddings *= 0.3
    for members, groups, scale in ((category, 64, 1.0), (topic, 64 * 32, 0.7), (product, 64 * 32 * 16, 0.5)):
        centres = (scale * random.standard_normal((groups, width))).astype(np.float32)
        for start in range(0, ads, 65_536):
            embeddings[start : start + 65_536] += centres[members[start : start + 65_536]]
    embeddings /= np.sqrt(np.einsum("ij,ij->i", embeddings, embeddings))[:, None]
    return embeddings, category.astype(np.int32)


def measure(inventory: Inventory, rate: float) -> dict[str, Any]:
    """Return what is known of each quantiser by plain names."""
    ads, width = inventory.embeddings.shape
    quantisers = {}
    for name, recipe in inventory.recipes().items():
        print(f"{name}, {ads:,} ads ...", file=sys.stderr, flush=True)
        quantisers[name] = _measure(inventory, recipe, rate)
    return {"ads": ads, "embedding_width": width, "quantisers": quantisers}


def _measure(inventory: Inventory, recipe: IndexRecipe, rate: float) -> dict[str, Any]:
    embeddings, size = inventory.embeddings, recipe.codes
    quantiser, fit_s = _timed(lambda: fit_quantiser(embeddings, recipe), repeat=1)
    codebooks, hidden = quantiser.codebooks, quantiser.hidden(embeddings)
    codes, _ = quantise(hidden, codebooks)
    some, some_hidden = embeddings[:TIMED_ADS], np.ascontiguousarray(hidden[:TIMED_ADS])
    _, hidden_s = _timed(lambda: quantiser.hidden(some))
    _, assign_s = _timed(lambda: quantiser.assign(some))
    _, quantise_s = _timed(lambda: quantise(some_hidden, codebooks))
    peer = faiss_quantiser(codebooks)
    packed, peer_s = _timed(lambda: peer.compute_codes(some_hidden), repeat=1)
    theirs = faiss.unpack_bitstrings(packed, recipe.levels, size.bit_length() - 1)
    flat = faiss_quantiser(codebooks)
    factory = faiss.ProgressiveDimIndexFactory()  # a name keeps it alive; FAISS does not
    flat.assign_index_factory = factory
    _, flat_s = _timed(lambda: flat.compute_codes(some_hidden))
    peer.max_beam_size = faiss.ResidualQuantizer().max_beam_size
    few = some_hidden[:BEAM_ADS]
    _, beam_s = _timed(lambda: peer.compute_codes(few), repeat=1)
    work = codebooks.size
    layers = sum(weight.size for weight, _ in quantiser.layers)
    balanced, balance_s = _timed(lambda: balance(codes, hidden, codebooks), repeat=1)
    count = len(some)

    def quality(of: Codes) -> dict[str, Any]:
        figures = index_quality(of, size=size, categories=inventory.categories, hidden=hidden, codebooks=codebooks)
        return figures | {"usage_min": min(figures["usage"])}

    return {
        "levels": recipe.levels,
        "codes": size,
        "width": recipe.width,
        **({"epochs": recipe.epochs} if recipe.quantiser == "rqvae" else {}),
        **quality(codes),
        "balanced": quality(balanced) | {"balance_s": balance_s},
        "fit_s": fit_s,
        "assign_ads_per_s": count / assign_s,
        "faiss_assign_ads_per_s": count / (hidden_s + peer_s),
        "ratio": (hidden_s + peer_s) / assign_s,
        "floor_ads_per_s": rate / (work + layers),
        "quantise_ads_per_s": count / quantise_s,
        "faiss_quantise_ads_per_s": count / peer_s,
        "faiss_flat_quantise_ads_per_s": count / flat_s,
        "quantise_ratio": peer_s / quantise_s,
        "quantise_floor_ads_per_s": rate / work,
        "faiss_default_beam_quantise_ads_per_s": len(few) / beam_s,
        "same_codes_as_faiss": float((theirs == codes[:count]).all(axis=1).mean()),
    }


def faiss_quantiser(codebooks: Floats) -> Any:
    """Return FAISS's residual quantiser with these codebooks and a beam of 1; K must be a power of 2."""
    levels, size, width = codebooks.shape
    peer = faiss.ResidualQuantizer(width, levels, size.bit_length() - 1)
    faiss.copy_array_to_vector(codebooks.reshape(-1), peer.codebooks)
    peer.is_trained = True
    peer.max_beam_size = 1
    return peer


def _multiply_adds_per_s() -> float:
    matrix = np.random.default_rng(0).standard_normal((1536, 1536), np.float32)
    return float(1536**3 / _timed(lambda: matrix @ matrix, repeat=5)[1])


def _timed(call: Callable[[], Any], *, repeat: int = 3) -> tuple[Any, float]:
    """Return the last result and the least CPU seconds."""
    best = float("inf")
    for _ in range(repeat):
        started = time.process_time()
        result = call()
        best = min(best, time.process_time() - started)
    return result, best


def _print_tables(inventories: dict[str, Any]) -> None:
    row = "{:>24} {:>8} {:>5} {:>10} {:>8} {:>8}"
    speed = "{:>24} {:>8} {:>10} {:>10} {:>6} {:>10} {:>10} {:>10} {:>6} {:>10} {:>10}"
    for name, inventory in inventories.items():
        print(f"\n{name}, {inventory['ads']:,} ads of {inventory['embedding_width']} dimensions (Table 5)")
        print(row.format("", "quantity", "size", "collision", "max", "usage"))
        for title, levels, size, rate, largest, usage in PAPER:
            print(row.format(title, levels, size, f"{rate:.2%}", largest, f"{usage:.3f}"))
        for title, of in inventory["quantisers"].items():
            for label, figures in ((title, of), (f"{title} balanced", of["balanced"])):
                shown = (f"{figures['collision_rate']:.2%}", figures["max_collision"], f"{figures['usage_min']:.3f}")
                print(row.format(label, of["levels"], of["codes"], *shown))
        print("\nby level: variance explained | entropy, bits | mutual information with the category, bits")
        for title, of in inventory["quantisers"].items():
            lists = ("variance_explained", "entropy_bits", "mutual_information_bits")
            print(f"{title:>24} " + " | ".join(" ".join(f"{value:.3f}" for value in of[key]) for key in lists))
        print("\nads/s, one thread: assign (layers and codebooks) | quantise (codebooks)")
        heads = ("ours", "FAISS", "ratio", "floor")
        print(speed.format("", "fit s", *heads, *heads, "FAISS flat"))
        for title, of in inventory["quantisers"].items():
            keys = [
                *("assign_ads_per_s", "faiss_assign_ads_per_s", "ratio", "floor_ads_per_s"),
                *("quantise_ads_per_s", "faiss_quantise_ads_per_s", "quantise_ratio", "quantise_floor_ads_per_s"),
                "faiss_flat_quantise_ads_per_s",
            ]
            rates = [f"{of[key]:.1f}" if "ratio" in key else f"{of[key]:,.0f}" for key in keys]
            print(speed.format(title, f"{of['fit_s']:.1f}", *rates))


if __name__ == "__main__":
    sys.exit(main())
