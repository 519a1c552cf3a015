"""What each evaluation of each run comes to: one row for each measure, with its interval over what the run was asked.

Units of these intervals are vectors, texts, items, concepts or prompts within one run. They say how well a run was
measured, and nothing of how another seed would turn out: that is what effects between recipes are over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from mechint.evals.subjects import BASE

if TYPE_CHECKING:
    import pandas as pd

Tables = Mapping[str, "pd.DataFrame"]
PLACE = ("trained_by", "seed", "step", "asked_by")
COLUMNS = (*PLACE, "evaluation", "part", "measure", "value", "low", "high")
HELD_OUT = "held-out"
_RATES = ("auc", "auc_control", "auc_above_control", "hits", "alarms", "d_prime", "criterion", "hits_at", "alarms_at")
_NAMING = ("naming", "leakage", "naming_above_leakage", "lift", "leaked_lift", "lift_above_leakage", "choice", "loss")
_GUESSED = {
    "length": ("error", "error_constant", "error_base", "gain", "spearman", "censored"),
    "first-word": ("accuracy", "accuracy_base", "baseline", "kappa", "gain"),
}
_STANCES = ("stance", "bias", "shift", "slope", "mass")


def units_table(tables: Tables) -> pd.DataFrame:
    """Return rows of all evaluations that are there (`COLUMNS`); `part` is a pool, side, dose or way of asking."""
    import pandas as pd

    rows = [row for name, summary in _SUMMARIES.items() if name in tables for row in summary(tables[name])]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def subjects_of(table: pd.DataFrame) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Yield the place of each subject, by column, with its rows."""
    for key, rows in table.groupby(list(PLACE), sort=False):
        yield dict(zip(PLACE, key, strict=True)), rows


def base_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the base."""
    return table[table["trained_by"] == BASE]


def _detection(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.detection_rates import clean_rates, detection_rates

    for place, rows in subjects_of(table):
        at = place | {"evaluation": "detection"}
        for record in detection_rates(rows, by="pool").to_dict("records"):
            yield from _measures(at | {"part": record["pool"]}, record, _RATES)
            for name in ("mass", "mass_clean", "says", "says_clean"):
                yield at | {"part": record["pool"], "measure": name, "value": record[name]}
        for record in clean_rates(rows).to_dict("records"):
            if record["pool"] in ("odd", "long", "seen"):
                yield from _measures(at | {"part": record["pool"]}, record, ("auc", "alarms"))


def _transfer(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.detection_rates import detection_rates

    for place, rows in subjects_of(table):
        for record in detection_rates(rows, by="asked_in").to_dict("records"):
            at = place | {"evaluation": "transfer", "part": record["asked_in"]}
            yield from _measures(at, record, ("auc", "auc_above_control"))
            yield at | {"measure": "mass", "value": min(record["mass"], record["mass_clean"])}


def _battery(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.stances import ALL, contrast, stances

    base = base_rows(table)
    for place, rows in subjects_of(table):
        at = place | {"evaluation": "battery"}
        before = None if place["trained_by"] == BASE or base.empty else base
        for side in ("group", "side"):
            pair = [None if t is None else t.assign(group=t[side]) for t in (rows, before)]
            assert pair[0] is not None
            for record in stances(pair[0], pair[1]).to_dict("records"):
                yield from _measures(at | {"part": record["group"]}, record, _STANCES)
                yield at | {"part": record["group"], "measure": "refusal", "value": record["refusal"]}
        if before is not None:
            for record in contrast(rows, before).to_dict("records"):
                part = "self" if record["group"] == ALL else record["group"]
                yield from _measures(at | {"part": part}, record, ("contrast",))


def _multiturn(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.turn_effects import turn_effects

    for place, rows in subjects_of(table):
        for record in turn_effects(rows, by="side").to_dict("records"):
            ends = {name: record[name] for name in ("value", "low", "high")}
            at = place | {"evaluation": "multiturn", "part": record["side"]}
            yield at | {"measure": record["effect"], **ends}


def _realtime(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.naming_rates import naming_rates

    for place, rows in subjects_of(table):
        for record in naming_rates(rows).to_dict("records"):
            at = place | {"evaluation": "realtime", "part": f"{record['mode']} {record['dose']:g}"}
            yield from _measures(at, record, _NAMING)


def _talk(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.talk import talk_rates

    for place, rows in subjects_of(table):
        for record in talk_rates(rows).to_dict("records"):
            ends = {name: record[name] for name in ("measure", "value", "low", "high")}
            yield place | {"evaluation": "talk", "part": "", **ends}


def _self_prediction(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.self_rates import self_prediction_matrix, self_prediction_rates

    for place, rows in subjects_of(table):
        at = place | {"evaluation": "self_prediction", "part": ""}
        for record in self_prediction_matrix(rows).to_dict("records"):
            pair = at | {"part": f"{record['object_model']} by {record['meta_model']}"}
            yield from _measures(pair, record, ("accuracy", "kappa"))
            yield pair | {"measure": "baseline", "value": record["baseline"]}
        for record in self_prediction_rates(rows, ()).to_dict("records"):
            yield from _measures(at, record, ("accuracy", "kappa", "compliance", "advantage", "gain", "follows_own"))
            yield at | {"measure": "baseline", "value": record["baseline"]}


def _calibration(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.calibration_rates import calibration_rates

    for place, rows in subjects_of(table):
        for record in calibration_rates(rows).to_dict("records"):
            at = place | {"evaluation": "calibration", "part": f"{record['source']} {record['kind']}"}
            yield from _measures(at, record, ("js", "js_uniform", "js_base_actual", "js_other", "gain"))
            yield at | {"measure": "failure", "value": record["failure"]}


def _lengths(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.length_rates import length_rates

    for place, rows in subjects_of(table):
        for record in length_rates(rows).to_dict("records"):
            at = place | {"evaluation": "lengths", "part": record["measure"]}
            yield from _measures(at, record, _GUESSED[str(record["measure"])])


def _ability(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    from mechint.evals.ability_rates import ability_rates

    for place, rows in subjects_of(table):
        for record in ability_rates(rows).to_dict("records"):
            part = f"{record['set']} {record['dose']:g}" if record["dose"] else str(record["set"])
            at = place | {"evaluation": "ability", "part": part}
            ends = {"value": record["value"], "low": record["value_low"], "high": record["value_high"]}
            yield at | {"measure": record["measure"], **ends}


def _measures(
    at: Mapping[str, object], record: Mapping[str, object], names: tuple[str, ...]
) -> Iterator[dict[str, object]]:
    """Yield a row for each measure that a record has with its bounds."""
    for name in names:
        if name in record:
            ends = {"value": record[name], "low": record.get(f"{name}_low"), "high": record.get(f"{name}_high")}
            yield {**at, "measure": name, **ends}


_SUMMARIES: Mapping[str, Callable[[pd.DataFrame], Iterator[dict[str, object]]]] = {
    "detection": _detection,
    "transfer": _transfer,
    "battery": _battery,
    "multiturn": _multiturn,
    "realtime": _realtime,
    "talk": _talk,
    "self_prediction": _self_prediction,
    "calibration": _calibration,
    "lengths": _lengths,
    "ability": _ability,
}
