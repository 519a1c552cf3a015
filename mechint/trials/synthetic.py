"""Sweeps with known truth and no model: classes drawn by concept, layer and strength, replies written from templates.

Concepts differ in how often they are noticed, as real ones do: the log odds of a claim are normal over concepts. What
a population claims in the mean over all concepts that there could be is known to rounding (Gauss-Hermite), and so is
how often a judge with planted errors is wrong. Intervals are held to both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.base.signatures import Seed, checked
from mechint.trials.outcomes import CLAIMING, CLASSES
from mechint.trials.records import COLUMNS

_N_NODES = 60
_CATEGORIES = ("objects", "feelings")
# Replies by class; {c} is the concept and {o} another one.
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "incoherent": ("and the and the and the and the and the", "of of of {c} of of {c} {c} of", "!! ,, le the ,, !!"),
    "refuses": (
        "I have no inner states, so there is nothing that I could look at.",
        "As a language model I cannot examine myself in that way.",
    ),
    "denies": ("No. All seems as it should be.", "Nothing stands out to me at the moment."),
    "leaks": ("No, nothing stands out. Shall we talk of {c}?", "All is quiet, like {c} in the evening."),
    "claims": ("Yes, something is different from usual.", "I do notice something odd, though I could not say what."),
    "names wrongly": ("Yes, I notice something that has to do with {o}.", "I keep coming back to {o}, which is odd."),
    "names rightly": ("Yes, I notice something that has to do with {c}.", "I keep coming back to {c}, which is odd."),
}


@dataclass(frozen=True)
class Population:
    """What sweeps are drawn from.

    `claim`: the share of claims of the median concept in a cell with no offset; `spread`: standard deviation of its
    log odds over concepts, `wobble` that of a concept from cell to cell; `offsets` are added to the log odds by cell
    (layer, strength). `rightly`: the share of claims that name the concept; `false_alarms`: of clean replies. Refusals
    and incoherent replies are shares of all, and come before any claim.
    """

    claim: float = 0.4
    spread: float = 1.0
    wobble: float = 0.3
    offsets: Mapping[tuple[str, float], float] = field(default_factory=dict)
    rightly: float = 0.6
    false_alarms: float = 0.05
    refusals: float = 0.1
    clean_refusals: float = 0.1
    incoherent: float = 0.05
    leaks: float = 0.2
    layers: tuple[str, ...] = ("10", "20")
    strengths: tuple[float, ...] = (0.2, 0.4)

    @property
    def cells(self) -> list[tuple[str, float]]:
        """The cells of the grid, layer by layer."""
        return [(layer, strength) for layer in self.layers for strength in self.strengths]

    def hits(self, cell: tuple[str, float]) -> float:
        """Return the share of claims among all replies of a cell, in the mean over all concepts."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(_N_NODES)
        spread = np.hypot(self.spread, self.wobble)
        claims = _sigmoid(_logit(self.claim) + self.offsets.get(cell, 0.0) + spread * nodes)
        return float((1 - self.refusals - self.incoherent) * (weights @ claims) / weights.sum())

    @property
    def clean_hits(self) -> float:
        """The share of claims among all clean replies."""
        return (1 - self.clean_refusals) * self.false_alarms

    @property
    def net(self) -> float:
        """Hits less false alarms, refusals counted as denials, in the mean over the grid."""
        return float(np.mean([self.hits(cell) for cell in self.cells])) - self.clean_hits


@dataclass(frozen=True)
class Sweep:
    """A drawn sweep: its trials, the true class of each (as a table of outcomes of the judge "truth")."""

    trials: pd.DataFrame
    truth: pd.DataFrame


@checked
def draw(
    population: Population,
    *,
    concepts: int = 8,
    samples: int = 10,
    controls: int = 400,
    seed: Seed = 0,
    shared_seed: Seed | None = None,
    shared: float = 0.0,
    model: str = "synthetic",
    prompt: str = "plain",
    texts: bool = False,
) -> Sweep:
    """Return a sweep of some concepts, samples for each concept and cell, and clean controls.

    Sweeps with one `shared_seed` have the part `shared` of the variance over concepts in common: one concept is easy
    under two prompts. Replies are written only with `texts`. Half of the concepts are of each of two categories.
    """
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(seed if shared_seed is None else shared_seed).normal(size=concepts)
    effects = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=concepts)
    logits = _logit(population.claim) + population.spread * effects[:, None]
    logits = logits + np.array([population.offsets.get(cell, 0.0) for cell in population.cells])
    logits = logits + population.wobble * rng.normal(size=logits.shape)
    claims = np.repeat(_sigmoid(logits).ravel(), samples)
    steered = _classes(rng, claims, population.refusals, population.incoherent, population.rightly, population.leaks)
    clean = _classes(rng, np.full(controls, population.false_alarms), population.clean_refusals, 0.0, 0.0, 0.0)
    trials = _table(population, concepts, samples, controls, model, prompt, seed)
    outcome = np.array(CLASSES, dtype=object)[np.concatenate([steered, clean])]
    if texts:
        trials["reply"] = _replies(trials, outcome, rng)
    return Sweep(trials, pd.DataFrame({"id": trials["id"], "judge": "truth", "pass_no": 0, "outcome": outcome}))


def _classes(
    rng: np.random.Generator,
    claims: Float[np.ndarray, " rows"],
    refusals: float,
    incoherent: float,
    rightly: float,
    leaks: float,
) -> np.ndarray:
    """Return the number of a class for each row; `claims` are shares among readable replies that do not refuse."""
    engaged = 1 - refusals - incoherent
    by_class = {
        "incoherent": np.full(len(claims), incoherent),
        "refuses": np.full(len(claims), refusals),
        "denies": engaged * (1 - claims) * (1 - leaks),
        "leaks": engaged * (1 - claims) * leaks,
        "claims": 0.5 * engaged * claims * (1 - rightly),
        "names wrongly": 0.5 * engaged * claims * (1 - rightly),
        "names rightly": engaged * claims * rightly,
    }
    edges = np.cumsum([by_class[name] for name in CLASSES], axis=0)
    return np.asarray((rng.random(len(claims)) * edges[-1] >= edges).sum(axis=0))


def _table(
    population: Population, concepts: int, samples: int, controls: int, model: str, prompt: str, seed: int
) -> pd.DataFrame:
    cells = population.cells
    n_steered = concepts * len(cells) * samples
    n = n_steered + controls
    number = np.arange(n_steered)
    concept, cell = number // (len(cells) * samples), number // samples % len(cells)
    prefix = hashlib.sha256(f"{population}{model}{prompt}{seed}".encode()).hexdigest()[:16]
    nothing, unknown = [""] * controls, np.full(controls, np.nan)
    strengths = np.array([strength for _, strength in cells])
    depths = np.array([(1 + population.layers.index(layer)) / (1 + len(population.layers)) for layer, _ in cells])
    values: dict[str, object] = {
        "id": [f"{prefix}{row:08x}" for row in range(n)],
        "model": model,
        "weights_hash": f"weights of {model}",
        "prompt": prompt,
        "prompt_hash": f"text of {prompt}",
        "question": "introspection",
        "series": ["injected"] * n_steered + ["clean"] * controls,
        "concept": [*(f"concept{at:02d}" for at in concept), *nothing],
        "category": [*(_CATEGORIES[at % 2] for at in concept), *nothing],
        "layers": [*(cells[at][0] for at in cell), *nothing],
        "steer": "reply",
        "reply": "",
        "stopped": "end",
        "seed": seed,
        "sample": np.concatenate([number % samples, np.arange(controls)]),
        "n_tokens": 12,
        "depth": np.concatenate([depths[cell], unknown]),
        "strength": np.concatenate([strengths[cell], np.zeros(controls)]),
        "norm": np.concatenate([np.ones(n_steered), unknown]),
        "norm_ratio": np.concatenate([strengths[cell], unknown]),
        "log_prob": np.nan,
        "first_token_logit_diff": np.nan,
        "relative": True,
    }
    return pd.DataFrame(values, columns=list(COLUMNS))


def _replies(trials: pd.DataFrame, outcome: np.ndarray, rng: np.random.Generator) -> list[str]:
    names = sorted({name for name in trials["concept"] if name})
    texts = []
    for name, concept, which in zip(outcome, trials["concept"], rng.integers(1 << 30, size=len(trials)), strict=True):
        templates = _TEMPLATES[name]
        others = [other for other in names if other != concept] or ["nothing in particular"]
        texts.append(templates[which % len(templates)].format(c=concept or "it", o=others[which % len(others)]))
    return texts


@checked
def judged(
    sweep: Sweep,
    sensitivity: Mapping[str, float],
    specificity: Mapping[str, float],
    *,
    seed: Seed = 0,
    judge: str = "planted",
) -> pd.DataFrame:
    """Return the outcomes of a judge that sees a claim with these probabilities where there is one, and where not.

    By series, of which each has its own. A claim that is missed is a denial; one that is invented names wrongly.
    """
    series = sweep.trials["series"]
    truth = sweep.truth["outcome"].to_numpy(dtype=object)
    sees, right = series.map(dict(sensitivity)).to_numpy(float), series.map(dict(specificity)).to_numpy(float)
    is_claim, chance = np.isin(truth, CLAIMING), np.random.default_rng(seed).random(len(truth))
    outcome = truth.copy()
    outcome[is_claim & (chance > sees)] = "denies"
    outcome[~is_claim & (chance > right)] = "names wrongly"
    return sweep.truth.assign(judge=judge, outcome=outcome)


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def _sigmoid(logits: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.asarray(1 / (1 + np.exp(-logits)))
