"""Detection and controls: planted effects come out as figures and verdicts, runs equal direct calls, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import asked_conversations
from figure_reader import ticks
from whole_runs import model_and_cats, refusal, without

import mechint as mi
from analyses import controls, detection
from analyses.controls.figures import figures as controls_figures
from analyses.controls.figures import verdict
from analyses.detection.figures import ROWS
from analyses.detection.figures import figures as detection_figures
from analyses.kit import shifts
from mechint.figures import published

pytestmark = pytest.mark.usefixtures("quick_analyses")
CONCEPTS = {"cats": 1.0, "bread": 2.0, "rain": 1.5}
RANDOMS = {"random-0": 0.1, "random-1": -0.1}


def _rows(question: str, about: dict[str, str], share: float) -> list[dict[str, object]]:
    """Rows of one question, whose shift of logit_diff under a vector is `share` times the vector's own effect."""
    vectors = {"": ("clean", 0.0)} | {name: ("injected", size) for name, size in CONCEPTS.items()}
    vectors |= {name: ("random", size) for name, size in RANDOMS.items()}
    return [
        {
            "conversation": question,
            "intervention": name or "clean",
            "unit": name,
            "series": kind,
            "question": question,
            **about,
            "p_yes": 0.1 + 0.1 * share * size,
            "p_no": 0.9 - 0.1 * share * size,
            "logit_diff_shift": share * size,
            "entropy": 0.5 + share * size,
            "p_yes_shift": 0.1 * share * size,
        }
        for name, (kind, size) in vectors.items()
    ]


def _detection_table() -> pd.DataFrame:
    rows = []
    for share, (description, info) in zip((0.1, 3.0, 1.0, 0.5, 0.3), ROWS.values(), strict=True):
        cell = {"description": description, "info": info, "format": "yes-no"}
        rows += _rows(f"{description} {info}", {**cell, "kind": "introspection", "group": ""}, share)
        rows += _rows(f"control {description} {info}", {**cell, "kind": "control", "group": "no"}, 0.01)
    return pd.DataFrame(rows)


def _controls_table(no: float, yes: float) -> pd.DataFrame:
    """Control answers under a concept of size s move by no * s and yes * s."""
    cell = {"description": "injection", "info": "introspection", "format": "yes-no"}
    rows = _rows("introspection", {**cell, "kind": "introspection", "group": ""}, 2.0)
    for group, share in (("no", no), ("confusing-no", no), ("yes", yes), ("ambiguous", 0.0)):
        for number in range(4):
            rows += _rows(f"{group} {number}", {**cell, "kind": "control", "group": group}, share)
    return pd.DataFrame(rows)


def test_the_main_figure_shows_the_planted_shifts() -> None:
    drawn = detection_figures(_detection_table(), "yes-no", "a model")
    assert set(drawn) == {"detection_conditions", "detection_concepts", "detection_wordings", "detection_published"}
    figure = drawn["detection_conditions"]
    assert "info document (+4.50)" in figure.layout.title.text.replace("<br>", " ")
    injected = next(trace for trace in figure.data if trace.name == "concept injected")
    np.testing.assert_allclose(injected.x, 1.5 * np.array([0.1, 3.0, 1.0, 0.5, 0.3]))
    stars = [trace for trace in figure.data if "published" in (trace.name or "") and trace.x[0] is not None]
    odds = [np.log(p / (1 - p)) for p in (0.003575, 0.3667, 0.22266, 0.04199)]
    np.testing.assert_allclose(sorted(stars[0].x), sorted(odds), atol=1e-3)


def test_concepts_are_sorted_and_random_vectors_summed_up() -> None:
    figure = detection_figures(_detection_table(), "yes-no", "a model")["detection_concepts"]
    assert list(ticks(figure, "y")) == ["bread", "rain", "cats", "random vectors (mean)"]
    np.testing.assert_allclose(figure.data[0].z[:, 1], [6.0, 4.5, 3.0, 0.0], atol=1e-12)


def test_the_table_has_published_lines_beside_ours_and_says_so() -> None:
    figure = detection_figures(_detection_table(), "yes-no", "a model")["detection_published"]
    texts = [note.text for note in figure.layout.annotations]
    lines = [texts[at : at + 5] for at in range(5, len(texts), 5)]  # the headings come first
    assert [line[0] for line in lines[: len(ROWS)]] == ["ours"] * len(ROWS)
    assert all(line[0].startswith("published") for line in lines[len(ROWS) :])
    second = [line for line in lines if line[0] == "published, experiment 2" and line[2] == "cat"]
    assert second[0][1] == "info document"
    assert second[0][3] == "0.757% → 53.125% (+52.344%)"


def test_published_values_are_those_of_the_write_up() -> None:
    table = published.load("kv_fill_injection").set_index(["experiment", "vector", "info"])
    assert table.loc[(1, "cat", "none"), "p_yes_injected"] == pytest.approx(0.00522)
    assert table.loc[(7, "EM finetune", "introspection"), "p_no_injected"] == pytest.approx(0.9375)
    with pytest.raises(mi.MechintError, match="kv_fill_injection"):
        published.load("kv")


@pytest.mark.parametrize(
    ("no", "yes", "reading"),
    [(0.5, 0.5, "bias"), (0.5, -0.5, "noise"), (0.0, 0.0, "neither"), (0.6, 0.1, "bias and noise")],
)
def test_a_bias_and_noise_are_told_apart(no: float, yes: float, reading: str) -> None:
    found = verdict(_controls_table(no, yes))["injected"]
    assert found["reading"] == reading
    assert found["bias"] == pytest.approx(1.5 * (no + yes) / 2)
    assert found["noise"] == pytest.approx(1.5 * (no - yes) / 2)
    assert "injected" not in verdict(_controls_table(no, yes).query("group != 'yes'"))


def test_the_score_is_detection_minus_factual() -> None:
    figure = controls_figures(_controls_table(0.5, 0.1), "a model")["controls_score"]
    score = [trace for trace in figure.data if trace.name == "concept injected" and trace.xaxis == "x2"]
    np.testing.assert_allclose(score[0].x, 1.5 * (2.0 - 0.5))


def test_an_outlier_is_named() -> None:
    table = _controls_table(0.1, 0.1)
    odd = (table["conversation"] == "no 2") & (table["series"] == "injected")
    table.loc[odd, "logit_diff_shift"] = 9.0
    figure = controls_figures(table, "a model")["controls_groups"]
    texts = {text for trace in figure.data for text in (trace.text if trace.text is not None else ())}
    assert texts == {"", "no 2"}


def test_series_leave_out_controls_that_no_figure_shows() -> None:
    series = shifts.series_of(_controls_table(0.1, 0.1))
    assert set(series) == {"clean", "injected", "random", "no", "confusing-no", "yes", "ambiguous", ""}


@pytest.mark.parametrize("analysis", [detection, controls])
def test_a_run_equals_a_direct_call(analysis, inputs: list[str], tmp_path: Path) -> None:
    assert analysis.main([*inputs, "--out", str(tmp_path)]) == 0
    folder = tmp_path / analysis.NAME
    table = pd.read_parquet(folder / "table.parquet")
    assert set(table["series"]) == {"clean", "injected", "random"}
    assert len(table) == 3 * (1 + 2 + 2)
    model, cats = model_and_cats(inputs)
    steer = mi.Injection(cats, layers=(1, 2), strength=2.0, name="cats")
    record = json.loads((folder / "run.json").read_text())
    assert record["dose"]["layers"] == [1, 2]
    direct = mi.score(model, asked_conversations(), steer)
    ours = table[table["unit"] == "cats"]
    for column in ("p_yes", "logit_diff_shift", "entropy"):
        np.testing.assert_allclose(ours[column], direct[column], atol=1e-5)


# The random checkpoint's tokenizer writes a digit together with the space before it.
@pytest.mark.filterwarnings("ignore:the answer '.' is token")
def test_the_wordings_of_a_prompt_set_are_all_asked(inputs: list[str], tmp_path: Path) -> None:
    argv = [*without(inputs, "--conversations"), "--concepts", "cats", "--limit", "1", "--n-random", "1"]
    assert detection.main([*argv, "--format", "one-zero", "--out", str(tmp_path)]) == 0
    table = pd.read_parquet(tmp_path / "detection" / "table.parquet")
    assert len(table) == (5 * 4 * 2 + 4 * 2 * 4) * 3
    assert (tmp_path / "detection" / "detection_published.html").is_file()


@pytest.mark.parametrize(
    ("analysis", "argv", "words"),
    [
        (detection, ["--format", "maybe"], ["maybe", "yes-no"]),
        (detection, ["--conversations", "{asked}", "--format", "yes-no"], ["--format", "--conversations"]),
        (controls, ["--conversations", "{asked}", "--limit", "1"], ["no control questions"]),
        (controls, ["--concepts", "unicorns"], ["unicorns"]),
    ],
)
def test_bad_input_is_one_error(analysis, argv, words, tmp_path: Path, capsys) -> None:
    asked = tmp_path / "asked.json"
    mi.save_conversations(asked_conversations(), asked)
    given = [part.format(asked=asked) for part in argv]
    found = refusal(analysis, [*given, "--out", str(tmp_path)], capsys)
    assert all(word in found for word in words), found


def conversations_of_ones_own(count: int) -> pd.DataFrame:
    """Rows of introspection questions that no prompt set has, each with a shift of its own, and of a control."""
    kinds = [("clean", ""), *(("injected", name) for name in CONCEPTS), ("random", "random-0")]
    common = {"description": "", "info": "", "format": "", "p_yes": 0.3, "p_no": 0.5, "logit_diff": 0.0}
    return pd.DataFrame(
        [
            common
            | {"conversation": f"chat {at}", "unit": vector, "series": kind, "intervention": vector or "clean"}
            | {"kind": "introspection" if at < count else "control", "group": "" if at < count else "no"}
            | {"logit_diff_shift": float(at) if kind == "injected" else 0.0}
            for at in range(count + 1)
            for kind, vector in kinds
        ]
    )


def test_hundreds_of_conversations_are_drawn_by_their_mean_and_the_extreme_ones():
    drawn = detection_figures(conversations_of_ones_own(300), "yes-no", "about")
    figure = drawn["detection_conditions"]
    rows = list(figure.layout.yaxis.ticktext)
    extreme = [f"chat {at}" for at in (*range(299, 279, -1), *range(19, -1, -1))]
    assert rows == ["mean of all 300 conversations", *extreme, "control questions"]
    assert "mean of all 300 conversations (+149.50)" in figure.layout.title.text  # not the largest of three hundred
    assert "Of 300 conversations only the 20" in figure.layout.title.subtitle.text.replace("<br>", " ")
    figure = drawn["detection_concepts"]
    assert list(ticks(figure, "y"))[:2] == rows[:2]
    assert figure.data[0].z[0, 0] == pytest.approx(149.5)


def test_a_few_conversations_are_all_drawn():
    drawn = detection_figures(conversations_of_ones_own(40), "yes-no", "about")["detection_conditions"]
    assert list(drawn.layout.yaxis.ticktext) == [*(f"chat {at}" for at in range(40)), "control questions"]
