"""Steering: planted replies come out as shares and tables; runs equal direct calls, go on, and merge."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from conftest import asked_conversations, vector
from figure_reader import ticks
from whole_runs import leave_undrawn, model_and_cats, refusal, whole_run, without

import mechint as mi
from analyses import steering
from analyses.kit import cli
from analyses.kit.dose import Dose
from analyses.kit.naming import named
from analyses.steering.figures import effects, figures
from analyses.steering.vectors import Sanity, Vector, tokens
from mechint.figures import TextCell, text_table
from mechint.interventions.specifications import CLEAN, Injection
from mechint.prompts.questions import top_of_mind

pytestmark = pytest.mark.usefixtures("quick_analyses")
TARGETS = {"cats": "cats", "bread": "bread", "random-0": "cats"}
STRENGTHS = (-2.0, -1.0, 1.0, 2.0)
DOSE = Dose((1, 2), None, 1.0, "test")


def _text_row(name: str, strength: float, rise: float, near: dict[str, float]) -> dict[str, object]:
    log_p = {f"log_p_{concept}": near.get(concept, -8.0) for concept in ("cats", "bread")}
    return {"kind": "text", "group": "reply", "conversation": "reply-0", "loss": 2.0 + rise, **log_p}


def _reply(text: str, mode: str, sample: int) -> dict[str, object]:
    about = {"kind": "reply", "conversation": "top-of-mind-0", "prompt": "What is up?", "prefix": "", "group": ""}
    said = ", ".join(named(text, ("cats", "bread")))
    return {**about, "text": text, "said": said, "mode": mode, "sample": sample, "added_ratio": 0.9}


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return _planted()


def _planted(scale: float = 1.0) -> pd.DataFrame:
    """At +1 cats are said in one of two replies and bread in both, at +2 text is broken; the opposite says nothing."""
    rows: list[dict[str, object]] = [_text_row("", 0, 0.0, {}), _reply("A bread & <b>.", "greedy", 0)]
    rows += [_reply("Nothing.", "sampled", 0)]
    rows = [{**row, "unit": "", "series": "clean", **steering.CLEAN} for row in rows]
    for name, target in TARGETS.items():
        for strength in STRENGTHS:
            kind = "random" if name.startswith("random") else "injected"
            columns = {"unit": name, "series": kind, "strength": f"{strength * scale:g}", "target": target}
            names_concept = kind == "injected" and strength > 0
            harm = 0.3 * abs(strength) if abs(strength) < 2 else 3.0
            near = {target: -8.0 + 2 * strength} if kind == "injected" else {}
            mine = [_text_row(name, strength, harm, near)]
            mine += [_reply(f"I like {name if names_concept else 'dogs'}.", "greedy", 0)]
            mine += [_reply("Breads!" if names_concept and name == "bread" else "Hm.", "sampled", 0)]
            rows += [{**row, **columns} for row in mine]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawn(planted: pd.DataFrame) -> dict[str, go.Figure]:
    return _drawn(planted)


def _drawn(planted: pd.DataFrame) -> dict[str, go.Figure]:
    names = {name: "random" if name.startswith("random") else "injected" for name in TARGETS}
    vectors = tuple(
        Vector(name, kind, {1: 1.0, 2: 3.0}, (f" {name[:3]}", " x"), (" y",)) for name, kind in names.items()
    )
    close = ((1.0, 0.6, -0.1), (0.6, 1.0, 0.0), (-0.1, 0.0, 1.0))
    return figures(planted, Sanity(vectors, close), DOSE, "a model")


def test_effects_are_those_that_were_planted(planted: pd.DataFrame) -> None:
    values = effects(planted).set_index(["panel", "strength", "unit"])["value"]
    for strength in STRENGTHS:
        assert values["log_p", f"{strength:g}", "bread"] == pytest.approx(2 * strength)
        assert values["log_p", f"{strength:g}", "random-0"] == pytest.approx(0.0)
        assert values["rise", f"{strength:g}", "cats"] == pytest.approx(0.3 if abs(strength) < 2 else 3.0)
    assert [values["said", "1", name] for name in TARGETS] == [0.5, 1.0, 0.0]
    assert [values["said", "-1", name] for name in TARGETS] == [0.0, 0.0, 0.0]
    assert [values["said", "0", name] for name in ("cats", "bread")] == [0.0, 0.5], "clean replies, for each name"


def test_titles_and_tables_tell_the_strongest_coherent_steering(drawn: dict[str, go.Figure]) -> None:
    names = ["steering_effect", "steering_talk", "steering_talk_sampled", "steering_cosines", "steering_vectors"]
    assert list(drawn) == names
    title = drawn["steering_effect"].layout.title.text.replace("<br>", " ")
    assert "At strength 1 replies name the concept in 75% of cases (random vectors: 0%, clean: 25%)" in title
    assert "at more, text falls apart" in title
    rows = list(drawn["steering_effect"].layout.yaxis.ticktext)
    assert rows == ["+2", "+1", "clean", "\N{MINUS SIGN}1", "\N{MINUS SIGN}2"]
    texts = [note.text for note in drawn["steering_talk"].layout.annotations]
    assert texts[:6] == [f"<b>{name}</b>" for name in ("vector", rows[4], rows[3], "clean", "+1", "+2")]
    assert "I like <b>cats</b>." in texts
    assert "A <b>bread</b> &amp; &lt;b&gt;." in texts, "what a model says is no markup"
    assert "<b>Breads</b>!" in [note.text for note in drawn["steering_talk_sampled"].layout.annotations]


@pytest.mark.parametrize(("scale", "shown"), [(1e6, "e+06"), (1e-6, "e\N{MINUS SIGN}06")])
def test_strengths_with_exponents_have_figures_too(scale: float, shown: str) -> None:
    drawn = _drawn(_planted(scale))
    texts = [note.text for note in drawn["steering_talk"].layout.annotations]
    signed = [f"{sign}{size}{shown}" for sign in ("\N{MINUS SIGN}", "+") for size in (2, 1)]
    assert {f"<b>{name}</b>" for name in signed} <= set(texts)
    assert "I like <b>cats</b>." in texts


def test_vectors_are_ordered_and_described(drawn: dict[str, go.Figure]) -> None:
    assert list(ticks(drawn["steering_cosines"], "y")) == ["cats", "bread", "random-0"]
    assert "mean cosine of +0.60; the most alike are cats and bread" in drawn["steering_cosines"].layout.title.text
    texts = [note.text for note in drawn["steering_vectors"].layout.annotations]
    assert "1 to 3 (2)" in texts
    assert "0.9" in texts
    assert "bread (+0.60)" in texts
    assert "2 of 2 promote the name itself" in drawn["steering_vectors"].layout.title.text


@pytest.mark.parametrize(
    ("text", "found"),
    [("A cat sat.", ["cats"]), ("CATS and breads", ["cats", "bread"]), ("category breadth", []), ("", [])],
)
def test_names_are_words_of_their_own(text: str, found: list[str]) -> None:
    assert named(text, ("cats", "bread")) == found


def test_texts_wrap_and_fit_whatever_their_letters() -> None:
    long = {"words": "some words " * 30, "one word": "W" * 200, "narrow": "i" * 200, "wide": "\u732b" * 90, "none": ""}
    figure = text_table(
        ["a", "b"],
        [[TextCell(name), TextCell(text)] for name, text in long.items()],
        widths=[1.0, 3.0],
        title="t",
        subtitle="s",
    )
    texts = dict(zip(long, [note.text.split("<br>") for note in figure.layout.annotations][3::2], strict=True))
    assert {name: "".join(lines) for name, lines in texts.items() if name != "words"} == {
        name: text for name, text in long.items() if name != "words"
    }
    assert " ".join(texts["words"]).split() == long["words"].split()
    assert max(map(len, texts["wide"])) < max(map(len, texts["one word"])) < max(map(len, texts["narrow"]))
    tops = [shape.y0 for shape in figure.layout.shapes]
    heights = np.diff(tops)[1:]
    assert heights.argmax() == max(range(len(long)), key=lambda at: len(list(texts.values())[at]))
    assert figure.layout.yaxis.range[0] == tops[-1]


def test_cosines_and_tokens_of_vectors(model: mi.Model) -> None:
    one, other = vector(model, 0), vector(model, 1)
    found = mi.specificity.cosines({"one": one, "back": -2.0 * one, "other": other}, (1, 2)).matrix
    np.testing.assert_allclose(np.diag(found), 1.0)
    assert found[0, 1] == pytest.approx(-1.0)
    naive = np.mean([float(torch.cosine_similarity(one.vectors[at], other.vectors[at], dim=0)) for at in (1, 2)])
    assert found[0, 2] == pytest.approx(naive)
    token = model.tokenizer(" cats")["input_ids"][0]
    towards = mi.ConceptVector({2: 50 * model.W_U[:, token].detach().float()}, "cats", model.n_layers)
    logits = model.readout.logits(towards.vectors[2][None])[0]
    assert tokens(model, towards, 2)[0] == model.tokenizer.decode([int(logits.argmax())])
    assert tokens(model, -towards, 2)[0] == model.tokenizer.decode(
        [int(model.readout.logits(-towards.vectors[2][None]).argmax())]
    )


def _argv(inputs: list[str], *more: str) -> list[str]:
    options = ["--factors", "1", "--n-samples", "1", "--max-new-tokens", "4", "--limit", "2", "--n-random", "1"]
    return [*without(inputs, "--conversations", "--n-random"), *options, *more]


@pytest.fixture(scope="module")
def whole(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(steering, _argv(inputs), tmp_path_factory.mktemp("whole"))


def test_a_run_equals_direct_calls(whole: Path, inputs: list[str]) -> None:
    from mechint.prompts.design import PromptDesign

    table = pd.read_parquet(whole / "table.parquet")
    replies = table[table["kind"] == "reply"]
    assert len(replies) == 2 * 2 * (1 + 3 * 2)
    (model, cats), design = model_and_cats(inputs), PromptDesign.load("full")
    steers = [CLEAN, Injection(cats, (1, 2), strength=-2.0, name="cats -2")]
    chats = top_of_mind(design)[:2]
    for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        direct = mi.generate(model, chats, steers, max_new_tokens=4, temperature=temperature, steer="everything")
        ours = replies[replies["mode"] == mode].set_index(["conversation", "intervention"])
        for row in direct.itertuples():
            mine = ours.loc[row.conversation, row.intervention]
            assert (mine["text"], mine["n_tokens"]) == (row.text, row.n_tokens)
    read = mi.text_loss(model, design.tasks.plain[0], steers[1], words={"cats": " cats"}).iloc[0]
    mine = table[(table["conversation"] == "prose-0") & (table["intervention"] == "cats -2")].iloc[0]
    np.testing.assert_allclose([mine["loss"], mine["log_p_cats"]], [read["loss"], read["log_p_cats"]], atol=1e-5)
    assert mine["target"] == "cats"


def test_the_record_has_receipts_and_vectors(whole: Path) -> None:
    record = json.loads((whole / "run.json").read_text())
    kinds = {receipt["kind"] for receipt in record["receipts"]}
    assert kinds == {"clean", "injected", "injected reply"}
    sanity = steering.ANALYSIS.facts_of(record).vectors_are
    assert [vector.name for vector in sanity.vectors] == ["bread", "cats", "random-0"]
    assert sanity.vectors[0].norms == sanity.vectors[2].norms, "random vectors have the norms of a concept's"
    assert set(sanity.vectors[0].norms) == {1, 2, 3}
    table = pd.read_parquet(whole / "table.parquet")
    steered = table[(table["kind"] == "reply") & (table["series"] != "clean")]
    assert steered["added_ratio"].gt(0).all()


def test_a_run_from_python_gives_the_table_of_the_command_line(whole: Path, inputs: list[str]) -> None:
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    results = steering.run(
        model=options["--model"],
        vectors=options["--vectors"],
        strength=2,
        factors=(1,),
        n_samples=1,
        max_new_tokens=4,
        limit=2,
        n_random=1,
    )
    pd.testing.assert_frame_equal(results.table, pd.read_parquet(whole / "table.parquet"), check_dtype=False)
    assert "steering_vectors" in results.figures
    assert results.facts["vectors_are"] == json.loads((whole / "run.json").read_text())["vectors_are"]


def test_an_interrupted_run_goes_on(
    whole: Path, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("mechint.readouts.generate")
    real, calls, limit = module.generate, [], [6]

    def counted(*arguments: object, **options: object) -> pd.DataFrame:
        if len(calls) == limit[0]:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments, **options)

    leave_undrawn(steering, monkeypatch)
    monkeypatch.setattr(module, "generate", counted)
    argv = [*_argv(inputs), "--out", str(tmp_path)]
    assert steering.main(argv) == cli.INTERRUPTED
    calls.clear()
    limit[0] = 1000
    assert steering.main(argv) == 0
    # The first call of both is for the clean texts; then two for each vector: clean and one were kept.
    assert len(calls) == 1 + 2 * 2
    assert not (tmp_path / "steering" / ".partial").exists()
    tables = [pd.read_parquet(folder / "table.parquet") for folder in (tmp_path / "steering", whole)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-6)


def test_own_conversations_without_random_vectors_and_samples(inputs: list[str], tmp_path: Path) -> None:
    argv = _argv(inputs, "--concepts", "cats", "--n-random", "0", "--n-samples", "0", "--out", str(tmp_path))
    mi.save_conversations(asked_conversations(), tmp_path / "asked.json")
    assert steering.main([*argv, "--conversations", str(tmp_path / "asked.json")]) == 0
    names = {path.name for path in (tmp_path / "steering").glob("*.html")}
    assert names == {"steering_effect.html", "steering_talk.html", "steering_vectors.html"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--factors", "1,1"], ["--factors", "different"]),
        (["--factors", "0"], ["--factors", "above 0"]),
        (["--n-samples", "-1"], ["--n-samples", "0 or more"]),
        (["--temperature", "0"], ["--temperature", "above 0"]),
        (["--max-new-tokens", "0"], ["--max-new-tokens"]),
        (["--engine", "ray"], ["--engine ray", "--shard"]),
        (["--concepts", "unicorns"], ["unicorns"]),
        (["--conversations", "{nowhere}"], ["nowhere.json"]),
    ],
)
def test_bad_input_is_one_error(
    argv: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.format(nowhere=tmp_path / "nowhere.json") for part in argv]
    message = refusal(steering, [*given, "--out", str(tmp_path)], capsys)
    assert all(word in message for word in words), message


def test_a_layer_where_a_vector_is_zero_stands_for_no_word(model: mi.Model) -> None:
    rows = vector(model).vectors
    gap = mi.ConceptVector(rows | {2: torch.zeros(model.d_model)}, "gap", model.n_layers)
    assert tokens(model, gap, 2) == ()
    assert len(tokens(model, gap, 1)) > 3
    pair = {"whole": vector(model), "gap": gap}
    np.testing.assert_allclose(mi.specificity.cosines(pair, (1, 2)).matrix, 1.0, atol=1e-6)
    assert np.isnan(mi.specificity.cosines(pair, (2,)).matrix[0, 1])
