"""Identification: planted answers come out as planted, and cells equal direct calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import conversation
from figure_reader import subtitle, ticks
from whole_runs import DIGITS, model_and_cats, refusal, whole_run, without

import mechint as mi
from analyses import identification
from analyses.identification.figures import accuracy, by_layer, confusion, naming
from analyses.identification.measures import Measures
from analyses.kit import choices
from analyses.kit.checks import Checkpoint, Files
from analyses.kit.specificity import VectorSpecificity
from mechint.chat.conversations import Conversation, Message
from mechint.engine.job import Job, Options
from mechint.figures.words import plain
from mechint.prompts import questions as prompt_questions
from mechint.prompts.design import PromptDesign
from mechint.readouts.naming import naming_requests

pytestmark = [pytest.mark.usefixtures("quick_analyses"), DIGITS]
CONCEPTS = ("cats", "bread", "snow")
OPTIONS = (*CONCEPTS, "none")
INFOS = ("none", "introspection")
# What the model answers: (target, order, layer, number of the order) -> logits of the options.
Answer = Callable[[int, Sequence[int], str, int], np.ndarray]


def knows(target: int, order: Sequence[int], layer: str, number: int) -> np.ndarray:
    """Right at the output, by chance before it."""
    return 20.0 * np.eye(4)[target if layer == "3" else order[0]]


def digit(target: int, order: Sequence[int], layer: str, number: int) -> np.ndarray:
    """The first option whatever was injected."""
    return 20.0 * np.eye(4)[order[0]]


def own_digit(target: int, order: Sequence[int], layer: str, number: int) -> np.ndarray:
    """A digit that depends on the vector, without a look at what stands there."""
    return 20.0 * np.eye(4)[order[target]]


def lucky(target: int, order: Sequence[int], layer: str, number: int) -> np.ndarray:
    """Right at layer 2 on the even orders, wrong there on the odd ones: a layer that was chosen by luck."""
    return 20.0 * np.eye(4)[target if layer == "2" and number % 2 == 0 else (target + 1) % 4]


def planted(answer: Answer, gain: float = 0.0, in_prose: float = 0.0) -> pd.DataFrame:
    """A table as a run leaves it; a concept's own name gains `gain` where it is asked for, and so much in prose."""
    vectors = [("", "clean", "none"), *((name, "injected", name) for name in CONCEPTS)]
    vectors += [(f"random-{at}", "random", CONCEPTS[at]) for at in range(2)]
    rows = []
    for info in INFOS:
        for vector, kind, target in vectors:
            columns = {"info": info, "unit": vector, "series": kind, "target": target}
            truth = OPTIONS.index(target)
            for number, order in enumerate(choices.orders(4, 8, 0)):
                asked = {"task": "choice", "question": "injected", "order": number, "conversation": f"{info}{number}"}
                for layer in ("embed", "0", "1", "2", "3"):
                    seen = answer if kind != "random" else digit
                    logits = dict(zip(OPTIONS, seen(truth, order, layer, number), strict=True))
                    rows.append({**columns, **asked, "layer": layer} | {f"logit_{n}": v for n, v in logits.items()})
            for question in ("injected", "control"):
                for name in CONCEPTS:
                    for token in range(2):
                        is_own_name = name == target and kind == "injected" and question == "injected"
                        asked = {"task": "naming", "question": question, "conversation": f"{question}{info}"}
                        log_p = -3.0 - CONCEPTS.index(name) + is_own_name * gain / 2
                        rows.append({**columns, **asked, "layer": "3", "name": name, "token": token, "log_p": log_p})
    for vector, kind, target in vectors:
        log_p = {name: -5.0 + (in_prose if name == target and kind == "injected" else 0.0) for name in CONCEPTS}
        columns = {"task": "prose", "unit": vector, "series": kind, "target": target, "intervention": vector or "clean"}
        rows += [
            {**columns, "conversation": text, **{f"log_p_{name}": value for name, value in log_p.items()}}
            for text in ("prose-0", "prose-1")
        ]
    return pd.DataFrame(rows)


def shares(measures: Measures, panel: str) -> pd.DataFrame:
    found = measures.accuracy
    return found[(found["panel"] == panel) & (found["row"] == "introspection")].set_index("series")


def test_every_option_stands_at_every_digit_equally_often() -> None:
    for n_options in (2, 4, 10):
        square = np.array(choices.orders(n_options, n_options, 3))
        for lines in (square, square.T):
            assert (np.sort(lines, axis=1) == np.arange(n_options)).all()
    assert sorted(choices.orders(2, 2, 0)) == [(0, 1), (1, 0)]
    assert len(set(choices.orders(10, 20, 0))) == 20
    assert choices.orders(10, 5, 0) == choices.orders(10, 20, 0)[:5]
    assert choices.orders(10, 5, 0) != choices.orders(10, 5, 1)


def test_answers_are_mapped_back_from_digits_to_options() -> None:
    listings = [
        choices.Listing.of(Conversation(label, [Message("user", "which?")]), order, number=at)
        for at, (label, order) in enumerate({"a": (2, 0, 1), "b": (0, 1, 2)}.items())
    ]
    choice = choices.Choice(listings, mi.Answers.options([" 1", " 2", " 3"]), ["x", "y", "z"])
    rows = pd.DataFrame({"conversation": ["b", "a"], "p_ 1": [0.1, 0.2], "p_ 2": [0.3, 0.4], "p_ 3": [0.5, 0.6]})
    rows = rows.assign(**{f"logit_ {n}": rows[f"p_ {n}"] + 1 for n in (1, 2, 3)})
    by_option = choice.by_option(rows)
    assert list(by_option.columns) == ["conversation", "p_x", "p_y", "p_z", "logit_x", "logit_y", "logit_z"]
    assert by_option[["p_x", "p_y", "p_z"]].to_numpy().tolist() == [[0.1, 0.3, 0.5], [0.4, 0.6, 0.2]]
    assert by_option["logit_z"].tolist() == [1.5, 1.2]
    assert choices.with_extra(by_option, choice.conversations)["number"].tolist() == [1, 0]
    assert choice.by_option(rows.iloc[:0, :1]).empty  # as in a shard


def test_a_model_that_knows_is_found_to_know() -> None:
    measures = Measures.of(planted(knows), CONCEPTS, 0)
    found = shares(measures, "output")
    assert found.loc["injected", "mean"] == found.loc["clean", "mean"] == 1
    assert found.loc["random", "mean"] == found.loc["random", "chance"] == 0.25
    assert measures.best_layer("none") == "3"
    assert shares(measures, "best").loc["injected", "mean"] == 1
    bits = measures.bits.set_index(["info", "causes", "series", "layer"])
    own = bits.loc["introspection", "among", "plug_in", "3"]
    assert own["mean"] == pytest.approx(np.log2(3), abs=1e-4)
    assert own["p_value"] < 0.01
    assert bits.loc[("introspection", "with-none", "plug_in", "3"), "mean"] == pytest.approx(2, abs=1e-4)
    for series, layer in (("random", "3"), ("injected", "2")):
        assert bits.loc[("introspection", "among", series, layer), "mean"] == pytest.approx(0, abs=1e-4)
    assert ", above chance (25%)" in confusion(measures, "planted").layout.title.text
    assert "<b>Answers tell" in by_layer(measures, "planted", [0]).layout.title.text


@pytest.mark.parametrize("answer", [digit, own_digit])
def test_digits_are_no_knowledge(answer: Answer) -> None:
    measures = Measures.of(planted(answer), CONCEPTS, 0)
    assert shares(measures, "output")["mean"].tolist() == [0.25] * 3
    bits = measures.bits.set_index(["info", "causes", "series", "layer"])
    assert bits.loc[("none", "among", "injected", "3"), "mean"] < 1e-4
    assert bits.loc[("none", "among", "injected", "3"), "p_value"] > 0.5
    assert "not above chance" in accuracy(measures, "planted").layout.title.text
    assert "do not tell" in by_layer(measures, "planted", [0]).layout.title.text


def detects(target: int, order: Sequence[int], layer: str, number: int) -> np.ndarray:
    """How sure it is that nothing was injected differs by concept; which concept, it cannot say."""
    return np.array([0.0, 0.0, 0.0, 3.0 * target])


def whispers(target: int, order: Sequence[int], layer: str, number: int) -> np.ndarray:
    """Says that nothing was injected, and yet makes the right concept the likeliest of them."""
    return np.array([*(2.0 * (np.arange(3) == target)), 9.0])


def test_detection_is_not_taken_for_identification() -> None:
    measures = Measures.of(planted(detects), CONCEPTS, 0)
    bits = measures.bits.set_index(["info", "causes", "series", "layer"])["mean"]
    assert bits["none", "among", "plug_in", "3"] == pytest.approx(0, abs=1e-9)
    assert bits["none", "with-none", "plug_in", "3"] > 0.2
    assert shares(measures, "among").loc["injected", "mean"] == 0


def test_a_concept_can_be_told_without_being_detected() -> None:
    measures = Measures.of(planted(whispers), CONCEPTS, 0)
    assert shares(measures, "output").loc["injected", "mean"] == 0
    told = shares(measures, "among")
    assert told.loc["injected", "mean"] == 1
    assert told.loc["injected", "chance"] == pytest.approx(1 / 3)
    assert "clean" not in told.index


def test_a_lucky_layer_is_judged_on_other_orders() -> None:
    measures = Measures.of(planted(lucky), CONCEPTS, 0)
    assert measures.best_layer("none") == "2"
    assert shares(measures, "best").loc["injected", "mean"] == 0


def test_own_names_are_held_against_the_others() -> None:
    measures = Measures.of(planted(digit, gain=1.5), CONCEPTS, 0)
    own = measures.own_names().set_index(["info", "question", "series"])["mean"]
    assert own["none", "injected", "injected"] == pytest.approx(1.5)
    assert own["none", "control", "injected"] == own["none", "injected", "random"] == 0
    named = shares(measures, "naming")
    assert named.loc["injected", "mean"] == 1
    assert named.loc["random", "mean"] == 0  # nothing moves, and a tie is a miss
    assert named.loc["injected", "chance"] == pytest.approx(1 / 3)
    figure = naming(measures, "planted")
    (grid,) = figure.data
    assert next(iter(ticks(figure, "y"))) == "concepts (mean)"
    assert grid.z[0].tolist() == pytest.approx([1.5, 1.5, 0, 0, 0])
    (grid,) = naming(Measures.of(planted(digit, in_prose=2.0), CONCEPTS, 0), "planted").data
    assert grid.z[0].tolist() == pytest.approx([0, 0, 0, 0, 2.0])
    assert grid.z[-1].tolist() == pytest.approx([0] * 5)


@pytest.mark.parametrize(("in_prose", "first"), [(2.0, 3), (0.0, 1), (-1.0, 0)])
def test_captions_say_whether_the_vectors_are_specific(in_prose: float, first: float) -> None:
    table = planted(knows, in_prose=in_prose)
    specific = VectorSpecificity.of(table[table["task"] == "prose"], 0.8123)
    assert specific.own_minus_others.mean == in_prose
    assert specific.is_specific == (in_prose > 0)
    expected = f"mean cosine 0.81 with each other, own name first for {first} of 3 in steered prose"
    assert specific.caption == f"vectors{'' if in_prose > 0 else ' NOT SPECIFIC'}: {expected}"


def test_the_confusion_matrix_is_that_of_the_trials() -> None:
    figure = confusion(Measures.of(planted(knows), CONCEPTS, 0), "planted")
    panels = figure.data
    assert len(panels) == 4
    assert list(ticks(figure, "y")) == [*CONCEPTS, "none (clean)", "random vectors (mean)"]
    np.testing.assert_allclose(panels[0].z[:4], np.eye(4), atol=1e-6)
    np.testing.assert_allclose(panels[0].z[4], 0.25, atol=1e-6)


def options_of(inputs: list[str], *more: str) -> list[str]:
    """The options of the shared runs, without conversations: this analysis asks its own."""
    return [*without(inputs, "--conversations"), "--orders", "2", "--limit", "1", *more]


@pytest.fixture(scope="module")
def ran(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(identification, options_of(inputs), tmp_path_factory.mktemp("identification"))


def test_a_run_leaves_every_figure_and_its_verdict(ran: Path) -> None:
    names = ("confusion", "information", "accuracy", "naming")
    assert {path.stem for path in ran.glob("*.html")} == {f"identification_{name}" for name in names}
    record = json.loads((ran / "run.json").read_text())
    assert record["concepts"] == ["bread", "cats"]
    assert set(record["verdict"]) == {"best_layer", "accuracy", "bits", "own_names", "specificity"}
    vectors = record["verdict"]["specificity"]
    assert vectors["mean_cosine"] == record["mean_cosine"]
    table = pd.read_parquet(ran / "table.parquet")
    assert table["task"].value_counts().to_dict()["choice"] == 2 * 2 * 5 * 5  # infos, orders, interventions, layers
    assert set(table.loc[table["series"] == "random", "target"]) == {"cats", "bread"}


def test_a_call_from_python_gives_the_table_of_the_command_line(ran: Path, inputs: list[str]) -> None:
    flags = dict(zip(inputs[::2], inputs[1::2], strict=True))
    options = {"vectors": flags["--vectors"], "strength": 2.0, "n_random": 2, "orders": 2, "limit": 1}
    results = identification.run(model=flags["--model"], **options)
    table = results.table.astype({"order": float})  # as a file has it: names have no order
    pd.testing.assert_frame_equal(table, pd.read_parquet(ran / "table.parquet"))
    assert results.facts["concepts"] == ["bread", "cats"]
    cosine = f"mean cosine {plain(results.facts['mean_cosine'])} with each other, own name first for"
    assert all(cosine in subtitle(figure) for figure in results.figures.values())


def test_cells_equal_direct_calls(ran: Path, inputs: list[str]) -> None:
    table = pd.read_parquet(ran / "table.parquet")
    (model, cats), design = model_and_cats(inputs), PromptDesign.load("full")
    steer = mi.Injection(cats, layers=(1, 2), strength=2.0, name="cats")
    none = design.tasks.identification.none
    texts = {"bread": "bread", "cats": "cats", "none": none}
    order = choices.orders(3, 2, 0)[1]
    chat = prompt_questions.identification(design, [list(texts.values())[at] for at in order], "q")
    lens = mi.logit_lens(model, chat, steer, answers=prompt_questions.answers(design, "identification", 3))
    ours = table[(table["task"] == "choice") & (table["unit"] == "cats") & (table["info"] == "none")]
    ours = ours[ours["order"] == 1]
    for at, option in enumerate(order):
        for read in ("p", "logit"):
            np.testing.assert_allclose(ours[f"{read}_{list(texts)[option]}"], lens[f"{read}_{at}"], atol=1e-6)
    asked = prompt_questions.naming(design, "q")
    names = mi.name_log_probs(model, asked, [" cats", " bread"], steer).set_index("name")["log_p"]
    rows = table[(table["conversation"] == "naming_info-none") & (table["intervention"] == "cats")]
    found = rows.groupby("name")["log_p"].sum()
    assert found["cats"] == pytest.approx(names[" cats"], abs=1e-6)
    assert found["bread"] == pytest.approx(names[" bread"], abs=1e-6)


def test_specificity_equals_a_direct_reading(ran: Path, inputs: list[str]) -> None:
    (model, cats), record = model_and_cats(inputs), json.loads((ran / "run.json").read_text())
    bread = mi.ConceptVector.load(Path(inputs[inputs.index("--vectors") + 1]) / "bread.safetensors")
    vectors, layers = {"bread": bread, "cats": cats}, tuple(record["dose"]["layers"])
    texts = list(PromptDesign.load("full").tasks.plain)
    steers = [mi.Injection(vector, layers, strength=2.0, name=name) for name, vector in vectors.items()]
    losses = mi.text_loss(model, texts, [mi.CLEAN, *steers], words={name: f" {name}" for name in vectors})
    expected = mi.specificity.specificity(mi.specificity.name_rises(losses, {name: name for name in vectors}))
    measured = record["verdict"]["specificity"]
    assert measured["own_first"] == expected.by_concept["own_first"].sum()
    assert measured["own_minus_others"]["mean"] == pytest.approx(float(expected.own_minus_others.mean), rel=1e-3)
    assert measured["mean_cosine"] == pytest.approx(mi.specificity.cosines(vectors, layers).mean, abs=1e-4)


def test_names_of_several_tokens_are_put_together(tiny_model: Callable[..., mi.Model]) -> None:
    model, names = tiny_model("qwen2"), {"cat suit": " catsuit", "cats": " cats", "dust": " dust"}
    asked = [conversation(), conversation("other", "which thought is it?", prefix="I notice")]
    naming = naming_requests(model, asked, names, mi.CLEAN)
    tables = zip(naming.requests, Job.of(model, naming.requests).rows(Options()), strict=True)
    rows = pd.concat([identification.by_name(rows, request, naming) for request, rows in tables])
    found = rows.groupby(["conversation", "name"])["log_p"].sum()
    for row in mi.name_log_probs(model, asked, names, mi.CLEAN).itertuples():
        assert found[row.conversation, row.name] == pytest.approx(row.log_p, abs=1e-6)
    assert rows.groupby("name")["token"].max().to_dict().keys() == names.keys()
    assert rows["token"].max() > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concepts", "a,b,c,d,e,f,g,h,i,j"], ["10 concepts", "2 to 9"]),
        (["--concepts", "cats"], ["1 concepts", "2 to 9"]),
        (["--model", "organism", "--concepts", "cats,unicorns"], ["unknown concept", "unicorns"]),
        (["--conversations", "asked.json"], ["--conversations", "questions of its own"]),
        (["--orders", "1"], ["--orders", "2 or more"]),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_bad_input_is_refused_before_the_model_is_loaded(
    arguments: list[str], words: list[str], tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys
) -> None:
    model = ["--model", str(tiny_checkpoint("qwen2"))] if "--model" not in arguments else []
    message = refusal(identification, [*model, *arguments, "--out", str(tmp_path)], capsys)
    assert all(word in message for word in words), message


def test_nine_concepts_of_many_kinds_are_the_default() -> None:
    config = identification.ANALYSIS.parsed([])
    for prompts in ("small", "full"):
        assert len(set(identification.chosen(config, Files(Checkpoint(8, prompts), {}, None)))) == 9
    named = identification.ANALYSIS.parsed(["--concepts", "a,b"])
    assert identification.chosen(named, Files(Checkpoint(8, "full"), {}, None)) == ("a", "b")
