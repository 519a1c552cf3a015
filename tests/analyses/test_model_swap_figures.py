"""Figures and verdicts of a model swap: planted effects come out as numbers, rows, levels and titles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analyses.kit.dose import Dose
from analyses.model_swap.figures import figures
from analyses.model_swap.measures import Run, by_unit, usual_strength, verdict

pytestmark = pytest.mark.usefixtures("quick_analyses")
RUN = Run("a model", "a finetune", Dose((1, 2), None, 0.3, "default"))
LAYERS = ("embed", "0", "1")
STRENGTHS = (-0.3, 0.0, 0.3, 0.6)
WORDINGS = {("injection", "yes-no"): 1.0, ("injection", "one-zero"): 0.5, ("finetuning", "yes-no"): 1.5}
INFOS = {"none": 0.1, "introspection": 1.0}
# Shift of logit_diff at the output with the info document, averaged over wordings.
SWAP, CONTRAST, RANDOM, CONTROL = 2.0, 4.0, 0.5, -0.2


def _conditions() -> list[tuple[str, str, str, float]]:
    """Vector, kind, strength as the table has it, shift of an introspection question."""
    conditions = [("", "clean", "0", 0.0), ("a finetune", "swapped", "", SWAP)]
    conditions += [("contrast", "contrast", f"{s:g}", CONTRAST * abs(s) / 0.3) for s in STRENGTHS]
    # A random vector does more with one sign than with the other, which is left out of the means.
    conditions += [
        (f"random-{n}", "random", f"{s:g}", RANDOM * (1 + n * np.sign(s))) for n in (0, 1) for s in STRENGTHS if s
    ]
    return conditions


def _planted() -> pd.DataFrame:
    rows = []
    questions = [("introspection", "", *wording, share) for wording, share in WORDINGS.items()]
    questions += [("control", group, "injection", "yes-no", CONTROL) for group in ("no", "confusing-no", "yes")]
    for info, strongly in INFOS.items():
        for kind, group, description, form, share in questions:
            for vector, series, strength, size in _conditions():
                shift = strongly * (share * size if not group else share * bool(size))
                if group and series == "random":
                    continue
                label = f"{kind} {group} {description} {info} {form}"
                columns = {"conversation": label, "question": group or "is it?", "kind": kind, "group": group}
                columns |= {"description": description, "info": info, "format": form, "unit": vector}
                columns |= {"series": series, "strength": strength, "intervention": f"{vector} {strength}"}
                for at, layer in enumerate(LAYERS):
                    moved = shift * at / 2
                    values = {"logit_diff": moved - 3, "logit_diff_shift": moved, "p_yes": 1 / (1 + np.exp(3 - moved))}
                    rows.append({**columns, "layer": layer, **values})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return _planted()


@pytest.fixture(scope="module")
def drawn(planted: pd.DataFrame) -> dict[str, go.Figure]:
    return figures(planted, RUN)


def test_the_verdict_has_the_planted_shifts(planted: pd.DataFrame) -> None:
    verdicts = verdict(by_unit(planted), RUN.dose)
    assert list(verdicts) == ["none", "introspection"]
    for info, strongly in INFOS.items():
        means = {name: part["mean"] for name, part in verdicts[info].items()}
        assert means["swap"] == pytest.approx(SWAP * strongly)
        assert means["contrast"] == pytest.approx(CONTRAST * strongly)
        assert means["random"] == pytest.approx(RANDOM * strongly)
        assert means["swap, controls"] == means["contrast, controls"] == pytest.approx(CONTROL * strongly)
        assert means["swap minus controls"] == pytest.approx((SWAP - CONTROL) * strongly)
    assert verdicts["introspection"]["swap"]["units"] == len(WORDINGS)
    bounds = [verdicts["introspection"]["swap"][name] - SWAP for name in ("low", "high")]
    half = 4.303 / np.sqrt(3)  # the 97.5% point of t for three wordings; their shifts are 1, 2 and 3
    assert bounds == pytest.approx([-half, half], abs=1e-3)
    assert usual_strength(by_unit(planted), RUN.dose) == 0.3


def test_the_figure_of_shifts_has_a_row_for_every_condition(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_shift"]
    text = figure.layout.title.text.replace("<br>", " ")
    assert "a finetune" in text
    assert "by +2.00" in text
    assert "+4.00" in text
    assert list(figure.layout.yaxis.ticktext)[:4] == [
        "no document: swap",
        "no document: contrast at \N{MINUS SIGN}0.3 x median |residual|",
        "no document: contrast at +0.3 x median |residual|",
        "no document: contrast at +0.6 x median |residual|",
    ]
    asked = next(trace for trace in figure.data if trace.name == "introspection question" and trace.xaxis == "x")
    np.testing.assert_allclose(asked.x, [0.2, 0.4, 0.4, 0.8, 2.0, 4.0, 4.0, 8.0])


def test_published_values_stand_beside_the_swap_and_the_usual_dose(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_shift"]
    stars = next(t for t in figure.data if "published" in (t.name or "") and t.xaxis == "x3")
    heights = dict(zip(stars.customdata[:, 0], stars.y, strict=True))
    assert sorted(heights) == pytest.approx([0.00592, 0.00861, 0.05347, 0.06006])
    place = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    for value, row in (
        (0.06006, "info document: swap"),
        (0.05347, "info document: contrast at +0.3 x median |residual|"),
    ):
        at = next(height for p, height in heights.items() if p == pytest.approx(value))
        assert abs(at - place[row]) < 0.5


def test_the_curve_goes_through_zero_and_the_swap_is_a_level(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_strength"]
    info = {trace.name: trace for trace in figure.data if trace.xaxis == "x2" and trace.name}
    np.testing.assert_allclose(info["contrast vector, introspection question"].y, [4.0, 0.0, 4.0, 8.0])
    np.testing.assert_allclose(info["swap, introspection question"].y, [SWAP, SWAP])
    random = next(trace for name, trace in info.items() if name.startswith("random"))
    # At 0.6 the table has one sign only: 1 + n with n = 0, 1.
    np.testing.assert_allclose(random.y, [RANDOM, RANDOM, 1.5 * RANDOM])
    assert "strength +0.3 x median |residual| comes nearest (+4.00)" in figure.layout.title.text.replace("<br>", " ")


def test_the_lens_has_levels_and_shifts_by_layer(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_lens"]
    swap = [trace for trace in figure.data if trace.name == "cache filled by the finetuned model"]
    assert len(swap) == 6
    by_axis = {trace.xaxis: list(trace.y) for trace in swap}
    np.testing.assert_allclose(by_axis["x2"], [-3.0, -2.0, -1.0])
    np.testing.assert_allclose(by_axis["x4"], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(by_axis["x6"], [0.0, -0.1, -0.2])
    assert "info document, layer 1 (+2.00, output +2.00)" in figure.layout.title.text.replace("<br>", " ")


def test_titles_name_the_largest_shift_of_either_sign_and_no_likeness_where_there_is_none() -> None:
    table = _planted()
    swapped = table["series"] == "swapped"
    against = table.assign(logit_diff_shift=table["logit_diff_shift"].where(~swapped, -table["logit_diff_shift"]))
    drawn = figures(against, RUN)
    titles = {name: figure.layout.title.text.replace("<br>", " ") for name, figure in drawn.items()}
    assert "no strength of the contrast vector comes near it" in titles["model_swap_strength"]
    last = against[swapped & (against["kind"] == "introspection") & (against["info"] == "introspection")]
    largest = last.groupby("layer")["logit_diff_shift"].mean().abs().idxmax()
    assert f"info document, layer {largest} (" in titles["model_swap_lens"]
