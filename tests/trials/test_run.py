"""Sweeps on the embedded organism: the same rows in any batch, order, interruption and design that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import StaleArtefactError, UnknownConceptError, UsageError
from mechint.trials import run, sweeps
from mechint.trials.design import Controls, Pilot, TrialDesign
from mechint.trials.explaining import explain_trials
from mechint.trials.run import run_trials
from mechint.trials.sweeps import Sweep

DESIGN = TrialDesign(
    concepts=("cats", "bread", "bread+cats"),
    layers=("2:5",),
    strengths=(0.4,),
    samples=2,
    control_samples=1,
    controls=Controls(clean=3, random=1, no=1, yes=1, none=0, mention=1),
    max_new_tokens=8,
)
Vectors = dict[str, mi.ConceptVector]


@pytest.fixture(scope="module")
def organism(family: Mapping[str, mi.Model]) -> mi.Model:
    return family["organism"]


@pytest.fixture(scope="module")
def vectors(organism: mi.Model) -> Vectors:
    drawn = mi.extract.random_controls(organism, 2, seed=5)
    return dict(zip(("cats", "bread"), drawn, strict=True))


@pytest.fixture(scope="module")
def trials(organism: mi.Model, vectors: Vectors) -> pd.DataFrame:
    return run_trials(organism, DESIGN, vectors)


def test_every_cell_has_its_replies(trials: pd.DataFrame) -> None:
    counts = trials.groupby(["series", "question"]).size().to_dict()
    assert counts == {
        ("injected", "introspection"): 6,
        ("injected", "no"): 3,
        ("injected", "yes"): 3,
        ("random", "introspection"): 2,
        ("random", "no"): 1,
        ("random", "yes"): 1,
        ("clean", "introspection"): 3,
        ("clean", "no"): 2,
        ("clean", "yes"): 2,
        ("clean", "mention"): 2,
    }
    injected = trials[trials["series"] == "injected"]
    assert injected["norm_ratio"].loc[injected["concept"] != "bread+cats"].round(6).unique().tolist() == [0.4]
    assert (injected["norm_ratio"].loc[injected["concept"] == "bread+cats"] > 0.45).all()
    assert trials["id"].is_unique


def test_a_prompt_is_filled_once_for_all_cells(trials: pd.DataFrame) -> None:
    assert len(trials.attrs["prefills"]) == trials["prompt_hash"].nunique()


def test_the_first_token_of_a_reply_is_drawn_from_clean_logits(trials: pd.DataFrame) -> None:
    of_prompt = trials[trials["prompt"] == "standard"]["first_token_logit_diff"]
    assert of_prompt.nunique() == 1


def test_replies_do_not_depend_on_the_batch(organism: mi.Model, vectors: Vectors, trials: pd.DataFrame) -> None:
    same = run_trials(organism, DESIGN, vectors, batch_size=3)
    pd.testing.assert_frame_equal(same, trials, rtol=1e-3)


def test_shards_in_any_order_make_the_whole(
    organism: mi.Model, vectors: Vectors, trials: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [run_trials(organism, DESIGN, vectors, store=tmp_path, shard=mi.Shard(at, 3)) for at in (2, 0, 1)]
    assert sorted(name for part in parts for name in part["id"]) == sorted(trials["id"])
    monkeypatch.setattr(run, "replies", None)  # nothing is left to sample
    whole = run_trials(organism, DESIGN, vectors, store=tmp_path)
    pd.testing.assert_frame_equal(whole, trials, rtol=1e-3)
    piloted = replace(DESIGN, pilot=Pilot(samples=1))
    with pytest.raises(UsageError, match="with a pilot"):
        run_trials(organism, piloted, vectors, shard=mi.Shard(0, 2))


def test_an_interrupted_sweep_goes_on(
    organism: mi.Model, vectors: Vectors, trials: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = run.replies

    def interrupted(*args: object, ended, **options: object) -> pd.DataFrame:
        def stop(rows: pd.DataFrame) -> None:
            ended(rows)
            raise KeyboardInterrupt

        return sample(*args, ended=stop, **options)

    monkeypatch.setattr(run, "replies", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trials(organism, DESIGN, vectors, store=tmp_path, batch_size=4)
    n_kept = len(pd.concat(pd.read_parquet(path) for path in tmp_path.iterdir()))
    assert 0 < n_kept < len(trials)
    monkeypatch.setattr(run, "replies", sample)
    resumed = run_trials(organism, DESIGN, vectors, store=tmp_path)
    pd.testing.assert_frame_equal(resumed, trials, rtol=1e-3)
    monkeypatch.setattr(run, "replies", None)
    pd.testing.assert_frame_equal(run_trials(organism, DESIGN, vectors, store=tmp_path), resumed)


def test_replies_of_other_code_are_sampled_again(
    organism: mi.Model, vectors: Vectors, trials: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store of a version whose sampling was wrong must not answer for one in which it is right."""
    assert Sweep.of(organism, DESIGN, vectors).ids == trials["id"].tolist()
    monkeypatch.setattr(sweeps, "FLOORS", ("models", "interventions", "engine"))
    assert not set(Sweep.of(organism, DESIGN, vectors).ids) & set(trials["id"])


def test_a_larger_design_has_the_rows_of_a_smaller_one(
    organism: mi.Model, vectors: Vectors, trials: pd.DataFrame
) -> None:
    larger = run_trials(organism, replace(DESIGN, samples=3, concepts=("bread", "cats")), vectors).set_index("id")
    shared = trials[(trials["concept"] != "bread+cats") & (trials["question"] == "introspection")].set_index("id")
    pd.testing.assert_frame_equal(larger.loc[shared.index], shared, rtol=1e-3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"strengths": (0.3,)}, {"steer": ("everything",)}])
def test_another_setting_is_another_trial(organism: mi.Model, vectors: Vectors, change: dict[str, object]) -> None:
    design = replace(DESIGN, controls=Controls(clean=0, random=0, no=0, yes=0, none=0, mention=0))
    before = Sweep.of(organism, design, vectors).ids
    after = Sweep.of(organism, replace(design, **change), vectors).ids
    assert not set(before) & set(after)


def test_raw_strengths_multiply_vectors_and_random_ones_have_their_norms(organism: mi.Model, vectors: Vectors) -> None:
    longer = {name: vector.rescaled(dict.fromkeys(vector.layers, 3.0)) for name, vector in vectors.items()}
    design = replace(DESIGN, relative=False, strengths=(2.0,), max_new_tokens=2, samples=1)
    table = run_trials(organism, design, longer)
    steered = table[(table["series"] != "clean") & (table["concept"] != "bread+cats")]
    assert steered["norm"].round(4).unique().tolist() == [6.0]


def test_a_reply_can_be_begun(organism: mi.Model, vectors: Vectors) -> None:
    begun = replace(DESIGN, reply_start="Yes, there is", max_new_tokens=3, samples=1)
    table = run_trials(organism, begun, vectors)
    is_introspection = table["question"] == "introspection"
    assert table.loc[is_introspection, "reply"].str.startswith("Yes, there is").all()
    assert not table.loc[table["question"] == "no", "reply"].str.startswith("Yes, there is").any()


def test_the_cost_is_what_is_run(organism: mi.Model, vectors: Vectors, trials: pd.DataFrame) -> None:
    cost = explain_trials(organism, DESIGN, vectors)
    assert cost.replies == len(trials)
    assert cost.prefills == len(trials.attrs["prefills"])


def test_bad_input_is_refused(organism: mi.Model, vectors: Vectors, tmp_path: Path) -> None:
    with pytest.raises(UnknownConceptError, match="the concept 'bread' of a design"):
        run_trials(organism, DESIGN, {"cats": vectors["cats"]})
    with pytest.raises(UsageError, match="prefill"):
        run_trials(organism, replace(DESIGN, steer=("sometimes",)), vectors)
    (tmp_path / "replies-0.parquet").write_bytes(b"half")
    with pytest.raises(StaleArtefactError, match="its rows are sampled again"):
        run_trials(organism, DESIGN, vectors, store=tmp_path)
