"""Command lines of sweeps that are not plain ones: with a pilot, read on by the analyses after it, and ablated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from whole_runs import refusal, whole_run

import mechint as mi
from analyses import trial_contrasts, trial_judges
from analyses import trials as analysis
from mechint.interventions.ablation import check_removed
from mechint.trials import read_trials

pytestmark = pytest.mark.usefixtures("quick_analyses")

# At twenty median norms of the stream hardly a reply can be read, at a tenth of one all of them.
OPTIONS = ["--relative-strength", "0.1", "--layers", "2:5", "--factors", "1,200", "--n-random", "1"]
PILOTED = [*OPTIONS, "--samples", "3", "--pilot", "2", "--pilot-coherence", "0.6", "--max-new-tokens", "10"]
CONCEPTS = ("cats", "bread", "rain")
DESIGN = {"concepts": ["cats", "bread"], "layers": ["3"], "strengths": [0.3]}


@pytest.fixture(scope="module")
def piloted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep with a pilot, which drops the stronger half."""
    folder = tmp_path_factory.mktemp("piloted")
    drawn = mi.extract.random_controls(mi.load("organism"), len(CONCEPTS), seed=3)
    for name, vector in zip(CONCEPTS, drawn, strict=True):
        replace(vector, name=name).save(folder / "vectors" / f"{name}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analyses.trials.designs._FEW_CLEAN", 6)  # they are most of a sweep, and of no pilot
        return whole_run(analysis, [*PILOTED, "--vectors", str(folder / "vectors")], folder)


def test_a_pilot_of_the_command_line_drops_what_cannot_be_read_and_says_so(piloted: Path) -> None:
    trials = read_trials(piloted / "trials.parquet")
    injected = trials[(trials["series"] == "injected") & (trials["question"] == "introspection")]
    cells = pd.read_parquet(piloted / "pilot.parquet")
    assert cells["dropped"].tolist() == (cells["coherent"] < 0.6 * cells["n"]).tolist()
    dropped = set(cells.loc[cells["dropped"], "concept"])
    assert cells.loc[cells["dropped"], "strength"].unique().tolist() == [20.0]
    assert len(injected) == (6 - len(dropped)) * 2 * 3  # cells, prompts, samples
    assert set(injected.loc[injected["strength"] == 20.0, "concept"]) == set(CONCEPTS) - dropped
    assert len(pd.read_parquet(piloted / "dropped.parquet")) == len(dropped) * 2 * 2
    record = json.loads((piloted / "run.json").read_text())
    assert record["pilot"]["samples"] == 2
    assert sum(cell["dropped"] for cell in record["pilot"]["cells"]) == len(dropped)
    for path in piloted.glob("trials_*.json"):
        subtitle = json.loads(path.read_text())["layout"]["title"]["subtitle"]["text"]
        assert "pilot" in subtitle, path.name


def test_contrasts_and_judges_read_a_sweep_with_a_pilot(piloted: Path, tmp_path: Path) -> None:
    contrasts = pd.read_parquet(whole_run(trial_contrasts, ["--trials", str(piloted)], tmp_path) / "table.parquet")
    factor = contrasts[contrasts["name"].str.contains("plain to standard")]
    n_kept = int((~pd.read_parquet(piloted / "pilot.parquet")["dropped"]).sum())
    assert factor["cells_matched"].tolist() == [n_kept]
    assert factor["cells_dropped"].tolist() == [0]
    folder = whole_run(trial_judges, ["--trials", str(piloted), "--judges", "rules"], tmp_path)
    rates = pd.read_parquet(folder / "rates.parquet")
    assert rates["n_trials"].max() <= len(read_trials(piloted / "trials.parquet"))


def test_a_direction_is_removed_from_all_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = mi.extract.random_controls(mi.load("organism"), 3, seed=1)
    for name, vector in zip(("cats", "bread", "refusal"), drawn, strict=True):
        replace(vector, name=name).save(tmp_path / ("vectors" if name != "refusal" else "") / f"{name}.safetensors")
    ablate = ["--ablate", str(tmp_path / "refusal.safetensors")]
    argv = [*OPTIONS, "--vectors", str(tmp_path / "vectors"), "--out", str(tmp_path)]
    config = analysis.ANALYSIS.parsed([*argv, *ablate])
    subject, design = analysis.prepared(config, analysis.ANALYSIS.check(config))
    assert subject.model.name == "organism without refusal"
    assert design.ablate == "refusal"
    check_removed(subject.model, drawn[2].vectors)
    (tmp_path / "design.json").write_text(json.dumps({**DESIGN, "ablate": "refusal"}))
    assert "without --ablate" in refusal(analysis, ["--design", str(tmp_path / "design.json")], capsys)
    cats = ["--concepts", "cats,bread", "--ablate", str(tmp_path / "vectors" / "cats.safetensors")]
    assert "injected, too" in refusal(analysis, [*argv, *cats], capsys)
