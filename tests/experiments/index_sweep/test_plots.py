"""The sweep's pictures: one of collisions, one of information for each size, in two formats."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from leadre.experiments.index_sweep.plots import write_plots
from leadre.experiments.index_sweep.table import QUANTISERS, Sweep, SweepRow


def made(levels: int, codes: int, quantiser: str) -> SweepRow:
    return SweepRow(
        quantiser=quantiser,  # type: ignore[arg-type]
        levels=levels,
        codes=codes,
        assignment="nearest",
        quality={
            "collision_rate": 1 / codes,
            "entropy_bits": [2.5] * levels,
            "variance_explained": [0.9 / levels] * levels,
            "mutual_information_bits": [1.5] + [0.0] * (levels - 1),
        },
    )


def test_each_size_has_its_picture_and_names_its_quantisers(tmp_path: Path) -> None:
    rows = tuple(made(m, k, name) for name in QUANTISERS for m in (3, 4) for k in (16, 8))
    written = write_plots(
        Sweep(ads=50, encoder="hashed", identical=0.01, category_bits=2.0, rows=rows), tmp_path / "new"
    )
    stems = {"collisions", "information_3x8", "information_3x16", "information_4x8", "information_4x16"}
    assert {path.name for path in written} == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg")}
    for path in written:
        if path.suffix == ".svg":
            texts = "".join(ET.parse(path).getroot().itertext())
            assert all(name in texts for name in ("RQ-VAE", "residual k-means", "product codes"))
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_papers_line_stands_in_the_panels_of_its_sizes_alone(tmp_path: Path) -> None:
    for levels, has_line in ((3, True), (2, False)):
        rows = (made(levels, 1024, "rqvae"), made(levels, 256, "rqvae"))
        write_plots(Sweep(ads=50, encoder="hashed", identical=0.0, category_bits=2.0, rows=rows), tmp_path)
        assert ("the paper's ads" in (tmp_path / "collisions.svg").read_text()) is has_line


def test_without_a_fitted_row_there_is_nothing_to_draw(tmp_path: Path) -> None:
    row = SweepRow(quantiser="product", levels=3, codes=8, assignment="nearest", quality={}, reason="too wide")
    assert write_plots(Sweep(ads=9, encoder="hashed", identical=0.0, category_bits=1.0, rows=(row,)), tmp_path) == []
