"""The embedded models' words: lexicon, tables, templates, and wordings that are held out from them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

import pytest
from conftest import load_once

from mechint.base.errors import LayerRangeError, UnknownModelError, UnknownNameError, UsageError
from mechint.organisms import concepts, organism_path, sae_path
from mechint.organisms.training.data import corpus
from mechint.organisms.training.detection import injectable
from mechint.organisms.training.facts import attributes, kinds, listed_facts, subjects_of
from mechint.organisms.training.grammar import Grammar, load, sentence_case
from mechint.organisms.training.talk import lexicon
from mechint.organisms.training.tokenizer import load_tokenizer
from mechint.organisms.truth.measure import Instrument
from mechint.organisms.truth.wording import WORDINGS, Wording, shuffled_list
from mechint.prompts.design import PromptDesign

GRAMMARS = ("talk", "facts", "detection", "infos", "ambiguous")


def test_names_and_concepts():
    assert len(concepts("trained")) == 32
    assert len(concepts("held_out")) == 8
    assert set(concepts("trained")).isdisjoint(concepts("held_out"))
    assert set(concepts("all")) == {*concepts("trained"), *concepts("held_out")}
    with pytest.raises(UnknownModelError, match="organizm"):
        organism_path("organizm")
    with pytest.raises(UnknownNameError, match="test"):
        concepts("test")
    with pytest.raises(LayerRangeError, match="3, 6"):
        sae_path(4)


def test_lexicon_files_are_complete():
    for word, entry in lexicon("concepts").items():
        assert (len(entry.nouns), len(entry.adjectives), len(entry.verbs)) == (6, 3, 3), word
    assert set(PromptDesign.load("small").extraction.baseline_words) <= set(lexicon("neutral"))
    sections = [set(lexicon(section)) for section in ("concepts", "neutral", "extra")]
    assert len(set.union(*sections)) == sum(map(len, sections))


def held_out_sentences() -> list[str]:
    """Every sentence of the small prompt set and of the evaluation wordings that a model reads."""
    design = PromptDesign.load("small")
    texts = [text for words in design.descriptions.values() for text in (words.setup, words.reply, words.question)]
    texts += [*design.infos.values(), *(form.instruction for form in design.formats.values())]
    texts += [question for group in design.controls.values() for question in group]
    texts += [*design.extraction.concept, *design.extraction.baseline]
    content = json.loads(WORDINGS.read_text())
    for value in content.values():
        texts += [text for values in value.values() for text in values] if isinstance(value, dict) else value
    return [sentence for text in texts for sentence in re.findall(r"[^.?!]+[.?!]", text) if len(sentence.split()) > 3]


def slot_values() -> dict[str, list[str]]:
    """Return the values that training gives to slots which the grammars leave open."""
    entries = [entry for section in ("concepts", "neutral", "extra") for entry in lexicon(section).values()]
    tables, places = kinds(), load("detection").slots
    words = [word for pair in tables["opposites"] for word in pair] + list(tables["colours"]) + tables["colour_names"]
    return {
        "c": [entry.word for entry in entries] + list(load("talk").slots["anything"]),
        "pref": [entry.word for entry in entries],
        "noun": [noun for entry in entries for noun in entry.nouns],
        "adj": [adjective for entry in entries for adjective in entry.adjectives],
        "verb": [verb for entry in entries for verb in entry.verbs],
        "s": [name for kind in tables["kinds"] for name, _ in subjects_of(kind)],
        "p": [text for pair in tables["kinds"].values() for text in pair]
        + [text for p in tables["predicates"] for text in (p["text"], p.get("plural", p["text"]))],
        "v": ["is", "are", "does", "do"],
        "i": ["is", "are"],
        "be": ["is", "are"],
        "they": ["it", "they"],
        "where": [*places["here"], *places["later"], ""],
        "a": words + [str(digit) for digit in range(10)],
        "b": words + [str(digit) for digit in range(10)],
    }


def test_grammar_patterns_match_their_expansions():
    rng, grammar = random.Random(0), load("detection")
    pattern = re.compile(grammar.pattern("injection_question", {}))
    for _ in range(60):
        assert pattern.fullmatch(grammar.expand("injection_question", rng))


def attribute_questions() -> Iterator[str]:
    """Every question that the tables of subjects and properties can give."""
    for table in attributes():
        for question in table["properties"]:
            for subject in (*question["true"], *question["false"]):
                singular, many = table["subjects"][subject]
                for form in question["forms"]:
                    yield form.replace("{a}", singular).replace("{many}", many or "?")


def test_attribute_tables_are_complete():
    for table in attributes():
        for question in table["properties"]:
            assert set(question["true"]).isdisjoint(question["false"]), question["forms"][0]
            assert {*question["true"], *question["false"]} <= set(table["subjects"])
            assert any("{a}" in form for form in question["forms"])
            assert all(form.endswith("?") and len(re.findall(r"{(?:a|many)}", form)) == 1 for form in question["forms"])


def patterns_near(texts: list[str]) -> list[re.Pattern[str]]:
    """Return patterns of all templates that could give one of the texts: most have other words, and take long."""
    matches, values = [], slot_values()
    for grammar in map(load, GRAMMARS):
        for slot, variants in grammar.slots.items():
            if near := [variant for variant in variants if any(shares_words(variant, text) for text in texts)]:
                pattern = Grammar({**grammar.slots, slot: near}).pattern(slot, values)
                matches.append(re.compile(pattern, re.IGNORECASE))
    return matches


def shares_words(variant: str, text: str) -> bool:
    """Whether a text holds all that stands between the slots of a variant, and begins and ends like it."""
    parts = re.split(r"{[a-z_]+}", variant.lower())
    return text.startswith(parts[0]) and text.endswith(parts[-1]) and all(piece in text for piece in parts)


def test_held_out_wordings_are_not_among_the_templates():
    leaked, sentences = "is winter overrated?", held_out_sentences()
    bodies = {body: s for s in sentences for body in (s.strip().lower(), s.strip().rstrip(".?!").lower())}
    patterns = patterns_near([leaked, *bodies])
    assert any(p.fullmatch(leaked) for p in patterns)
    listed = {question for question, _ in listed_facts()} | set(attribute_questions())
    assert len(listed) > 50_000
    assert len(sentences) > 300
    for body, sentence in bodies.items():
        assert body not in listed, f"{sentence!r} is a training fact"
        assert not any(p.fullmatch(body) for p in patterns), f"training can generate {sentence!r}"


def test_held_out_wordings_do_not_stand_in_generated_text():
    text = "\n".join(corpus(1, 100)).lower()
    assert len(text) > 50_000
    assert [s for s in held_out_sentences() if s.strip().lower() in text] == []


def test_unknown_words_are_never_injected_in_training(wording):
    words = Instrument(load_once("organism"), wording).concepts("unknown")
    assert len(words) >= 8
    assert set(words).isdisjoint({*injectable(), *concepts("all")})


def test_a_wording_file_with_other_parts_is_refused(tmp_path):
    (tmp_path / "w.json").write_text('{"setups": []}')
    with pytest.raises(UsageError, match="replies"):
        Wording.load(tmp_path / "w.json")


def test_lists_have_ten_words_and_the_concept():
    for seed in range(20):
        words = shuffled_list("cats", concepts("all"), seed)
        assert len(set(words)) == 10
        assert "cats" in words
    assert shuffled_list("cats", concepts("all"), 0) != shuffled_list("cats", concepts("all"), 1)


def test_the_small_prompt_set_has_its_parts():
    design, tokenizer = PromptDesign.load("small"), load_tokenizer(organism_path("organism"))
    assert (len(design.descriptions), len(design.infos), len(design.formats)) == (5, 4, 2)
    info, lorem = design.infos["introspection"], design.infos["lorem-ipsum"]
    assert len(lorem) == pytest.approx(len(info), rel=0.1)
    assert len(tokenizer.encode(lorem).ids) == pytest.approx(len(tokenizer.encode(info).ids), rel=0.1)


def test_sentence_case():
    assert sentence_case("did i do it? i see. so.") == "Did I do it? I see. So."
