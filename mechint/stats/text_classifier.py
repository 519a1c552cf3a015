"""What the text alone gives away: labels foretold from character n-grams, by logistic regression, cross-validated.

Whatever such a classifier foretells is in the question, and needs no knowledge of who answers it. The penalty of the
weights is that of a standard normal prior; folds hold whole units, so that a text is never foretold from its own kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import optimize, special

from mechint.base.errors import UsageError
from mechint.base.signatures import Count, checked

Features = Float[np.ndarray, "text feature"]
Labels = Shaped[np.ndarray, " text"]
_LENGTHS = (1, 2, 3)  # of n-grams
_MOST = 400  # features, those that the most texts have
_STEPS = 60


@checked
def foretold_from_text(
    texts: Sequence[str], labels: Labels, units: Shaped[np.ndarray, " text"], *, folds: Count = 5
) -> Labels:
    """Return the label that is foretold for each text by a classifier that has seen no text of its unit.

    Folds are those of units in order, in turn; with a single unit or label it is the commonest other label, "" where
    there is none. Raises UsageError for other numbers of texts, labels and units.
    """
    if not len(texts) == len(labels) == len(units):
        raise UsageError(f"{len(texts)} texts, {len(labels)} labels, {len(units)} units", "one of each", "give all")
    names = np.unique(units.astype(str))
    place = {name: number % folds for number, name in enumerate(names)}
    fold = np.array([place[str(unit)] for unit in units], dtype=int)
    foretold = np.full(len(texts), "", dtype=object)
    for number in np.unique(fold):
        train = fold != number
        if train.any():
            foretold[~train] = _foretold(texts, labels.astype(str), train)
    return foretold.astype(str)


def _foretold(texts: Sequence[str], labels: Labels, train: Bool[np.ndarray, " text"]) -> Shaped[np.ndarray, " other"]:
    names, numbers = np.unique(labels[train], return_inverse=True)
    if len(names) == 1:
        return np.repeat(names, int((~train).sum()))
    grams = [_grams(text) for text in texts]
    common = Counter(gram for of_it, is_train in zip(grams, train, strict=True) if is_train for gram in of_it)
    # Of n-grams that as many texts have, the first by name: the choice must not depend on the order of a set.
    chosen = sorted(common, key=lambda gram: (-common[gram], gram))[:_MOST]
    features = np.array([[gram in of_it for gram in chosen] for of_it in grams], dtype=np.float64)
    centre = features[train].mean(axis=0)
    weights, level = _fitted(features[train] - centre, numbers, len(names))
    likeliest = ((features[~train] - centre) @ weights + level).argmax(axis=1)
    return np.asarray(names[likeliest])


def _fitted(
    features: Features, labels: Int[np.ndarray, " text"], n_labels: int
) -> tuple[Float[np.ndarray, "feature label"], Float[np.ndarray, " label"]]:
    """Return weights and levels of the regression that is likeliest, a standard normal prior on the weights."""
    observed = np.eye(n_labels)[labels]

    def loss(flat: Float[np.ndarray, " parameter"]) -> tuple[float, Float[np.ndarray, " parameter"]]:
        parameters = flat.reshape(-1, n_labels)
        weights, level = parameters[:-1], parameters[-1]
        logits = features @ weights + level
        log_p = special.log_softmax(logits, axis=1)
        value = -(log_p * observed).sum() + (weights**2).sum() / 2
        slope = np.exp(log_p) - observed
        gradient = np.vstack([features.T @ slope + weights, slope.sum(axis=0)])
        return float(value), gradient.ravel()

    start = np.zeros((features.shape[1] + 1) * n_labels)
    fit = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    parameters = fit.x.reshape(-1, n_labels)
    return parameters[:-1], parameters[-1]


def _grams(text: str) -> frozenset[str]:
    padded = f" {text.lower()} "
    return frozenset(padded[at : at + n] for n in _LENGTHS for at in range(len(padded) - n + 1))
