"""What an experiment found: its rows, their differences, and whether the paper's directions hold.

LEADRE §5.2, Tables 1, 2, 4, 6 and Figures 4, 5. The intervals are ours; the paper prints points alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadre.errors import InvalidInput
from leadre.evaluation.bootstrap import Interval, pooled_intervals

Direction = Literal[-1, 0, 1]
"""Of a difference: it lowers the figure, the paper says nothing or prints equal figures, it raises it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Per-user figures of one row's runs; rows that are compared have the same seeds and users in the same order.

    Args:
        metrics: names of the columns, for example "HR@8".
        values: float64[seeds, users, metrics]; NaN where a user has no such figure.
    """

    metrics: tuple[str, ...]
    values: NDArray[np.float64]

    def only(self, metrics: Sequence[str]) -> Measured:
        """Return the same runs with these metrics alone, as far as any user has them."""
        known = [self.metrics.index(metric) for metric in metrics if metric in self.metrics]
        kept = [at for at in known if not np.isnan(self.values[:, :, at]).all()]
        return Measured(metrics=tuple(self.metrics[at] for at in kept), values=self.values[:, :, kept])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table, or one line of a figure.

    Args:
        name: as the paper calls it.
        figures: metric to its mean over users and seeds, with its 95 % interval.
        seed_sd: metric to the standard deviation of the seeds' means; empty with one seed.
        paper: metric to the figure that the paper prints; empty where it prints none.
    """

    name: str
    figures: Mapping[str, Interval]
    seed_sd: Mapping[str, float]
    paper: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row minus another, in one metric, paired by user and seed.

    Args:
        row, against: names of rows.
        metric: name of the metric.
        difference: `row` - `against`, with its 95 % interval.
        base: mean of `against`.
        relative: the difference as a share of `base`; None where that is 0.
        direction: the paper's.
        paper: the paper's relative difference; None where it prints no figures.
    """

    row: str
    against: str
    metric: str
    difference: Interval
    base: float
    relative: float | None
    direction: Direction
    paper: float | None

    @property
    def certain(self) -> bool:
        """Whether the interval excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def agrees(self) -> bool:
        """Whether the difference has the paper's sign, as far as the paper gives one."""
        return self.direction * self.difference.mean > 0

    @property
    def verdict(self) -> str:
        """In words, whether the paper's direction is reproduced."""
        if self.direction == 0:
            return "no direction to compare with"
        if self.agrees:
            return "reproduced" if self.certain else "same direction, the interval holds zero"
        return "opposite direction" if self.certain else "not reproduced, the interval holds zero"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a figure.

    Args:
        panel: name of the panel that it is in.
        name: in the legend.
        x: where its points are, ascending.
        y: their figures.
    """

    panel: str
    name: str
    x: tuple[float, ...]
    y: tuple[Interval, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What an experiment found.

    Args:
        name: on the command line, for example "table1".
        title: the paper's table or figure, in words.
        note: what differs from the paper's experiment: data, sizes, what is simulated.
        users: how many were evaluated.
        seeds: of the trainings.
        metrics: in the table's order.
        reference: name of the row that the others are compared with first.
        rows: in the paper's order.
        comparisons: first of every row against the reference, then of those pairs that the paper speaks of.
        curves: lines of the figure, if there are any; its axes are `x_label`, `y_label`.
        extra: plain figures beside the table, for the report.
    """

    name: str
    title: str
    note: str
    users: int
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    reference: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    curves: tuple[Curve, ...] = ()
    x_label: str = ""
    y_label: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def row(self, name: str) -> Row:
        """Return a row by its name."""
        return next(row for row in self.rows if row.name == name)

    def compared(self, row: str, against: str) -> list[Comparison]:
        """Return the comparisons of one row with another, one a metric."""
        return [each for each in self.comparisons if (each.row, each.against) == (row, against)]

    def to_json(self) -> dict[str, Any]:
        """Return the plain form, the verdicts included."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for each, made in zip(self.comparisons, plain["comparisons"], strict=True):
            made |= {"certain": each.certain, "agrees": each.agrees, "verdict": each.verdict}
        return plain


def tabulate(
    measured: Mapping[str, Measured],
    *,
    name: str,
    title: str,
    note: str,
    seeds: tuple[int, ...],
    metrics: Sequence[str],
    paper: Mapping[str, Mapping[str, float]],
    pairs: Sequence[tuple[str, str]] = (),
    directions: Mapping[tuple[str, str], Mapping[str, Direction]] | None = None,
    seed: int,
) -> Experiment:
    """Return the experiment with these runs; the first row is the reference.

    Args:
        measured: row to its runs, in the table's order.
        name: of the experiment.
        title: of the experiment.
        note: of the experiment.
        seeds: of the trainings.
        metrics: those shown, in the table's order; one that no user has is left out.
        paper: row and metric to the printed figure.
        pairs: (row, against) beside those against the reference.
        directions: as in `compare`.
        seed: of the intervals.

    Raises:
        InvalidInput: rows that cannot be compared.
    """
    shown = {row: made.only(metrics) for row, made in measured.items()}
    reference, first = next(iter(shown.items()))
    against_first = [(row, reference) for row in shown if row != reference]
    return Experiment(
        name=name,
        title=title,
        note=note,
        users=first.values.shape[1],
        seeds=seeds,
        metrics=first.metrics,
        reference=reference,
        rows=make_rows(shown, paper=paper, seed=seed),
        comparisons=compare(shown, [*against_first, *pairs], paper=paper, directions=directions, seed=seed),
    )


def make_rows(
    measured: Mapping[str, Measured], *, paper: Mapping[str, Mapping[str, float]], seed: int
) -> tuple[Row, ...]:
    """Return the rows, in the order of `measured`.

    Args:
        measured: row to its runs.
        paper: row and metric to the printed figure; rows may be missing.
        seed: of the intervals.
    """
    return tuple(
        Row(
            name=name,
            figures=dict(zip(made.metrics, pooled_intervals(made.values, seed=seed), strict=True)),
            seed_sd=_seed_sd(made),
            paper=paper.get(name, {}),
        )
        for name, made in measured.items()
    )


def compare(
    measured: Mapping[str, Measured],
    pairs: Iterable[tuple[str, str]],
    *,
    paper: Mapping[str, Mapping[str, float]],
    seed: int,
    directions: Mapping[tuple[str, str], Mapping[str, Direction]] | None = None,
) -> tuple[Comparison, ...]:
    """Return the differences of pairs of rows, in every metric that both have.

    Args:
        measured: row to its runs.
        pairs: (row, against).
        paper: row and metric to the printed figure: the directions follow from them.
        seed: of the intervals.
        directions: pair and metric to the paper's direction, where it speaks of one and prints no figures.

    Raises:
        InvalidInput: two rows with other seeds, users or metrics.
    """
    return tuple(
        one
        for row, against in pairs
        for one in _compare(
            measured, row, against, paper=paper, said=(directions or {}).get((row, against), {}), seed=seed
        )
    )


def _compare(
    measured: Mapping[str, Measured],
    row: str,
    against: str,
    *,
    paper: Mapping[str, Mapping[str, float]],
    said: Mapping[str, Direction],
    seed: int,
) -> Sequence[Comparison]:
    ours, theirs = measured[row], measured[against]
    if ours.metrics != theirs.metrics or ours.values.shape != theirs.values.shape:
        raise InvalidInput(
            f"{row!r} has figures {ours.metrics} of shape {ours.values.shape}, {against!r} {theirs.metrics} of shape "
            f"{theirs.values.shape}; rows are compared over the same seeds, users and metrics"
        )
    found = pooled_intervals(ours.values - theirs.values, seed=seed)
    bases = _seed_means(theirs.values).mean(axis=0)
    made = []
    for metric, difference, base in zip(ours.metrics, found, bases.tolist(), strict=True):
        printed = (paper.get(row, {}).get(metric), paper.get(against, {}).get(metric))
        change = None if printed[0] is None or printed[1] is None else printed[0] / printed[1] - 1
        made.append(
            Comparison(
                row=row,
                against=against,
                metric=metric,
                difference=difference,
                base=base,
                relative=difference.mean / base if base else None,
                direction=said.get(metric, 0) if change is None else _sign(change),
                paper=change,
            )
        )
    return made


def _seed_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the users of each seed, float64[seeds, metrics]; 0 where no user has a figure."""
    counts = np.maximum((~np.isnan(values)).sum(axis=1), 1)
    means: NDArray[np.float64] = np.nansum(values, axis=1) / counts
    return means


def _seed_sd(made: Measured) -> dict[str, float]:
    if len(made.values) < 2:
        return {}
    spread = _seed_means(made.values).std(axis=0, ddof=1)
    return dict(zip(made.metrics, spread.tolist(), strict=True))


def _sign(value: float) -> Direction:
    return 1 if value > 0 else -1 if value < 0 else 0
