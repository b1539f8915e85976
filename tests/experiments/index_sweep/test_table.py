"""Table 5's statements, checked on the paper's own figures and on made-up ones."""

from __future__ import annotations

from leadre.experiments.index_sweep.table import PAPER, Sweep, SweepRow


def row(levels: int, codes: int, rate: float, *, usage: float = 1.0, assignment: str = "nearest") -> SweepRow:
    return SweepRow(
        quantiser="rqvae",
        levels=levels,
        codes=codes,
        assignment=assignment,  # type: ignore[arg-type]
        quality={"collision_rate": rate, "max_collision": 2, "average_usage": usage},
    )


def sweep(*rows: SweepRow) -> Sweep:
    return Sweep(ads=50, encoder="hashed", identical=0.0, category_bits=2.0, rows=rows)


def verdicts(found: Sweep) -> dict[str, bool]:
    return {trend.claim: trend.holds for trend in found.trends()}


def test_the_papers_own_table_shows_the_trends_the_paper_says_it_shows() -> None:
    printed = sweep(*(row(m, k, rate, usage=usage) for (m, k), (rate, _, usage) in PAPER.items()))
    assert verdicts(printed) == {
        "more codes, fewer collisions": True,
        "more levels, fewer collisions": True,
        "every code is used": True,
    }
    assert "3 x 256: 16.38%, 3 x 512: 7.95%, 3 x 1024: 4.79%" in printed.trends()[0].evidence


def test_a_trend_that_turns_once_does_not_hold_and_its_figures_are_said() -> None:
    turned = sweep(row(3, 8, 0.5), row(3, 16, 0.2), row(3, 32, 0.25))
    assert verdicts(turned)["more codes, fewer collisions"] is False
    assert turned.trends()[0].evidence == "3 x 8: 50.00%, 3 x 16: 20.00%, 3 x 32: 25.00%"


def test_where_there_are_no_collisions_there_cannot_be_fewer() -> None:
    assert verdicts(sweep(row(2, 8, 0.1), row(3, 8, 0.0), row(4, 8, 0.0)))["more levels, fewer collisions"] is True
    none = sweep(row(2, 8, 0.0), row(2, 16, 0.0)).trends()[0]
    assert (none.holds, none.evidence) == (True, "there are none at any size")
    assert verdicts(sweep(row(2, 8, 0.1), row(3, 8, 0.1)))["more levels, fewer collisions"] is False


def test_one_size_alone_shows_no_trend_but_its_usage() -> None:
    assert verdicts(sweep(row(3, 8, 0.5, usage=0.6))) == {"every code is used": False}


def test_assignments_are_judged_apart_and_unfitted_rows_not_at_all() -> None:
    unfitted = SweepRow(quantiser="product", levels=3, codes=8, assignment="nearest", quality={}, reason="too wide")
    found = sweep(row(3, 8, 0.5), row(3, 16, 0.6), row(3, 8, 0.2, assignment="balanced"), unfitted)
    assert list(found.measured) == ["rqvae", "rqvae, balanced"]
    assert {trend.label for trend in found.trends()} == set(found.measured)


def test_the_plain_form_holds_the_papers_figures_where_it_prints_some() -> None:
    plain = sweep(row(4, 256, 0.02), row(4, 512, 0.01)).to_json()
    assert plain["rows"][0]["paper"] == {"collision_rate": 0.0334, "max_collision": 25, "average_usage": 1.0}
    assert plain["rows"][1]["paper"] is None
    assert plain["trends"][0]["claim"] == "more codes, fewer collisions"
