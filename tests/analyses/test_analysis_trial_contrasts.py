"""Contrasts of sweeps with planted effects: signs that are seen, nothing where nothing was planted, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from whole_runs import refusal, whole_run

import mechint as mi
from analyses import trial_contrasts as analysis
from analyses import trials as sampling
from analyses.trial_contrasts.declaring import declared, design_of, kind_of
from analyses.trial_contrasts.matching import CELL, matched, shared_columns
from analyses.trial_contrasts.sizes import by_size, parameters, size_words
from mechint.trials.outcomes import CLAIMING
from mechint.trials.plans import Contrast, read_plan, write_plan
from mechint.trials.synthetic import Sweep
from tests.trials.sweeps import joined
from tests.trials.trial_folders import modes, swept, written

pytestmark = pytest.mark.usefixtures("quick_analyses")

PROMPTS = ("standard", "explained")
# The explanation raises claims of the small model and lowers those of the large one.
PLANTED = {"small-1B standard": 0.2, "small-1B explained": 0.7, "large-7B standard": 0.8, "large-7B explained": 0.2}
NAMES = {
    name: f"trial_contrasts_{name}" for name in ("scorecard", "categories", "prompts", "models", "steer", "scaling")
}


@pytest.fixture(scope="module")
def planted() -> Sweep:
    """Two models under two prompts that act on them in opposite ways; everything steered is claimed more often."""
    options = {"prompts": PROMPTS, "concepts": 12, "samples": 3}
    sweep = swept("small-1B", "large-7B", claims=PLANTED, **options)  # type: ignore[arg-type]
    higher = {name: min(share + 0.2, 0.95) for name, share in PLANTED.items()}
    everything = swept("small-1B", "large-7B", claims=higher, controls=1, **options)  # type: ignore[arg-type]
    return modes(sweep, everything=everything)


@pytest.fixture(scope="module")
def run(planted: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where contrasts of the planted sweep are."""
    folder = tmp_path_factory.mktemp("contrasts")
    return whole_run(analysis, ["--trials", str(written(planted, folder / "sweep"))], folder)


def measured(*folders: Path, plan: Path | None = None) -> pd.DataFrame:
    """The scorecard of sweeps without any figure."""
    config = analysis.Config(trials=folders, plan=plan)
    return analysis.compute(config, analysis.check(config))[0].table


def scorecard(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "table.parquet").set_index("name")


def texts(folder: Path) -> dict[str, tuple[str, str]]:
    titles = {path.stem: json.loads(path.read_text())["layout"]["title"] for path in folder.glob("trial_*.json")}
    both = {name: (title["text"], title["subtitle"]["text"]) for name, title in titles.items()}
    return {name: tuple(text.replace("<br>", " ") for text in pair) for name, pair in both.items()}  # type: ignore[misc]


def net(sweep: Sweep, **values: str) -> float:
    """Net detection by counting."""
    rows = sweep.trials.assign(claims=sweep.truth["outcome"].isin(CLAIMING).to_numpy())
    for name, value in values.items():
        rows = rows[(rows[name] == value) | ((rows["series"] == "clean") & (name == "steer"))]
    clean = rows["series"] == "clean"
    hits = rows[~clean].groupby("concept")["claims"].mean().mean()
    alarms = rows[clean].groupby(["model", "prompt"])["claims"].mean().mean()
    return float(hits - alarms)


def test_planted_effects_are_supported_with_their_signs(run: Path) -> None:
    card = scorecard(run)
    signs = {
        "explanation: standard to explained, small-1B": 1,
        "explanation: standard to explained, large-7B": -1,
        "explanation in small-1B less in large-7B": 1,
        "steered reply less everything, small-1B": -1,
        "steered reply less everything, large-7B": -1,
    }
    for name, sign in signs.items():
        assert (card.loc[name, "verdict"], np.sign(card.loc[name, "value"])) == ("supported", sign), name
    assert set(card["kind"]) == {"prompt", "model", "asymmetry", "category", "steer"}
    assert not (card.loc[card["kind"] == "category", "verdict"] == "supported").any()
    assert (card["cells_dropped"] == 0).all()


def test_differences_are_those_of_counts(planted: Sweep, run: Path) -> None:
    card = scorecard(run)
    parts = {
        (model, prompt): net(planted, model=model, prompt=prompt)
        for model in ("small-1B", "large-7B")
        for prompt in PROMPTS
    }
    changes = {model: parts[model, "explained"] - parts[model, "standard"] for model in ("small-1B", "large-7B")}
    for model, change in changes.items():
        assert card.loc[f"explanation: standard to explained, {model}", "value"] == pytest.approx(change)
    both = changes["small-1B"] - changes["large-7B"]
    assert card.loc["explanation in small-1B less in large-7B", "value"] == pytest.approx(both)
    assert card.loc["small-1B less large-7B", "value"] == pytest.approx(
        net(planted, model="small-1B") - net(planted, model="large-7B")
    )
    points = pd.read_parquet(run / "points.parquet")
    drawn = points[(points["figure"] == NAMES["models"]) & (points["panel"] == "net")].set_index(["series", "row"])
    for place, value in parts.items():
        assert drawn.loc[place, "mean"] == pytest.approx(value)
    steered = points[(points["figure"] == NAMES["steer"]) & (points["panel"] == "net")].set_index(["series", "row"])
    for mode in ("reply", "everything"):
        expected = net(planted, model="small-1B", steer=mode)
        assert steered.loc[("small-1B", mode), "mean"] == pytest.approx(expected)


def test_hits_and_false_alarms_add_up_to_net(run: Path) -> None:
    points = pd.read_parquet(run / "points.parquet")
    changes = points[points["figure"] == NAMES["prompts"]].pivot(
        index=["row", "series"], columns="panel", values="mean"
    )
    assert len(changes) == 2
    np.testing.assert_allclose(changes["hits"] - changes["false alarms"], changes["net"])


def test_single_concepts_average_to_their_group(run: Path) -> None:
    figure = json.loads((run / f"{NAMES['models']}.json").read_text())
    small = [trace for trace in figure["data"] if trace.get("opacity") is None and trace["marker"].get("size") == 5]
    assert small
    points = pd.read_parquet(run / "points.parquet")
    drawn = points[(points["figure"] == NAMES["models"]) & (points["panel"] == "net")]
    values = [float(value) for trace in small for _, value in trace["customdata"]]
    assert len(values) == 12 * len(drawn)
    assert np.mean(values) == pytest.approx(drawn["mean"].mean())


def test_titles_say_what_the_scorecard_carries(run: Path) -> None:
    captions = texts(run)
    assert set(captions) == set(NAMES.values())
    titles = {name: captions[figure][0] for name, figure in NAMES.items()}
    assert "depends on the model" in titles["models"]
    assert titles["categories"].startswith("<b>No category of concepts is shown to differ")
    assert "Where steering acts changes net detection" in titles["steer"]
    assert "Single changes of the prompt change net detection" in titles["prompts"]
    for _, subtitle in captions.values():
        assert "12 concepts injected" in subtitle
        assert "240 clean replies" in subtitle
        assert "judge hand: sensitivity and specificity not measured" in subtitle
    assert "before any verdict was read" in captions[NAMES["scorecard"]][1]


def test_nothing_is_supported_where_nothing_was_planted(tmp_path: Path) -> None:
    sweep = swept("a", "b", prompts=PROMPTS, samples=3)
    folder = whole_run(analysis, ["--trials", str(written(sweep, tmp_path / "sweep"))], tmp_path)
    card = scorecard(folder)
    assert len(card) == 10
    assert not (card["verdict"] == "supported").any()
    for title, _ in texts(folder).values():
        assert "is shown to" in title or "are not shown" in title or "0 supported" in title


def test_few_concepts_are_not_testable_and_titles_ask(tmp_path: Path) -> None:
    sweep = swept("a", prompts=PROMPTS, claims={"a explained": 0.9}, concepts=4, samples=3)
    folder = whole_run(analysis, ["--trials", str(written(sweep, tmp_path / "sweep"))], tmp_path)
    card = scorecard(folder)
    assert set(card["verdict"]) == {"not testable"}
    title, _ = texts(folder)[NAMES["prompts"]]
    assert title == "<b>What does a single change of the prompt do? This design cannot test it: no p below 0.12</b>"


def test_a_plan_is_made_without_a_look_at_replies_and_verdicts(planted: Sweep) -> None:
    shuffled = planted.trials.assign(reply="yes, the sea", log_prob=1.0, first_token_logit_diff=9.0)
    plans = [declared(trials, 0.1).contrasts for trials in (planted.trials, shuffled)]
    assert plans[0] == plans[1]
    assert len(plans[0]) == 12


def test_the_plan_that_was_used_gives_the_same_scorecard(planted: Sweep, run: Path, tmp_path: Path) -> None:
    sweep = written(planted, tmp_path / "sweep")
    config = analysis.Config(trials=(sweep,), plan=run / "plan.json")
    compared, facts = analysis.compute(config, analysis.check(config))
    pd.testing.assert_frame_equal(compared.table, pd.read_parquet(run / "table.parquet"))
    assert (facts.declared, facts.not_declared) == ("Declared in plan.json", {})


def test_only_what_the_data_carry_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = swept("a", prompts=PROMPTS, concepts=6, samples=3)
    trials = sweep.trials.assign(category="")
    path = written(Sweep(trials, sweep.truth), tmp_path / "sweep")
    folder = whole_run(analysis, ["--trials", str(path)], tmp_path)
    assert set(texts(folder)) == {NAMES["scorecard"], NAMES["prompts"]}
    record = json.loads((folder / "run.json").read_text())
    assert set(record["not_drawn"]) == {NAMES[name] for name in ("categories", "models", "steer", "scaling")}
    output = capsys.readouterr().out
    for name, reason in record["not_drawn"].items():
        assert f"not drawn: {name}: {reason}" in output


def test_prompts_of_others_need_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = swept("a", prompts=("v1", "v2"), concepts=6, samples=3)
    path = written(Sweep(sweep.trials.assign(category=""), sweep.truth), tmp_path / "sweep")
    argv = ["--trials", str(path), "--out", str(tmp_path)]
    assert "no contrast by the rule" in refusal(analysis, argv, capsys)
    plan = write_plan([Contrast("v2", [{"prompt": "v2"}], [{"prompt": "v1"}])], tmp_path / "plan.json")
    assert list(measured(path, plan=plan)["name"]) == ["v2"]


def test_models_are_compared_on_cells_that_both_have(tmp_path: Path) -> None:
    sweep = swept("a", "b", prompts=PROMPTS, concepts=6, samples=2)
    narrow = sweep.trials[(sweep.trials["model"] != "b") | (sweep.trials["strength"] != 0.4)]
    kept = Sweep(narrow, sweep.truth[sweep.truth["id"].isin(narrow["id"])])
    folder = whole_run(analysis, ["--trials", str(written(kept, tmp_path / "sweep"))], tmp_path)
    weak = sweep.trials["strength"] != 0.4
    same = Sweep(sweep.trials[weak], sweep.truth[weak])
    row = scorecard(folder).loc["a less b"]
    assert row["value"] == pytest.approx(net(same, model="a") - net(same, model="b"))
    assert row["cells_dropped"] == row["cells_matched"] == 6 * 2 * 2
    assert "12 matched cells, 12 dropped" in texts(folder)[NAMES["scaling"]][1]


def test_several_sweeps_are_one_and_shared_replies_count_once(tmp_path: Path) -> None:
    sweep = swept("a", prompts=("standard", "explained", "permission"), concepts=6, samples=3)
    parts = []
    for name in ("explained", "permission"):
        chosen = sweep.trials["prompt"].isin(["standard", name])
        parts.append(written(Sweep(sweep.trials[chosen], sweep.truth[chosen]), tmp_path / name))
    pd.testing.assert_frame_equal(measured(*parts), measured(written(sweep, tmp_path / "whole")))


def test_a_run_of_trials_is_read_back_with_its_judge(tmp_path: Path) -> None:
    sweep = swept("a", prompts=PROMPTS, claims={"a explained": 0.9}, concepts=6, samples=2, controls=20, texts=True)
    path = mi.trials.write_trials(sweep.trials, tmp_path / "theirs.parquet")
    whole_run(sampling, ["--import", str(path)], tmp_path)
    results = analysis.run(trials=tmp_path)  # the --out above the folder of trials
    judge = results.facts["judge"]
    assert isinstance(judge, dict)
    assert judge["name"] == "rules"
    assert set(judge["errors"]) == {"clean", "injected", "random"}
    subtitle = results.figures[NAMES["scorecard"]].layout.title.subtitle.text.replace("<br>", " ")
    assert "sensitivity, specificity on 215 labels" in subtitle
    row = results.table.set_index("name").loc["explanation: standard to explained, a"]
    assert row["low"] > 0.1


def test_random_vectors_and_control_questions_change_nothing(tmp_path: Path) -> None:
    sweep = swept("a", prompts=PROMPTS, concepts=6, samples=3)
    random = sweep.trials[sweep.trials["series"] == "injected"].assign(series="random", category="")
    random = random.assign(id=random["id"] + "r", concept="random-" + random["concept"])
    control = sweep.trials[sweep.trials["series"] == "clean"].assign(question="no")
    control = control.assign(id=control["id"] + "n")
    claims = {"judge": "truth", "pass_no": 0, "outcome": "claims"}
    more = [Sweep(rows, pd.DataFrame({"id": rows["id"], **claims})) for rows in (random, control)]
    tables = [
        measured(written(each, tmp_path / name)) for name, each in (("bare", sweep), ("full", joined(sweep, *more)))
    ]
    pd.testing.assert_frame_equal(*tables)


def test_names_are_no_markup(tmp_path: Path) -> None:
    sweep = swept("<b>a</b>", "b", prompts=PROMPTS, concepts=6, samples=2)
    folder = whole_run(analysis, ["--trials", str(written(sweep, tmp_path / "sweep"))], tmp_path)
    assert "<b>a</b> less b" in scorecard(folder).index
    assert "<b>a</b>" in set(pd.read_parquet(folder / "points.parquet")["series"])
    assert "&lt;b&gt;a&lt;/b&gt;" in (folder / f"{NAMES['models']}.json").read_text()


def test_layers_are_the_same_where_they_are_as_deep() -> None:
    design = design_of(swept("a", "b", concepts=2, samples=1).trials)
    assert shared_columns(design, ("a", "b")) == CELL
    deeper = design.assign(depth=design["depth"] + 0.3 * (design["model"] == "b"))
    assert shared_columns(deeper, ("a", "b")) == ()
    alone = deeper[deeper["layers"] == "10"]
    assert shared_columns(alone, ("a", "b")) == tuple(name for name in CELL if name != "layers")
    unknown = design.assign(depth=np.nan)
    assert shared_columns(unknown, ("a", "b")) == CELL


def test_matched_rows_are_those_that_every_group_has() -> None:
    rows = pd.DataFrame({"group": list("aaabb"), "cell": [1, 2, 3, 2, 4]})
    common = matched(rows, ["group"], ["cell"])
    assert (list(common.rows["cell"]), common.kept, common.dropped) == ([2, 2], 1, 3)


def test_kinds_are_read_from_the_sides() -> None:
    a, b = {"model": "a"}, {"model": "b"}
    x, y = {"prompt": "x"}, {"prompt": "y"}
    kinds = {
        "model": Contrast("1", [a | x], [b | x]),
        "prompt": Contrast("2", [x], [y]),
        "asymmetry": Contrast("3", [a | x, b | y], [a | y, b | x]),
        "other": Contrast("4", [a | x], [b | y]),
        "category": Contrast("5", [{"category": "p"}], [{"category": ["q", "r"]}]),
    }
    assert {name: kind_of(contrast) for name, contrast in kinds.items()} == {name: name for name in kinds}


def test_sizes_are_those_of_names() -> None:
    names = ["x-14B-chat", "Q2.5-0.5B", "tiny", "s-360M", "m-4bit"]
    sizes = parameters(names, ())
    assert sizes == {"x-14B-chat": 14e9, "Q2.5-0.5B": 0.5e9, "s-360M": 360e6}
    assert by_size(names, sizes) == ["s-360M", "Q2.5-0.5B", "x-14B-chat", "tiny", "m-4bit"]
    assert (size_words(14e9), size_words(360e6), size_words(None)) == ("14B", "360M", "size not known")


def test_a_written_plan_is_read_back_equal(planted: Sweep, tmp_path: Path) -> None:
    plan = declared(planted.trials, 0.2).contrasts
    again = read_plan(write_plan(plan, tmp_path / "plan.json"))
    assert write_plan(again, tmp_path / "again.json").read_text() == (tmp_path / "plan.json").read_text()
    assert {contrast.smallest_effect for contrast in again} == {0.2}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "no --trials"),
        (["{tmp}/nowhere"], "no such folder"),
        (["{tmp}/begun"], "the run has not ended"),
        (["{tmp}/empty"], "no run.json"),
        (["{tmp}/other"], "has left no trials"),
        (["{tmp}/a", "{tmp}/a"], "twice"),
        (["{tmp}/a", "{tmp}/judge"], "judges: hand, other"),
        (["{tmp}/a", "{tmp}/version"], "versions of the judge hand"),
        (["{tmp}/a", "{tmp}/units"], "units of strength"),
        (["{tmp}/a", "{tmp}/weights"], "two models of the name 'a'"),
        (["{tmp}/a", "{tmp}/replies"], "that differ"),
        (["{tmp}/mixed"], "verdicts of"),
        (["{tmp}/a", "--plan", "{tmp}/nowhere.json"], "nowhere.json"),
        (["{tmp}/a", "--plan", "{tmp}/names.json"], "no trials of model nobody"),
        (["{tmp}/a", "--plan", "{tmp}/columns.json"], "temper"),
        (["{tmp}/a", "--plan", "{tmp}/names.json", "--smallest-effect", "0.2"], "--smallest-effect with --plan"),
        (["{tmp}/a", "--smallest-effect", "0"], "--smallest-effect"),
        (["{tmp}/a", "--model", "x"], "--model"),
    ],
)
def test_bad_input_is_refused(argv: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _folders(tmp_path, {word for word in argv if word.startswith("{tmp}")})
    words = [word.replace("{tmp}", str(tmp_path)) for word in argv]
    is_folder = [word.startswith("{tmp}") and not word.endswith(".json") for word in argv]
    flagged = zip(words, is_folder, strict=True)
    options = [option for word, folder in flagged for option in (["--trials", word] if folder else [word])]
    assert text in refusal(analysis, [*options, "--out", str(tmp_path / "out")], capsys)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def _folders(root: Path, names: set[str]) -> None:
    """Make the folders and plans that a command line names."""
    small = {"prompts": PROMPTS, "concepts": 3, "samples": 1, "controls": 4}
    sweep, other = swept("a", **small), swept("b", **small)  # type: ignore[arg-type]
    changed = {
        "a": (sweep, {}),
        "judge": (other, {"judge": {"name": "other"}}),
        "version": (other, {"judge": {"version": "v2"}}),
        "units": (Sweep(other.trials.assign(relative=False), other.truth), {}),
        "weights": (
            Sweep(other.trials.assign(model="a", weights_hash="others"), other.truth),
            {},
        ),
        "replies": (sweep, {}),
        "mixed": (sweep, {}),
    }
    for name, (each, record) in changed.items():
        if f"{{tmp}}/{name}" in names:
            written(each, root / name, **record)
    if "{tmp}/replies" in names:
        table = pd.read_parquet(root / "replies" / "trials.parquet")
        table.assign(reply="another").to_parquet(root / "replies" / "trials.parquet", index=False)
    if "{tmp}/mixed" in names:
        table = pd.read_parquet(root / "mixed" / "verdicts.parquet")
        table.loc[0, "judge"] = "other"
        table.to_parquet(root / "mixed" / "verdicts.parquet", index=False)
    (root / "begun" / "replies").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "other").mkdir()
    (root / "other" / "run.json").write_text(json.dumps({"files": ["table.parquet"], "judge": {}}))
    plans = {"names": {"model": "nobody"}, "columns": {"temper": "mild"}}
    for name, group in plans.items():
        write_plan([Contrast("x", [group], [{"model": "a"}])], root / f"{name}.json")
