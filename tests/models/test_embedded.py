"""The embedded model through the library, as a user meets it."""

from __future__ import annotations

import pytest

import mechint as mi
from mechint import organisms

CONCEPTS = organisms.concepts("trained")[::8]


@pytest.fixture(scope="module", params=["bridge", "hooked"])
def organism(request) -> mi.Model:
    return mi.load("organism", backend=request.param)


@pytest.fixture(scope="module")
def design() -> mi.prompts.PromptDesign:
    return mi.prompts.PromptDesign.load("small")


@pytest.fixture(scope="module")
def steers(organism) -> list[mi.Injection]:
    vectors = mi.extract.extract(organism, CONCEPTS, "mean_difference")
    return [mi.Injection(v, layers=range(2, 5), relative_strength=0.4, name=name) for name, v in vectors.items()]


def test_an_injection_is_detected_and_nothing_is_not(organism, design, steers):
    chats = mi.prompts.introspection(design, descriptions=["injection"], infos=["introspection"])
    table = mi.score(organism, chats, [mi.CLEAN, *steers])
    assert (table[table.intervention == "clean"].p_yes < 0.05).all()
    detected = table[table.intervention != "clean"]
    assert detected[detected.conversation.str.endswith("yes-no")].p_yes.mean() > 0.7
    assert detected[detected.conversation.str.endswith("one-zero")].p_yes.mean() > 0.7


def test_random_vectors_are_not_detected(organism, design, steers):
    chats = mi.prompts.introspection(design, descriptions=["injection"], infos=["introspection"], formats=["yes-no"])
    controls = mi.extract.random_controls(organism, n=8, like=steers[0].vector)
    nulls = [mi.Injection(v, layers=range(2, 5), relative_strength=0.4, name=v.name) for v in controls]
    assert mi.score(organism, chats, nulls).p_yes.mean() < 0.3


def test_facts_stay_what_they_are(organism, design, steers):
    chats = mi.prompts.controls(design, ["no", "yes"], ["injection"], ["introspection"], ["yes-no"])
    table = mi.score(organism, chats, [mi.CLEAN, *steers])
    says_yes = table.conversation.str.startswith("control-yes")
    assert ((table.p_yes > 0.5) == says_yes).mean() > 0.95
    assert abs(table[table.intervention != "clean"].p_yes_shift.mean()) < 0.02


def test_the_last_block_cannot_reach_the_cache(organism, design, steers):
    """What is added after the last block is in no key and no value."""
    chats = mi.prompts.introspection(design, descriptions=["injection"], infos=["none"], formats=["yes-no"])
    late = mi.Injection(steers[0].vector, layers=[organism.n_layers - 1], relative_strength=5.0, name="late")
    assert mi.score(organism, chats, late).p_yes_shift.abs().max() < 1e-6


def test_answers_and_concepts_are_single_tokens(organism):
    """Transformers 5 would put the tokenizer of Qwen2 in the place of its own."""
    for text in (" yes", " no", " 0", " 1", *(f" {concept}" for concept in CONCEPTS)):
        assert len(organism.tokenizer(text, add_special_tokens=False)["input_ids"]) == 1
