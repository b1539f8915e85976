"""SASRec with a softmax over all items: the trained baseline, and half of the collaborative signal.

It knows nothing but ad ids, unless its item embeddings start from texts. Ours; the paper prints no such baseline. Kang
& McAuley, Self-Attentive Sequential Recommendation, ICDM 2018 (arXiv:1808.09781), trained with cross entropy over all
items in place of one sampled negative, which Klenitskiy & Vasilev, Turning Dross Into Gold Loss, RecSys 2023
(arXiv:2309.07602), found to be what SASRec lacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leadre.collaborative.sasrec_network import SasRecNetwork, softmax_loss
from leadre.evaluation.baselines import Histories, Popularity, Seen, places
from leadre.evaluation.ranking import ABSENT, ndcg
from leadre.recipe import SasRecRecipe

Progress = Callable[[str, int, int | None], None]

VALIDATION_USERS = 5_000
"""A seeded sample of at most so many users decides when to stop (ours)."""
VALIDATION_CUTOFF = 10
_ROWS_AT_ONCE = 256
_POOL_BATCHES = 32  # so many batches are sorted by length together: hardly any padding, still shuffled


class SasRec:
    """A trained model and the ads it knows: those of the training histories.

    `epochs` is after how many its weights were the best; 0: not known.
    """

    def __init__(self, items: NDArray[np.int64], network: SasRecNetwork, popularity: Popularity) -> None:
        self.items, self.network, self._popularity = items, network, popularity
        self.epochs = 0

    @classmethod
    def fit(
        cls,
        train: Histories,
        *,
        targets: NDArray[np.int64],
        recipe: SasRecRecipe,
        seed: int,
        texts: NDArray[np.float32] | None = None,
        items: NDArray[np.int64] | None = None,
        device: torch.device | None = None,
        progress: Progress | None = None,
    ) -> SasRec:
        """Train until the validation NDCG@10 has not risen for `recipe.patience` epochs; keep the best weights.

        Every position of a history predicts the next one. The same seed gives the same model on a CPU.

        Args:
            train: one row a user.
            targets: int64[len(train)], the item that followed each row, `ABSENT` where none is held out; without any,
                all epochs are trained.
            recipe: sizes and rates.
            seed: of weights, order and dropout.
            texts: float32[items, d], embeddings of the items' descriptions: item embeddings start from their principal
                components in place of noise (ours).
            items: the items it is to know, ascending; by default those of the histories.
            device: by default a CUDA device if there is one.
            progress: called after each epoch.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        items = np.unique(train.items) if items is None else items
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = SasRecNetwork(len(items), recipe)
            if texts is not None:
                network.start_from(texts)
            model = cls(items, network.to(device), Popularity.fit(train))
            model._train(train, targets, recipe=recipe, seed=seed, progress=progress)
        return model

    def top(self, histories: Histories, k: int, *, seen: Seen) -> NDArray[np.int64]:
        """Return the k best items for each row, int64[n, k], padded with `ABSENT`; popular ones if it knows no item."""
        found = self._popularity.top(histories, k, seen=seen)
        width = min(k, len(self.items))
        for chosen, scores in self._scores(self._numbered(histories), seen=seen):
            best = torch.topk(scores, width, dim=1)
            ids = self.items[best.indices.cpu().numpy()]
            found[chosen, :width] = np.where(np.isneginf(best.values.cpu().numpy()), ABSENT, ids)
        return found

    def log_probabilities(self, histories: Histories, *, seen: Seen) -> NDArray[np.float32]:
        """Return log p of each of `items`, float32[n, items]; rows without a known item are even."""
        found = np.full((len(histories), len(self.items)), -np.log(len(self.items)), np.float32)
        for chosen, scores in self._scores(self._numbered(histories), seen=seen):
            found[chosen] = scores.log_softmax(dim=1).cpu().numpy()
        return found

    @torch.no_grad()
    def states_before(self, histories: Histories) -> NDArray[np.float32]:
        """Return the state from which each item of the histories is predicted, float32[items of all rows, width].

        A row is read in one pass, as in training; one with more items than positions in windows that overlap by half.
        Zeros stand where no known item comes before: such a state finds all items equally likely.
        """
        place, known = places(histories.items, self.items)
        counted = np.append(0, np.cumsum(known))
        first = counted[histories.offsets]  # of each row among the known items of all
        items = place[known]
        before = counted[:-1] - first[histories.rows]
        read = np.zeros(len(histories), np.int64)
        whole = np.flatnonzero(np.diff(histories.offsets))
        read[whole] = before[histories.offsets[1:][whole] - 1]  # from what comes last nothing is predicted
        windows = sorted(_windows(first[:-1], read, self.network.positions), key=lambda window: window[1] - window[0])
        after = np.zeros((len(items), self.network.items.embedding_dim), np.float32)
        network = self.network.eval()
        for at in range(0, len(windows), _ROWS_AT_ONCE):
            part = windows[at : at + _ROWS_AT_ONCE]
            inputs = _padded([items[start:end] for start, end, _ in part]).to(network.device)
            states = network(inputs).cpu().numpy()
            for number, (start, end, old) in enumerate(part):
                after[start + old : end] = states[number, old : end - start]
        found = np.zeros((len(place), after.shape[1]), np.float32)
        found[before > 0] = after[counted[:-1][before > 0] - 1]
        return found

    def validate(self, rows: list[NDArray[np.int64]], wanted: NDArray[np.int64], *, seen: Seen) -> float:
        """Return NDCG@10 of rows of item numbers that go on with the numbers `wanted`; `ABSENT` is never found."""
        ranks = np.full(len(rows), ABSENT, np.int64)
        for chosen, scores in self._scores(rows, seen=seen):
            right = torch.from_numpy(wanted[chosen]).to(scores.device)
            own = scores.gather(1, right.clamp(min=0)[:, None])
            rank = (scores > own).sum(dim=1)
            ranks[chosen] = torch.where(right >= 0, rank, ABSENT).cpu().numpy()
        return ndcg(ranks, VALIDATION_CUTOFF)

    def _train(
        self,
        train: Histories,
        targets: NDArray[np.int64],
        *,
        recipe: SasRecRecipe,
        seed: int,
        progress: Progress | None,
    ) -> None:
        network, seen = self.network, train.seen
        rng = np.random.default_rng(seed)
        rows = self._numbered(train)
        learnt = [row[-recipe.positions - 1 :] for row in rows if len(row) > 1]
        if not learnt:
            return
        held_out = np.sort(rng.permutation(np.flatnonzero(targets != ABSENT))[:VALIDATION_USERS])
        place, known = places(targets[held_out], self.items)
        asked, wanted = [rows[row] for row in held_out.tolist()], np.where(known, place, ABSENT)
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98))
        # Batches hold different numbers of positions: divided by one number, every position weighs the same.
        positions = recipe.batch_size * float(np.mean([len(row) - 1 for row in learnt]))
        best, best_epoch, kept = -1.0, 0, _copy(network)
        for epoch in range(1, recipe.epochs + 1):
            network.train()
            for batch in _batches(learnt, recipe.batch_size, rng):
                inputs, following = (
                    _padded(part).to(network.device) for part in zip(*map(_shifted, batch), strict=True)
                )
                real = following >= 0
                loss = softmax_loss(network(inputs)[real], network.items.weight, following[real]) / positions
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            reached = self.validate(asked, wanted, seen=seen) if asked else float(epoch)
            if reached > best:
                best, best_epoch, kept = reached, epoch, _copy(network)
            stops = epoch - best_epoch >= recipe.patience
            if progress is not None:
                progress("SASRec epochs", epoch, epoch if stops else recipe.epochs)
            if stops:
                break
        network.load_state_dict(kept)
        self.epochs = best_epoch

    def _numbered(self, histories: Histories) -> list[NDArray[np.int64]]:
        """Return each row's known items as numbers."""
        place, known = places(histories.items, self.items)
        ends = np.append(0, np.cumsum(known))[histories.offsets]
        return np.split(place[known], ends[1:-1])

    @torch.no_grad()
    def _scores(self, rows: list[NDArray[np.int64]], *, seen: Seen) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Give row numbers and their scores of all items, float32[n, items]; rows without items are left out."""
        network = self.network.eval()
        sizes = np.array([len(row) for row in rows], np.int64)
        order = np.argsort(sizes, kind="stable")[int((sizes == 0).sum()) :]
        for start in range(0, len(order), _ROWS_AT_ONCE):
            chosen = order[start : start + _ROWS_AT_ONCE]
            part = [rows[row] for row in chosen.tolist()]
            inputs = _padded([row[-network.positions :] for row in part]).to(network.device)
            last = (inputs >= 0).sum(dim=1) - 1
            states = network(inputs)[torch.arange(len(part), device=network.device), last]
            scores = states @ network.items.weight.T
            if seen == "leave_out":
                had = torch.from_numpy(np.repeat(np.arange(len(part)), sizes[chosen])).to(network.device)
                scores[had, torch.from_numpy(np.concatenate(part)).to(network.device)] = -torch.inf
            yield chosen, scores


def _windows(first: NDArray[np.int64], read: NDArray[np.int64], positions: int) -> Iterator[tuple[int, int, int]]:
    """Give (first item, end, items whose states are known already) of what is read at once, row after row."""
    half = positions // 2
    for row_first, items in zip(first.tolist(), read.tolist(), strict=True):
        start = old = 0
        while start + old < items:
            end = min(start + positions, items)
            yield row_first + start, row_first + end, old
            start, old = end - half, half


def _batches(rows: list[NDArray[np.int64]], size: int, rng: np.random.Generator) -> Iterator[list[NDArray[np.int64]]]:
    order, lengths = rng.permutation(len(rows)), np.array([len(row) for row in rows])
    batches = []
    for start in range(0, len(order), _POOL_BATCHES * size):
        pool = order[start : start + _POOL_BATCHES * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[at : at + size] for at in range(0, len(pool), size)]
    for number in rng.permutation(len(batches)).tolist():
        yield [rows[at] for at in batches[number].tolist()]


def _shifted(row: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return row[:-1], row[1:]


def _padded(rows: Sequence[NDArray[np.int64]]) -> Tensor:
    padded = np.full((len(rows), max(map(len, rows))), ABSENT, np.int64)
    for at, row in enumerate(rows):
        padded[at, : len(row)] = row
    return torch.from_numpy(padded)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.state_dict().items()}
