"""How far reported distributions are from what a model does, beside what knows nothing of it and what others report.

The distance is Jensen and Shannon's divergence in bits: 0 for the same distribution, 1 for another altogether. A report
that says what anybody would say is near to most models; `gain` is by how much the model's own is nearer than that of
the other model whose report is nearest.

`estimator="published"` is what was published: Kullback and Leibler's divergence with a floor of a millionth under what
was not reported, which is a score of coverage, and the first answers of lists as they were read with the text before
them glued to the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.evals.calibration import ACTUAL, FORCED, HALF, VERBAL
from mechint.evals.reported import published_distribution
from mechint.evals.responders import BASE, SELF
from mechint.stats.divergence import coverage, js_divergence, kl_divergence
from mechint.stats.intervals import PROBABILITY, Interval, mean_interval

Estimator = Literal["ours", "published"]
Shares = Mapping[str, float]
_FLOOR = 1e-6  # under what was not reported, as published
_NATS = float(np.log(2))
_GAIN = (-1.0, 1.0)


@checked
def calibration_rates(
    table: pd.DataFrame, *, alpha: float = 0.01, estimator: Estimator = "ours", level: float = 0.95
) -> pd.DataFrame:
    """Return one row for each source of reports ("verbal", "choice") and kind of request in a table of `calibration`.

    Means over requests whose report could be read, with bounds (`_low`, `_high`): `js` (bits) of the model's reports
    from what it does; `js_uniform`, of the uniform distribution over all answers that were given or reported;
    `js_base_actual`, of what the base does; `js_other`, of the report of that other model, `other`, whose reports are
    nearest; `gain`, that less `js`, on requests that have both. `kl` (bits) with `alpha` added to each probability, for
    what it is worth; `coverage`, the share of what the model does that is reported at all; `top`, how often the
    commonest answer is reported as commonest. `js_halves` is how far two halves of the model's own replies are from
    each other: no report can be nearer to what was sampled; 0 where it is exact. `failure` is the share of reports that
    could not be read, over all, `unseen` and `mass` are means, `n_prompts` and `n_read` counts of requests.

    With `estimator="published"`: `kl` (nats), `top_5` (overlap), `top` and `n_prompts`, of verbal reports. Raises
    UsageError for a table without own answers, and for an alpha that is not above 0.
    """
    if not alpha > 0:
        raise UsageError(f"alpha {alpha}", "above 0: the divergence is infinite without", "give 0.01, for example")
    table = pd.DataFrame({name: table[name] for name in table})  # without the receipts, which pandas would compare
    if SELF not in set(table.loc[table["source"] == ACTUAL, "model"]):
        raise UsageError("a table without own answers", "a table of mi.evals.calibration", "compute it first")
    rows = []
    for kind, group in table.groupby("kind", sort=False):
        for source in (VERBAL, FORCED):
            if (group["source"] == source).any():
                row = _published(group) if estimator == "published" else _ours(group, source, alpha, level)
                if source == VERBAL or estimator == "ours":
                    rows.append({"source": source, "kind": kind, **row})
    return pd.DataFrame(rows)


def _ours(group: pd.DataFrame, source: str, alpha: float, level: float) -> dict[str, object]:
    prompts = list(group.loc[(group["model"] == SELF) & (group["source"] == ACTUAL), "prompt"].drop_duplicates())
    actual = {prompt: _shares(group, SELF, ACTUAL, prompt) for prompt in prompts}
    distances = {
        name: np.array([_js(actual[prompt], _shares(group, name, source, prompt)) for prompt in prompts])
        for name in group["model"].drop_duplicates()
    }
    own = distances[SELF]
    read = np.isfinite(own)
    others = {name: values for name, values in distances.items() if name != SELF and np.isfinite(values).any()}
    other = min(others, key=lambda name: float(np.nanmean(others[name]))) if others else ""
    nearest = others[other] if other else np.full(len(prompts), np.nan)
    base = np.array([_js(actual[prompt], _shares(group, BASE, ACTUAL, prompt)) for prompt in prompts])
    reports = [_shares(group, SELF, source, prompt) for prompt in prompts]
    pairs = [(actual[prompt], report) for prompt, report in zip(prompts, reports, strict=True) if report]
    values = {
        "js": _mean(own[read], PROBABILITY, level),
        "js_uniform": _mean([_from_uniform(*pair) for pair in pairs], PROBABILITY, level),
        "js_base_actual": _mean(base[np.isfinite(base)], PROBABILITY, level),
        "js_other": _mean(nearest[np.isfinite(nearest)], PROBABILITY, level),
        "gain": _mean((nearest - own)[np.isfinite(nearest - own)], _GAIN, level),
        "coverage": _mean([float(coverage(*_aligned(*pair))) for pair in pairs], PROBABILITY, level),
        "top": _mean([float(_top(first) == _top(second)) for first, second in pairs], PROBABILITY, level),
    }
    row: dict[str, object] = {"other": other}
    for name, interval in values.items():
        row |= {name: float(interval.mean), f"{name}_low": float(interval.low), f"{name}_high": float(interval.high)}
    kl = [float(kl_divergence(*_aligned(*pair), alpha=alpha)) for pair in pairs]
    row |= {"kl": float(np.mean(kl)) if kl else float("nan"), "alpha": alpha, "js_halves": _halves(group, prompts)}
    return row | _counts(group, source, prompts, read)


def _halves(group: pd.DataFrame, prompts: Sequence[str]) -> float:
    """Return how far both halves of the model's own replies are from each other, 0 where nothing was sampled."""
    halves = group[(group["model"] == SELF) & (group["source"] == HALF)]
    if halves.empty:
        return 0.0
    parts = [halves[halves["report"] == number] for number in range(2)]
    values = [_js(*(_shares(part, SELF, HALF, prompt) for part in parts)) for prompt in prompts]
    return float(np.mean(values))


def _counts(group: pd.DataFrame, source: str, prompts: Sequence[str], read: np.ndarray) -> dict[str, float | int]:
    of_self = group[group["model"] == SELF]
    reports = of_self[of_self["source"] == source].drop_duplicates(["prompt", "report"])
    actual = of_self[of_self["source"] == ACTUAL].drop_duplicates("prompt")
    return {
        "failure": float((~reports["parsed"].astype(bool)).mean()),
        "unseen": float(actual["unseen"].mean()),
        "mass": float(actual["mass"].mean()),
        "n_prompts": len(prompts),
        "n_read": int(read.sum()),
    }


def _shares(group: pd.DataFrame, model: str, source: str, prompt: str) -> Shares:
    """Return a distribution by answer, the mean of all reports that could be read; none where there is none."""
    rows = group[(group["model"] == model) & (group["source"] == source) & (group["prompt"] == prompt)]
    rows = rows[rows["parsed"].astype(bool)]
    if rows.empty:
        return {}
    sums = rows.groupby("answer", sort=False)["p"].sum() / rows["report"].nunique()
    return {str(answer): float(p) for answer, p in sums.items()}


def _js(actual: Shares, report: Shares) -> float:
    return float(js_divergence(*_aligned(actual, report))) if actual and report else float("nan")


def _from_uniform(actual: Shares, report: Shares) -> float:
    return _js(actual, dict.fromkeys([*actual, *report], 1.0))


def _aligned(first: Shares, second: Shares) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of both on all answers of either."""
    answers = sorted({*first, *second})
    weights = [np.array([of_it.get(answer, 0.0) for answer in answers]) for of_it in (first, second)]
    return weights[0], weights[1]


def _top(shares: Shares) -> str:
    return max(shares, key=lambda answer: shares[answer])


def _mean(values: Sequence[float] | np.ndarray, within: tuple[float, float], level: float) -> Interval:
    """Return the interval of the mean over requests, NaN without any."""
    if not len(values):
        nothing = np.array(np.nan)
        return Interval(nothing, nothing, nothing, 0)
    return mean_interval(np.asarray(values, dtype=np.float64), level=level, within=within)


def _published(group: pd.DataFrame) -> dict[str, object]:
    of_self = group[(group["model"] == SELF) & (group["source"] == VERBAL)]
    rows = []
    for prompt, reports in of_self.groupby("prompt", sort=False):
        actual = _shares(group, SELF, ACTUAL, str(prompt))
        if not actual:
            continue
        report = published_distribution(str(reports["text"].iloc[0]))
        kl = sum(p * np.log(p / max(report.get(answer, 0.0), _FLOOR)) for answer, p in actual.items() if p > 0)
        first = [sorted(of_it, key=lambda answer: -of_it[answer])[:5] for of_it in (actual, report)]
        top = bool(first[1]) and first[0][0] == first[1][0]
        rows.append({"kl": kl, "top_5": len(set(first[0]) & set(first[1])) / 5, "top": float(top)})
    means = pd.DataFrame(rows, columns=["kl", "top_5", "top"]).mean().to_dict()
    return {**means, "n_prompts": len(rows)}
