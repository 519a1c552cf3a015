"""A gallery in a given time: the cuts fit, grow with want of time, are equal over conditions, and are said."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import load_once
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_runs import refusal

import mechint as mi
from analyses import ANALYSES, WITHOUT_MODEL, controls, detection
from analyses import all as gallery
from analyses.gallery import budget, cuts, page, planning, training
from analyses.gallery.budget import Entry, Plan, Rung
from analyses.gallery.costs import Costs
from analyses.gallery.counts import Counts
from analyses.kit import declarations
from analyses.kit.dose import Dose, extracted_vectors
from analyses.kit.options import Common
from mechint.attribution.features.trained import Training
from mechint.base.errors import UsageError
from mechint.finetune.sibling import Sibling
from mechint.readouts.own_text import OwnText

NAMES = ("cats", "bread", "oceans", "music", "trees", "trains", "snow", "money")
SCOPE = cuts.Scope(NAMES, Dose((10, 11), None, 0.3, "default"), 30)
RUNGS = st.lists(st.floats(1, 5000), min_size=1, max_size=6, unique=True).map(lambda costs: sorted(costs, reverse=True))
METHOD = "mean_difference"  # that of the embedded models
COSTS = st.lists(RUNGS, min_size=1, max_size=5)


def plan_of(costs: Sequence[Sequence[float]], seconds: float) -> Plan:
    """A plan of analyses whose rungs are expected to take so many seconds, the widest the most."""
    entries = {
        f"analysis-{number}": Entry(tuple(Rung({"rung": at}, float(cost)) for at, cost in enumerate(rungs)))
        for number, rungs in enumerate(costs)
    }
    return Plan("key", float(seconds), 0.0, entries)


def values(name: str, step: cuts.Cuts) -> object:
    """The options of an analysis under some cuts, as its command line is read."""
    kind = importlib.import_module(f"analyses.{name}").ANALYSIS
    return kind.parsed(declarations.command_line(kind.options, step))


@given(COSTS, st.integers(1, 20_000), st.integers(0, 5_000))
@settings(max_examples=60, deadline=None)
def test_a_plan_fits_or_is_cut_as_far_as_can_be_and_less_time_never_means_less_cut(
    costs: list[list[float]], seconds: int, more: int
) -> None:
    plan, wider = plan_of(costs, seconds).fitted(), plan_of(costs, seconds + more).fitted()
    assert plan.fits or not any(entry.may_be_cut for entry in plan.analyses.values())
    assert all(plan.rungs[name] >= rung for name, rung in wider.rungs.items())
    if plan.fits and any(plan.rungs.values()):
        assert not plan_of(costs, seconds).fits, "nothing is cut without need"


def test_the_longest_analysis_goes_down_first() -> None:
    plan = plan_of([[1000, 600, 100], [500, 100], [50, 40]], 1200).fitted()
    assert plan.rungs == {"analysis-0": 1, "analysis-1": 0, "analysis-2": 0}
    plan = plan_of([[1000, 600, 100], [500, 100], [50, 40]], 650).fitted()
    assert plan.rungs == {"analysis-0": 2, "analysis-1": 0, "analysis-2": 0}


def test_what_is_left_is_expected_to_be_as_slow_as_what_is_done() -> None:
    plan = plan_of([[1000, 500], [1000, 500], [10, 5]], 4500).fitted()
    slow = plan.after("analysis-0", 2000.0, finished=True)
    assert slow.slowness == pytest.approx(2120 / 1120)
    assert slow.expected_seconds == pytest.approx(2000 + slow.slowness * 1010)
    assert set(slow.rungs.values()) == {0}, "it fits still"
    assert plan.after("analysis-0", 2900.0, finished=True).rungs["analysis-1"] == 1, "2900 + 1000 would fit"
    assert plan.after("analysis-0", 200.0, finished=True).slowness == 1, "a fast one gives nothing away"
    assert plan.after("analysis-2", 100.0, finished=True).slowness < 1.8, "a short one decides nothing"


def test_too_small_a_budget_is_one_message_with_what_is_needed() -> None:
    with pytest.raises(UsageError, match="needs about 35 min at least") as refused:
        plan_of([[9000, 2000], [100]], 300).fitted().checked()
    assert "5 min" in str(refused.value)


def test_what_ran_over_is_taken_from_what_has_not_begun() -> None:
    plan = plan_of([[100, 50], [100, 50], [100, 20]], 340).fitted()
    assert set(plan.rungs.values()) == {0}
    on_time = plan.after("analysis-0", 99.0, finished=True)
    assert set(on_time.rungs.values()) == {0}
    over = plan.after("analysis-0", 150.0, finished=True)
    assert over.rungs == {"analysis-0": 0, "analysis-1": 1, "analysis-2": 0}
    assert over.fits
    lost = plan.after("analysis-0", 339.0, finished=True)
    assert not lost.fits
    assert lost.rungs == {"analysis-0": 0, "analysis-1": 1, "analysis-2": 1}, "it goes on with the least"


def test_an_interrupted_analysis_keeps_its_cuts() -> None:
    plan = plan_of([[100, 50], [100, 50]], 200).fitted().after("analysis-0", 80.0, finished=False)
    assert plan.rungs == {"analysis-0": 0, "analysis-1": 0}
    plan = plan.after("analysis-0", 60.0, finished=False)
    assert plan.rungs == {"analysis-0": 0, "analysis-1": 1}


def test_a_plan_is_read_back_by_its_own_run_only(tmp_path: Path) -> None:
    plan = plan_of([[100, 50], [100, 50]], 160).fitted()
    plan.write(tmp_path)
    assert Plan.read(tmp_path, "key") == plan
    assert Plan.read(tmp_path, "another") is None
    assert "Cut: analysis-0 (--rung 1)" in budget.note_in(tmp_path)
    for content in ("", "{", "[]", '{"key": 3}'):
        (tmp_path / budget.FILE).write_text(content)
        assert Plan.read(tmp_path, "key") is None
        assert budget.note_in(tmp_path) == ""


@pytest.mark.parametrize("name", [name for name in ANALYSES if name not in WITHOUT_MODEL])
def test_steps_are_options_of_the_analysis_that_hold_for_all_conditions(name: str) -> None:
    steps = cuts.steps(name, Common(), SCOPE)
    assert 1 <= len(steps) <= 9
    step: dict[str, object] = {}
    for more in steps:
        step |= more
        values(name, step)
        assert len(step.get("concepts", NAMES)) >= 4  # type: ignore[arg-type]
        assert step.get("n_random", 8) >= 3  # type: ignore[operator]
        assert step.get("limit", 10) >= 2  # type: ignore[operator]
        if "concepts" in step:
            assert (len(step["concepts"]), step["n_random"]) in cuts.VECTORS  # type: ignore[arg-type]


def test_what_the_options_ask_for_is_a_bound() -> None:
    few = cuts.Scope(NAMES[:4], SCOPE.dose, 30)
    steps = cuts.steps("controls", Common(n_random=2, limit=2), few)
    assert steps == []
    random = [{"n_random": 6}, {"limit": 2}, {"n_random": 4}, {"n_random": 3}]
    assert cuts.steps("controls", Common(limit=3), few) == random
    steps_of_file = cuts.steps("controls", Common(conversations=Path("own.json")), SCOPE)
    assert all("limit" not in step for step in steps_of_file), "which of own conversations are controls is not known"


def test_strengths_are_cut_in_the_unit_of_the_dose() -> None:
    strengths = dict(cuts.GRIDS["layer_strength"](SCOPE)[0])
    assert strengths == {"strengths": pytest.approx([0.075, 0.3, 1.2, 4.8])}
    absolute = cuts.Scope(NAMES, Dose((10,), 20.0, None, "preset"), 30)
    assert cuts.GRIDS["layer_strength"](absolute)[0] == {"strengths": [5.0, 20.0, 80.0, 320.0], "absolute": True}


def test_cuts_are_said_in_words() -> None:
    step = {"concepts": list(NAMES[:4]), "n_random": 3, "limit": 2, "orders": 4, "ranges": False, "window": None}
    assert cuts.words(step) == "4 concepts, 3 random vectors, 2 questions a control group, --orders 4, no --ranges"


@pytest.mark.usefixtures("quick_analyses")
def test_expected_times_shrink_with_every_step_and_count_all_analyses(tmp_path: Path) -> None:
    costs = Costs(Common())
    for name in ANALYSES:
        argv = [f"--out={tmp_path}"]
        wide = costs.seconds(name, [*argv, *ANALYSES[name]])
        assert wide > 0
        if name not in WITHOUT_MODEL and name not in ("calibration", "model_swap"):
            narrow = costs.seconds(name, [*argv, "--concepts=cats,bread,rain,forests", "--n-random=3"])
            assert narrow < wide, name


@pytest.mark.usefixtures("quick_analyses")
def test_the_first_analysis_that_needs_vectors_pays_for_them_and_kept_ones_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Counts, "timed", classmethod(lambda cls, model, _: cls(model, 1.0)))
    concepts = ("cats", "bread", "rain", "forests")
    wide = [f"--out={tmp_path}", "--concepts=cats,bread,rain,forests"]
    narrow, wider = [wide[0], "--concepts=cats,bread"], [wide[0], f"{wide[1]},money"]
    first, second, third = Costs(Common()), Costs(Common()), Costs(Common())
    detection_first, controls_second = first.seconds("detection", wide), first.seconds("controls", wide)
    controls_first, detection_second = second.seconds("controls", wide), second.seconds("detection", wide)
    extraction = pytest.approx(detection_first - detection_second, rel=0.01)
    assert controls_first - controls_second == extraction
    assert detection_first - detection_second > 1000
    cut = first.seconds("detection", narrow) - second.seconds("detection", narrow)
    assert cut == extraction, "those after it may need all of them"
    new = first.seconds("controls", wider) - first.seconds("controls", wide)
    extracted_vectors(Common(concepts=concepts), load_once("organism"), "", method=METHOD)
    assert third.seconds("detection", wide) == pytest.approx(detection_second, rel=0.01), "kept ones cost nothing"
    assert third.seconds("controls", wider) - third.seconds("controls", wide) == pytest.approx(new, rel=0.01)


def test_what_a_model_lacks_is_trained_and_counts_until_it_is_kept(
    model: mi.Model, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = [f"--out={tmp_path}"]
    own = gallery._Step.of("sae_attribution", gallery._parsed([*inputs, *out])).arguments({})
    assert "--sae=trained" in own
    assert "--finetuned=trained" in gallery._Step.of("model_swap", gallery._parsed([*inputs[:2], *out])).arguments({})
    for name in ("sae_attribution", "model_swap"):
        assert gallery._Step.of(name, gallery._parsed(out)).arguments({}) == out, "the embedded model has both"
    counts = Counts(model, 1e-5)
    works = [training.of_sae(counts, "trained"), training.of_sae(counts, "trained:0"), training.of_sibling(counts)]
    assert min(works) > 0
    assert works[0] > works[1], "residuals of a lower layer are sooner there"
    monkeypatch.setattr(OwnText, "is_kept", True)
    with_text = [training.of_sae(counts, "trained"), training.of_sibling(counts)]
    assert 0 < with_text[0] < works[0]
    assert 0 < with_text[1] < works[2]
    monkeypatch.setattr(Training, "is_kept", True)
    monkeypatch.setattr(Sibling, "is_kept", True)
    assert training.of_sae(counts, "trained") == training.of_sibling(counts) == 0


class Planted:
    """Costs that are planted: a second for each concept and random vector of an analysis, times what it is planted."""

    factors: ClassVar[Mapping[str, float]] = {"detection": 10.0, "controls": 2.0}

    def __init__(self, config: Common) -> None:
        self.config = config

    def seconds(self, name: str, argv: Sequence[str]) -> float:
        config = importlib.import_module(f"analyses.{name}").ANALYSIS.parsed(argv)
        return self.factors[name] * (len(config.concepts or NAMES) + config.n_random)

    def scope(self, name: str, argv: Sequence[str]) -> cuts.Scope:
        return SCOPE


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[list[str]]]:
    """A gallery of two analyses whose costs are planted, and whose runs are noted by name instead of made."""
    calls: dict[str, list[list[str]]] = {"detection": [], "controls": []}
    monkeypatch.setattr(gallery, "ANALYSES", {"detection": (), "controls": ()})
    monkeypatch.setattr(planning, "Costs", Planted)
    for module in (detection, controls):
        monkeypatch.setattr(module, "main", lambda argv, name=module.NAME: calls[name].append(list(argv)) or 0)
    return calls


def test_a_gallery_is_cut_to_its_budget_and_says_so(
    planted: dict[str, list[list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gallery.main(["--budget", "130s", "--out", str(tmp_path)]) == 0
    (argv,) = planted["detection"]
    assert argv == [f"--out={tmp_path}", "--concepts=cats,bread,oceans,music,trees", "--n-random=4"]
    assert planted["controls"] == [[f"--out={tmp_path}"]]
    record = json.loads((tmp_path / "budget.json").read_text())
    assert record["budget_seconds"] == 130
    assert record["analyses"]["detection"]["finished"]
    assert record["rule"] == budget.RULE
    for file in (page.INDEX, page.OVERVIEW):
        text = (tmp_path / file).read_text()
        assert "5 concepts, 4 random vectors" in text
        assert "goes one step down" in text
    assert "5 concepts, 4 random vectors" in capsys.readouterr().err
    assert gallery.main(["--out", str(tmp_path)]) == 0
    assert not (tmp_path / "budget.json").exists(), "a gallery without a budget has none"
    assert "goes one step down" not in (tmp_path / page.INDEX).read_text()


def test_an_interrupted_gallery_goes_on_with_the_same_cuts(
    planted: dict[str, list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["--budget", "2m", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(controls, "main", lambda argv: planted["controls"].append(list(argv)) or 130)
        assert gallery.main(command) == 130
    monkeypatch.setattr(Planted, "factors", {"detection": 1.0, "controls": 40.0})
    assert gallery.main(command) == 0
    assert len(planted["detection"]) == 1
    assert planted["controls"][0] == planted["controls"][1], "not planned anew"
    assert gallery.main(["--budget", "20m", "--out", str(tmp_path)]) == 0
    assert "--n-random=6" in planted["controls"][-1] or planted["controls"][-1] == [f"--out={tmp_path}"]


def test_an_analysis_that_fails_keeps_no_other_from_being_run(
    planted: dict[str, list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    command = ["--budget", "20m", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(detection, "main", lambda argv: planted["detection"].append(list(argv)) or 2)
        assert gallery.main(command) == 2
    assert "failed: detection" in capsys.readouterr().err
    assert (tmp_path / page.INDEX).is_file(), "what there is can be looked at"
    assert (len(planted["detection"]), len(planted["controls"])) == (1, 1)
    assert gallery.main(command) == 0
    assert (len(planted["detection"]), len(planted["controls"])) == (2, 1), "what failed is tried again, and that alone"


def test_a_gallery_that_runs_over_is_cut_again(
    planted: dict[str, list[list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr(gallery.time, "monotonic", lambda: now[0])

    def slow(argv: list[str]) -> int:
        now[0] += 180.0
        planted["detection"].append(list(argv))
        return 0

    monkeypatch.setattr(detection, "main", slow)
    assert gallery.main(["--budget", "200s", "--out", str(tmp_path)]) == 0
    assert "detection ran over" in capsys.readouterr().err
    assert planted["detection"] == [[f"--out={tmp_path}"]]
    assert planted["controls"] == [[f"--out={tmp_path}", "--concepts=cats,bread,oceans,music,trees", "--n-random=4"]]


def test_a_plan_runs_nothing_and_leaves_nothing(
    planted: dict[str, list[list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gallery.main(["--plan", "--out", str(tmp_path)]) == 0
    assert "nothing cut" in capsys.readouterr().out
    assert gallery.main(["--plan", "--budget", "30s", "--out", str(tmp_path)]) == 2
    written = capsys.readouterr()
    assert "4 concepts, 3 random vectors" in written.out
    assert "needs about 84 s at least" in written.err
    assert list(tmp_path.iterdir()) == []
    assert planted == {"detection": [], "controls": []}


@pytest.mark.parametrize("text", ["0", "0h", "2 hours", "2", "1.5h", "-1h", "9999h", "h", "2H"])
def test_a_budget_is_a_whole_number_of_hours_minutes_or_seconds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2h, 90m, 3600s" in refusal(gallery, [f"--budget={text}"], capsys)


@pytest.mark.parametrize("options", [["--shard", "0/2"], ["--engine", "ray"]])
def test_a_budget_is_for_one_process(options: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refusal(gallery, ["--budget", "2h", *options, "--out", str(tmp_path)], capsys)
    assert options[0] in message


def test_the_gallery_of_another_model_lies_in_a_folder_of_its_name_and_is_linked(
    planted: dict[str, list[list[str]]], tmp_path: Path, inputs: list[str]
) -> None:
    assert gallery.main(["--out", str(tmp_path)]) == 0
    model = Path(inputs[1])
    assert gallery.main(["--model", str(model), "--out", str(tmp_path)]) == 0
    assert planted["detection"][-1] == [f"--model={model}", f"--out={tmp_path / model.name}"]
    (tmp_path / model.name / "detection").mkdir(exist_ok=True)
    assert gallery.main(["--out", str(tmp_path)]) == 0
    assert f'href="{model.name}/index.html"' in (tmp_path / page.INDEX).read_text()
    assert f"(<{model.name}/README.md>)" in (tmp_path / page.OVERVIEW).read_text()
    assert "--model" in (tmp_path / model.name / page.OVERVIEW).read_text()
    assert "make figures" in (tmp_path / page.OVERVIEW).read_text()


def test_a_model_that_is_called_like_an_analysis_has_no_gallery_there(
    planted: dict[str, list[list[str]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "rename" in refusal(gallery, ["--model", "someone/detection", "--out", str(tmp_path)], capsys)
