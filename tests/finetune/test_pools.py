"""Pools: what is held out shares nothing with what is trained, whatever the file says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechint.base.errors import UnknownNameError, UsageError
from mechint.finetune import pools as pools_module
from mechint.finetune.pools import FOOD, OTHER, SPLITS, Pools, Split, check_disjoint
from mechint.finetune.registry import recipe_names
from mechint.finetune.specification import Recipe
from mechint.organisms import organism_path

FOLDER = Path(pools_module.__file__).parent / "pools"
WORDS = st.sampled_from(["a", "b", "c", "d", "A", " a", "b  b", "b b"])


def factors(pools: Pools) -> dict[str, Mapping[Split, tuple[str, ...]]]:
    """Every factor's texts by split."""
    topics = {f"openers, {topic}": texts for topic, texts in pools.opener_texts.items()}
    topics |= {f"replies, {topic}": texts for topic, texts in pools.reply_texts.items()}
    banks = {f"bank {name}": texts for name, texts in pools.bank_texts.items()}
    answers = {split: tuple(word for pair in pools.answers(split) for word in pair) for split in SPLITS}
    concepts, sentences = pools.concept_names, pools.sentence_texts
    return {**topics, **banks, "concepts": concepts, "sentences": sentences, "answers": answers}


@pytest.mark.parametrize("name", ["full", "small"])
def test_no_factor_has_anything_in_two_splits_or_twice(name: str) -> None:
    for factor, texts in factors(Pools.load(name)).items():
        members = [text.casefold() for split in SPLITS for text in texts[split]]
        assert len(set(members)) == len(members), factor
        assert all(texts[split] for split in SPLITS), factor


def test_the_full_pools_are_large_enough() -> None:
    pools = Pools.load("full")
    assert len(pools.openers("train", OTHER)) >= 200
    assert len(pools.openers("train", FOOD)) >= 25
    assert len(pools.replies("train", OTHER)) >= 50
    assert all(len(texts["train"]) >= 12 for texts in pools.bank_texts.values())
    assert len(pools.concepts("train")) == 102
    # Clean texts that were never trained, of which false alarms are counted: 20 would not do.
    assert len(pools.openers("held_out", OTHER)) * len(pools.replies("held_out", OTHER)) >= 100


def test_held_out_texts_of_a_grammar_share_neither_forms_nor_words() -> None:
    content = json.loads((FOLDER / "full.json").read_text())
    for topic in (OTHER, FOOD):
        grammars = content["openers"][topic]
        for key in ("forms", "words"):
            elements = [element for split in SPLITS for element in grammars[split][key]]
            assert len(set(elements)) == len(elements)


@pytest.mark.parametrize("name", ["full", "small"])
def test_no_opener_names_a_concept_that_is_added(name: str) -> None:
    pools = Pools.load(name)
    concepts = [concept.removesuffix("s") for split in SPLITS for concept in pools.concepts(split)]
    named = re.compile(rf"\b({'|'.join(concepts)})s?\b", re.IGNORECASE)
    assert [text for split in SPLITS for text in pools.openers(split, OTHER) if named.search(text)] == []


def test_small_texts_are_written_in_the_embedded_vocabulary() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    for bank, texts in Pools.load("small").bank_texts.items():
        joined = " ".join(re.sub(r"\{\w+\}", "no", text) for split in SPLITS for text in texts[split])
        assert len(tokenizer(joined)["input_ids"]) <= 1.2 * len(re.findall(r"\w+|[^\w\s]", joined)), bank


@given(train=st.lists(WORDS, max_size=4), held_out=st.lists(WORDS, max_size=4))
def test_an_overlap_is_refused_and_nothing_else_is(train: list[str], held_out: list[str]) -> None:
    texts: dict[Split, list[str]] = {"train": train, "held_out": held_out}
    plain = [{" ".join(text.split()).lower() for text in members} for members in texts.values()]
    if plain[0] & plain[1]:
        with pytest.raises(UsageError, match=r"words: .* is both in train and in held_out"):
            check_disjoint("words", texts)
    else:
        check_disjoint("words", texts)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        (("openers", OTHER, "held_out", "words"), "openers, other, words: 'the tides'"),
        (("openers", OTHER, "validation", "forms"), "openers, other, forms"),
        (("concepts", "held_out"), "concepts: 'oceans'"),
        (("sentences", "held_out", "forms"), "sentences, forms"),
        (("banks", "explicit", "validation"), "banks, explicit"),
        (("banks", "keyed-vague", "words", "held_out"), "banks, keyed-vague, words"),
    ],
)
def test_pools_that_overlap_are_refused_with_the_factor(place: tuple[str, ...], complaint: str) -> None:
    content = json.loads((FOLDER / "full.json").read_text())
    held, trained = content, content
    for key in place[:-1]:
        held = held[key]
        trained = trained["train" if key in SPLITS else key]
    last = place[-1]
    held[last] = [*held[last], trained["train" if last in SPLITS else last][0]]
    with pytest.raises(UsageError, match=complaint):
        Pools.from_dict(content)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"openers": None}, "an object must stand"),
        ({"answers": {"train": [[" a"]], "validation": [], "held_out": []}}, "not a list of pairs"),
        ({"answers": {"train": [[" a", " b"]], "validation": [[" c", " d"]], "held_out": [[" e", " A"]]}}, "' A'"),
        ({"concepts": {"train": ["a"], "held_out": ["b"]}}, "missing keys"),
        ({"forms": {}}, "unknown forms 'keyed'"),
        ({"extra": 1}, "unknown keys"),
    ],
)
def test_malformed_pools_are_refused(change: dict[str, object], complaint: str) -> None:
    content = json.loads((FOLDER / "full.json").read_text())
    with pytest.raises(UsageError, match=complaint):
        Pools.from_dict({**content, **change})


def test_unknown_names_are_errors() -> None:
    pools = Pools.load("small")
    for call in (lambda: pools.openers("train", "weather"), lambda: pools.wordings("loud", "train")):
        with pytest.raises(UnknownNameError):
            call()
    with pytest.raises(UnknownNameError, match="full, small"):
        Pools.load("tiny")


def test_every_recipe_finds_its_texts_in_both_sets() -> None:
    for name in recipe_names():
        recipe = Recipe.load(name)
        for fitted in (recipe, recipe.adapted(64, small=True)):
            for split in SPLITS:
                assert fitted.wordings(split)
                assert all(fitted.openers(split, topic) for topic in fitted.topics)
