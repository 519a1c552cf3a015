"""Pilots: cells without coherent replies are dropped and told; all others have the rows that they have without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import UsageError
from mechint.trials import outcome_table, pilot, rate_table, run
from mechint.trials.design import Controls, Pilot, TrialDesign
from mechint.trials.explaining import explain_pilot
from mechint.trials.run import run_trials
from mechint.trials.storage import read_trials, write_trials
from mechint.trials.verdicts import Item, Verdict, verdict_table

FULL = TrialDesign(
    concepts=("cats", "bread"),
    layers=("2:5",),
    strengths=(0.2, 0.4),
    prompts=("plain", "standard"),
    samples=3,
    control_samples=1,
    controls=Controls(clean=2, random=1, no=1, yes=0, none=0, mention=1),
    max_new_tokens=3,
)
PILOT = replace(FULL, pilot=Pilot(samples=2, coherence=0.5))
BROKEN = ("bread", "2:5", 0.4, "reply")


class Oracle:
    """A judge to whom replies of some ids are not coherent, and all others are."""

    name, version = "rules", "planted"

    def __init__(self, broken: Sequence[str]) -> None:
        self.broken = set(broken)

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [Verdict("no", coherent=item.id not in self.broken) for item in items]


@pytest.fixture(scope="module")
def organism(family: Mapping[str, mi.Model]) -> mi.Model:
    return family["organism"]


@pytest.fixture(scope="module")
def vectors(organism: mi.Model) -> dict[str, mi.ConceptVector]:
    drawn = mi.extract.random_controls(organism, 2, seed=5)
    return dict(zip(("cats", "bread"), drawn, strict=True))


@pytest.fixture(scope="module")
def full(organism: mi.Model, vectors: dict[str, mi.ConceptVector]) -> pd.DataFrame:
    return run_trials(organism, FULL, vectors)


def of_concept(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[(trials["series"] == "injected") & (trials["question"] == "introspection")]


def is_broken(trials: pd.DataFrame) -> pd.Series:
    asking = (trials["series"] == "injected") & (trials["question"] == "introspection")
    return asking & (trials["concept"] == "bread") & (trials["strength"] == 0.4)


@pytest.fixture(scope="module")
def oracle(full: pd.DataFrame) -> Oracle:
    """The judge of pilots: of one cell it can read one reply of four, of any control none."""
    broken = full[is_broken(full)]
    spared = broken["id"].iloc[0]
    controls = full[~full["id"].isin(of_concept(full)["id"])]
    return Oracle([*broken.loc[broken["id"] != spared, "id"], *controls["id"]])


@pytest.fixture(scope="module")
def piloted(organism: mi.Model, vectors: dict[str, mi.ConceptVector], oracle: Oracle) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pilot, "open_judge", lambda name: oracle)
        return run_trials(organism, PILOT, vectors)


def test_cells_that_stay_have_the_rows_of_a_design_without_pilot(full: pd.DataFrame, piloted: pd.DataFrame) -> None:
    expected = full[~is_broken(full)].reset_index(drop=True)
    pd.testing.assert_frame_equal(piloted, expected, rtol=1e-3)


def test_what_was_dropped_is_counted_and_kept(full: pd.DataFrame, piloted: pd.DataFrame, tmp_path: Path) -> None:
    cells = mi.trials.pilot_cells(piloted).set_index(list(pilot.CELL))
    assert len(cells) == 4
    assert cells.loc[BROKEN].tolist() == [4, 1, True]
    assert cells["dropped"].sum() == 1
    dropped = mi.trials.dropped_trials(piloted)
    expected = full[is_broken(full) & (full["sample"] < 2)].reset_index(drop=True)
    pd.testing.assert_frame_equal(dropped, expected, rtol=1e-3)
    again = read_trials(write_trials(piloted, tmp_path / "trials.parquet"))
    pd.testing.assert_frame_equal(mi.trials.dropped_trials(again), dropped)
    note = mi.trials.pilot_note(piloted.attrs["pilot"])
    assert "1 of 4 cells dropped, less than 50% coherent (bread, layers 2:5, 0.4: 1 of 4)" in note
    assert "of the 3 left, controls keep all" in note
    assert mi.trials.dropped_trials(full).empty
    assert mi.trials.pilot_cells(full).empty


def test_rates_say_that_they_are_of_cells_that_are_left(piloted: pd.DataFrame, oracle: Oracle) -> None:
    items = [Item(key, "", reply) for key, reply in zip(piloted["id"], piloted["reply"], strict=True)]
    outcomes = outcome_table(piloted, verdict_table(oracle, items, oracle.judge(items)), {})
    with pytest.raises(UsageError, match="unequal grids"):
        rate_table(piloted, outcomes)
    rates = rate_table(piloted, outcomes, measures=["net", "clean coherence"], unmatched=True)
    says = rates["warning"].str.contains("of the 3 of 4 cells that a pilot left")
    assert says[rates["measure"] == "net"].all()
    for others in ({"series": "random"}, {"question": "no"}):
        table = rate_table(piloted, outcomes, measures=["hits"], unmatched=True, **others)
        assert not table["warning"].str.contains("pilot").any()


def test_a_pilot_is_gone_on_with(
    organism: mi.Model,
    vectors: dict[str, mi.ConceptVector],
    piloted: pd.DataFrame,
    oracle: Oracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pilot, "open_judge", lambda name: oracle)
    assert "up to 8 of" in explain_pilot(organism, PILOT, vectors, store=tmp_path)
    sample, stages = run.replies, []

    def interrupted(*args: object, **options: object) -> pd.DataFrame:
        stages.append(args)
        if len(stages) == 2:
            raise KeyboardInterrupt
        return sample(*args, **options)

    monkeypatch.setattr(run, "replies", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trials(organism, PILOT, vectors, store=tmp_path)
    assert "1 of 4 cells dropped" in explain_pilot(organism, PILOT, vectors, store=tmp_path)
    resumed = run_trials(organism, PILOT, vectors, store=tmp_path)
    assert len(stages) == 3  # the pilot was not sampled again
    pd.testing.assert_frame_equal(resumed, piloted, rtol=1e-3)
    assert resumed.attrs["pilot"] == piloted.attrs["pilot"]


def test_replies_without_a_verdict_drop_nothing(full: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Oracle):
        def judge(self, items: Sequence[Item]) -> list[Verdict]:
            return [Verdict("unclear", coherent=False, error="no answer") for _ in items]

    monkeypatch.setattr(pilot, "open_judge", lambda name: Silent([]))
    record = pilot.read_pilot(of_concept(full), dict.fromkeys(full["prompt"], ""), Pilot(samples=3))
    assert not pilot.dropped_places(record)
    assert {cell["n"] for cell in pilot.cells_of(record)} == {0}


def test_a_share_at_the_limit_stays_and_dropping_all_is_an_error(
    full: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, texts = of_concept(full), dict.fromkeys(full["prompt"], "")
    half = asking.groupby(list(pilot.CELL))["id"].head(3)  # of six
    monkeypatch.setattr(pilot, "open_judge", lambda name: Oracle(half.tolist()))
    assert not pilot.dropped_places(pilot.read_pilot(asking, texts, Pilot(samples=3, coherence=0.5)))
    with pytest.raises(UsageError, match="all 4 cells have less than 51% coherent"):
        pilot.read_pilot(asking, texts, Pilot(samples=3, coherence=0.51))


def test_a_design_says_its_pilot() -> None:
    assert TrialDesign.from_dict(PILOT.to_dict()) == PILOT
    assert "pilot" not in FULL.to_dict()
    assert PILOT.key != FULL.key
    assert TrialDesign.from_dict({**FULL.to_dict(), "pilot": {"samples": 1}}).pilot == Pilot(samples=1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"samples": 3}, "a pilot of 3 of 3 samples"),
        ({"samples": 0}, "pilot, samples=0"),
        ({"coherence": 0.0}, "pilot, coherence=0"),
        ({"coherence": 1.1}, "pilot, coherence=1.1"),
        ({"judge": "openai:http://localhost"}, "pilot, judge"),
        ({"judge": "rulez"}, "pilot, judge"),
        ({"size": 3}, "pilot.size"),
    ],
)
def test_a_pilot_that_contradicts_itself_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        TrialDesign.from_dict({**FULL.to_dict(), "pilot": {"samples": 1, **change}})
