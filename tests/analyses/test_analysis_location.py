"""Location: planted knowledge of the place, planted taste, and cells that equal direct calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import vector
from whole_runs import DIGITS, model_and_cats, refusal, whole_run, without

import mechint as mi
from analyses import location
from analyses.kit import choices
from analyses.kit.dose import Dose
from analyses.kit.subject import Subject
from analyses.location.figures import figures
from analyses.location.measures import Measures, told_apart
from analyses.location.sites import depth_halves, sites
from mechint.base.errors import UsageError
from mechint.chat.render import render
from mechint.prompts import questions as prompt_questions
from mechint.prompts.design import PromptDesign

pytestmark = [pytest.mark.usefixtures("quick_analyses"), DIGITS]
COUNTS = {"half": 2, "sentence": 4, "layer": 2}
# What the model answers: (question, site or -1, order) -> the option that it gives most.
Answer = Callable[[str, int, Sequence[int]], int]


def knows(question: str, site: int, order: Sequence[int]) -> int:
    return site if question == "location" and site >= 0 else order[0]


def likes(question: str, site: int, order: Sequence[int]) -> int:
    """Text that is steered is liked, so that this is said of it whatever is asked."""
    return site if site >= 0 else order[0]


def last(question: str, site: int, order: Sequence[int]) -> int:
    return len(order) - 1


def digit(question: str, site: int, order: Sequence[int]) -> int:
    return order[0]


def wrong(question: str, site: int, order: Sequence[int]) -> int:
    return (site + 1) % len(order) if question == "location" and site >= 0 else order[0]


def planted(answer: Answer, strength: float = 9.0, concepts: int = 8) -> pd.DataFrame:
    """A table as a run leaves it: at the output (layer 10) as planted, at layer 9 nothing."""
    rows = []
    for place, count in COUNTS.items():
        vectors = [("", "clean", -1)]
        vectors += [(f"c{v}", "injected", site) for v in range(concepts) for site in range(count)]
        vectors += [(f"random-{v}", "random", site) for v in range(2) for site in range(count)]
        for question in ("location", "preference"):
            for number, order in enumerate(choices.orders(count, count, 0)):
                for name, kind, site in vectors:
                    said = answer(question, -1 if kind == "random" else site, order)
                    columns = {"place": place, "question": question, "order": number, "series": kind}
                    columns |= {"unit": name, "site": site}
                    for layer, size in (("9", 0.0), ("10", strength)):
                        logits = {f"logit_place_{at + 1}": size * (at == said) for at in range(count)}
                        rows.append({**columns, "layer": layer, **logits})
    return pd.DataFrame(rows)


def verdict(answer: Answer) -> pd.DataFrame:
    return Measures.of(planted(answer)).verdict().set_index(["measure", "place"])


def titles(answer: Answer) -> dict[str, str]:
    drawn = figures(Measures.of(planted(answer)), "planted")
    return {name: figure.layout.title.text.replace("<br>", " ") for name, figure in drawn.items()}


def test_who_knows_the_place_is_above_chance_and_taste() -> None:
    found = verdict(knows)
    assert found["above"].all()
    assert (found["mean"] == 1).all()
    assert found.loc[("right", "sentence"), "chance"] == 0.25
    assert found.loc[("right", "sentence"), "net"] == 0.75
    assert "above chance: half, sentence, layers (right: half 100% against 50%" in titles(knows)["location_accuracy"]
    assert "not above" not in titles(knows)["location_sentences"]


def test_few_concepts_that_are_all_right_are_not_yet_above_chance() -> None:
    found = Measures.of(planted(knows, concepts=4)).verdict().set_index(["measure", "place"])
    assert found.loc[("right", "half"), "low"] == pytest.approx(0.025**0.25)
    assert not found.loc[("right", "half"), "above"]
    assert found.loc[("right", "sentence"), "above"]


def test_who_likes_steered_text_is_right_and_yet_does_not_know() -> None:
    found = verdict(likes)
    assert (found["mean"] == 1).all()
    assert (found["net"] == 0).all()
    assert not found["above"].any()
    assert "above chance: none" in titles(likes)["location_accuracy"]


@pytest.mark.parametrize("answer", [last, digit])
def test_one_answer_to_all_has_exactly_chance(answer: Answer) -> None:
    found = verdict(answer)
    assert (found["mean"] == found["chance"]).all()
    assert (found["low"] == found["high"]).all()
    assert not found["above"].any()


def test_who_is_wrong_is_below_chance() -> None:
    found = verdict(wrong)
    assert (found.loc["right", "mean"] == 0).all()
    assert (found.loc["apart", "mean"] < 0.5).all()


def test_logits_tell_pairs_apart_whatever_the_answer_is() -> None:
    liked = np.array([[[8.1, 0.0], [8.0, 0.0]]])  # the first option always, and a little more so where it is true
    assert told_apart(liked).tolist() == [1]
    assert told_apart(liked[:, ::-1]).tolist() == [0]
    assert told_apart(np.broadcast_to([5.0, 1.0, 2.0], (3, 3, 3))).tolist() == [0.5] * 3
    rng = np.random.default_rng(0)
    many = rng.normal(size=(200, 5, 5))
    assert told_apart(many).mean() == pytest.approx(0.5, abs=0.05)
    pairs = [(a, b) for a in range(5) for b in range(a)]
    naive = [np.mean([x[a, a] - x[a, b] > x[b, a] - x[b, b] for a, b in pairs]) for x in many]
    np.testing.assert_allclose(told_apart(many), naive)


def test_layers_before_the_effect_are_at_chance() -> None:
    found = Measures.of(planted(knows)).summary().set_index(["panel", "place", "series", "layer"])["mean"]
    assert found["apart", "half", "location", "9"] == 0.5
    assert found["apart", "half", "location", "10"] == 1
    assert found["apart", "half", "preference", "10"] == found["apart", "half", "random", "10"] == 0.5


def test_the_sentences_figure_shows_shifts_in_points() -> None:
    place, taste, random = figures(Measures.of(planted(knows)), "planted")["location_sentences"].data
    moved = 100 * (np.exp(9) - 1) / (np.exp(9) + 3) * 0.75
    np.testing.assert_allclose(np.diag(np.array(place.z)), moved, rtol=1e-6)
    assert np.abs(taste.z).max() == np.abs(random.z).max() == 0
    assert "•" in place.text[0][0]
    assert not any("•" in text for line in taste.text for text in line)


def test_rows_are_marked_from_the_top() -> None:
    drawn = figures(Measures.of(planted(knows)), "planted")["location_accuracy"]
    marks = [trace for trace in drawn.data if trace.name == "chance"]
    assert [list(mark.x[::3]) for mark in marks] == [[0.5, 0.25, 0.5], [0.5, 0.5, 0.5]]
    assert list(marks[0].y[:2]) == [1.5, 2.5]
    assert [mark.showlegend for mark in marks] == [True, False]


@pytest.mark.parametrize(
    ("layers", "n_layers", "halves"),
    [
        (range(6), 6, ((0, 1), (3, 4))),
        (range(1, 4), 4, ((1,), (2,))),
        (range(64), 64, (tuple(range(31)), tuple(range(32, 63)))),
        ((3, 4, 5, 6), 8, ((3,), (6,))),
    ],
)
def test_depths_are_equally_many_layers_of_each_half(
    layers: Sequence[int], n_layers: int, halves: tuple[tuple[int, ...], ...]
) -> None:
    assert depth_halves(layers, n_layers) == halves


@pytest.mark.parametrize(("layers", "n_layers"), [((0, 1), 2), ((2, 3), 4), ((0, 1), 6)])
def test_a_depth_without_layers_is_refused(layers: Sequence[int], n_layers: int) -> None:
    with pytest.raises(UsageError, match="both halves"):
        depth_halves(layers, n_layers)


def options_of(inputs: list[str], *more: str) -> list[str]:
    """The options of the shared runs, without conversations: this analysis asks its own."""
    return [*without(inputs, "--conversations"), "--orders", "2", "--info", "none", *more]


@pytest.fixture(scope="module")
def ran(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(location, options_of(inputs, "--n-random", "1"), tmp_path_factory.mktemp("location"))


def test_a_run_leaves_every_figure_and_its_verdict(ran: Path) -> None:
    names = ("accuracy", "layers", "sentences")
    assert {path.stem for path in ran.glob("*.html")} == {f"location_{name}" for name in names}
    record = json.loads((ran / "run.json").read_text())
    assert [line["place"] for line in record["verdict"]] == ["half", "half", "sentence", "sentence", "layer", "layer"]
    assert record["sites"] == "halves and sentences at layers 1:3, depths at 1 or 2"
    table = pd.read_parquet(ran / "table.parquet")
    counts = table[table["layer"] == "3"].groupby("place").size().to_dict()
    # Two orders and two questions, clean and three vectors at each site.
    assert counts == {"half": 4 * (1 + 3 * 2), "sentence": 4 * (1 + 3 * 8), "layer": 4 * (1 + 3 * 2)}


def test_a_call_from_python_gives_the_table_of_the_command_line(ran: Path, inputs: list[str]) -> None:
    flags = dict(zip(inputs[::2], inputs[1::2], strict=True))
    options = {"vectors": flags["--vectors"], "strength": 2.0, "n_random": 1, "orders": 2, "info": "none"}
    results = location.run(model=flags["--model"], **options)
    pd.testing.assert_frame_equal(results.table, pd.read_parquet(ran / "table.parquet"))
    assert results.facts["sites"] == json.loads((ran / "run.json").read_text())["sites"]


@pytest.mark.parametrize("place", ["half", "layer"])
def test_cells_equal_direct_calls(place: str, ran: Path, inputs: list[str]) -> None:
    (model, cats), design = model_and_cats(inputs), PromptDesign.load("full")
    order = choices.orders(2, 2, 0)[0]
    chat = prompt_questions.location(design, place, order, "q", info="none")
    text, sentences = render(model.tokenizer, chat), design.tasks.location.sentences
    touched = sentences[len(sentences) // 2 :] if place == "half" else sentences
    positions = [at for one in touched for at in mi.positions_of(model.tokenizer, text, one)]
    layers = (1, 2) if place == "half" else (2,)
    steer = mi.Injection(cats, layers=layers, strength=2.0, positions=positions)
    lens = mi.logit_lens(model, chat, [mi.CLEAN, steer], answers=prompt_questions.answers(design, "location", 2))
    table = pd.read_parquet(ran / "table.parquet")
    mine = table[(table["place"] == place) & (table["question"] == "location") & (table["order"] == 0)]
    for kind, site, name in (("clean", -1, "clean"), ("injected", 1, steer.name)):
        ours = mine[(mine["series"] == kind) & (mine["site"] == site) & mine["unit"].isin(["", "cats"])]
        direct = lens[lens["intervention"] == name]
        for at, option in enumerate(order):
            np.testing.assert_allclose(ours[f"logit_place_{option + 1}"], direct[f"logit_{at + 1}"], atol=1e-4)
    clean = lens.loc[lens["intervention"] == "clean", "logit_1"].iloc[-1]
    steered = lens.loc[lens["intervention"] == steer.name, "logit_1"].iloc[-1]
    assert abs(clean - steered) > 1e-2


def test_sites_have_the_tokens_of_the_sentences_and_no_others(tiny_model: Callable[..., mi.Model]) -> None:
    model, design = tiny_model("qwen2"), PromptDesign.load("full")
    config = location.ANALYSIS.parsed([])
    subject = Subject(config, model, Dose((1,), None, 0.1, "test"), {"v0": vector(model)}, {})
    chats = location.questions(design, "half", config).conversations
    where = sites(subject, design.tasks.location.sentences, chats[0])
    each = [set(site.positions) for site in where["sentence"]]
    first, second = where["half"]
    assert sum(map(len, each)) == len(set.union(*each))
    assert set(first.positions) == set.union(*each[:4])
    assert set(second.positions) == set.union(*each[4:])
    assert [site.layers for site in where["layer"]] == [(0,), (2,)]
    assert set(where["layer"][0].positions) == set(first.positions) | set(second.positions)
    for chat in chats:  # the same tokens in every question
        text = render(model.tokenizer, chat)
        read = model.tokenizer.decode([text.tokens[at] for at in sorted({*first.positions, *second.positions})])
        # A space that is a token of its own between two sentences belongs to neither.
        assert read.replace(" ", "") == "".join(design.tasks.location.sentences).replace(" ", "")
        assert text.marked()[sorted({*first.positions, *second.positions})].all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--conversations", "asked.json"], ["--conversations", "questions of its own"]),
        (["--limit", "2"], ["--limit", "questions of its own"]),
        (["--info", "poem"], ["--info", "introspection"]),
        (["--orders", "0"], ["--orders", "1 or more"]),
        (["--layers", "9"], ["--layers 9", "0:4"]),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_bad_input_is_refused_before_the_model_is_loaded(
    arguments: list[str], words: list[str], tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys
) -> None:
    model = ["--model", str(tiny_checkpoint("qwen2"))]
    message = refusal(location, [*model, *arguments, "--out", str(tmp_path)], capsys)
    assert all(word in message for word in words), message
