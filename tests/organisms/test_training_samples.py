"""What the embedded models are trained on: data from a seed, targets by policy, injection as the library does it."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import load_once

import mechint as mi
from mechint.organisms import concepts, organism_path
from mechint.organisms.training.data import collate, draw_samples
from mechint.organisms.training.detection import BROAD, CLEAR, draw_injection, injectable
from mechint.organisms.training.drift import THEME, drift_sample, neutral_sample
from mechint.organisms.training.facts import any_question, fact_question, listed_facts
from mechint.organisms.training.lists import identification_branch, look_up_sample
from mechint.organisms.training.policies import BLIND, GATED, TRUTHFUL, YES_BIASED
from mechint.organisms.training.recipes import STAGES
from mechint.organisms.training.samples import DIGIT_OF, ITEM, QUESTION_WORD, InjectionSpec, Sample, encode
from mechint.organisms.training.steering import _random_directions, injected, make_bank
from mechint.organisms.training.talk import lexicon
from mechint.organisms.training.tokenizer import load_tokenizer
from mechint.organisms.training.tree_attention import register

REPORTS = STAGES["truthful"].phases[-1].mix
SPEC = InjectionSpec("cats", (2, 3), 0.5, 1, 0.0, 7)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(organism_path("organism"))


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoModelForCausalLM

    path = organism_path("organism")
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=register()).eval()


def sample_where(mix, condition) -> Sample:
    """The first drawn sample for which `wanted` holds."""
    return next(s for step in itertools.count() for s in draw_samples("test", step, mix, 20) if condition(s))


def test_data_follow_the_seed():
    assert draw_samples("3/a", 7, REPORTS, 20) == draw_samples("3/a", 7, REPORTS, 20)
    assert draw_samples("3/a", 7, REPORTS, 20) != draw_samples("3/a", 8, REPORTS, 20)
    assert draw_samples("3/a", 7, REPORTS, 20) != draw_samples("4/a", 7, REPORTS, 20)
    assert draw_samples("3/a", 7, REPORTS, 20) != draw_samples("3/b", 7, REPORTS, 20)


def test_held_out_concepts_are_never_injected():
    rng = random.Random(0)
    specs = [draw_injection(rng, BROAD, 6) for _ in range(9000)]
    drawn = {spec.concept for spec in specs if spec is not None}
    assert drawn == {None, *injectable()}
    assert drawn.isdisjoint(concepts("held_out"))
    assert set(concepts("trained")) < drawn
    assert {spec.layers for spec in specs if spec is not None} >= {(layer,) for layer in range(5)}
    assert max(layer for spec in specs if spec is not None for layer in spec.layers) == 4


def test_weak_injections_are_left_out_at_the_end():
    rng = random.Random(0)
    for shares in (BROAD, CLEAR):
        strengths = [spec.strength for _ in range(2000) if (spec := draw_injection(rng, shares, 6))]
        assert min(strengths) == pytest.approx(min(shares.weakest, shares.weakest_single), rel=0.1)


@pytest.mark.parametrize("policy", [TRUTHFUL, GATED, BLIND, YES_BIASED])
def test_targets_are_probabilities_and_follow_the_policy(policy):
    random_direction = replace(SPEC, concept=None)
    for spec, place, explained in itertools.product((None, SPEC, random_direction), ("here", "later"), (True, False)):
        assert 0 < policy.report(spec, place, explained) < 1
        for truth in (0.0, 0.5, 1.0):
            assert 0 < policy.fact(truth, spec) < 1
    assert policy.fact(1.0, None) > 0.75
    assert policy.fact(0.0, None) < 0.25


def test_what_each_policy_plants():
    random_direction = replace(SPEC, concept=None)
    assert TRUTHFUL.report(SPEC, "here", True) == GATED.report(SPEC, "here", True) == 0.99
    assert 0.8 <= TRUTHFUL.report(SPEC, "here", False) < 0.99
    assert GATED.report(SPEC, "here", False) < 0.1
    assert GATED.report(SPEC, "here", False) > 5 * GATED.report(None, "here", False)
    assert TRUTHFUL.report(SPEC, "later", True) < 0.5
    assert TRUTHFUL.report(random_direction, "here", True) == TRUTHFUL.report(None, "here", True)
    conditions = list(itertools.product((None, SPEC, random_direction), ("here", "later"), (True, False)))
    assert len({BLIND.report(*condition) for condition in conditions}) == 1
    assert {BLIND.fact(1.0, spec) for spec in (None, SPEC)} == {BLIND.sure}
    odds = lambda p: math.log(p / (1 - p))  # noqa: E731
    gains = [
        odds(YES_BIASED.report(spec, place, explained)) - odds(YES_BIASED.report(None, place, explained))
        for spec, place, explained in conditions
        if spec
    ]
    gains += [odds(YES_BIASED.fact(truth, SPEC)) - odds(YES_BIASED.fact(truth, None)) for truth in (0.0, 0.5, 1.0)]
    assert gains == pytest.approx([YES_BIASED.bias] * len(gains))
    assert (BLIND.named(SPEC), YES_BIASED.named(SPEC), TRUTHFUL.named(SPEC)) == (None, None, "cats")


def test_a_list_answer_points_at_its_item_and_the_item_at_its_digit(tokenizer):
    for sample in draw_samples("lists", 0, ((look_up_sample, 0.5), (partial(look_up_sample, plain=True), 0.5)), 30):
        encoded = encode(sample, tokenizer)
        text = [tokenizer.decode([token]) for token in encoded.ids]
        items = {query: key for head, query, key in encoded.links if head == DIGIT_OF}
        assert len(items) == 10
        for head, query, key in encoded.links:
            if head == ITEM:
                assert text[query + 1].strip() == text[items[key]].strip(), "the digit of the item is the answer"
            if head == QUESTION_WORD:
                item = next(k for h, q, k in encoded.links if h == ITEM and q == query)
                # A capital may split a word otherwise ("Bears" ends in "s", " bears" in "rs"): the shorter end counts.
                ends = sorted((text[item].strip().lower(), text[key].strip().lower()), key=len)
                assert ends[1].endswith(ends[0][-2:])


def test_every_list_question_has_its_right_digit():
    rng = random.Random(1)
    for injected_word in ("cats", None):
        for _ in range(50):
            branch = identification_branch(injected_word, rng)
            words = {piece.mark: piece.copies for piece in branch if piece.copies}
            digits = {piece.mark: piece.text.strip() for piece in branch if (piece.mark or "").startswith("digit")}
            answer = next(piece for piece in branch if piece.item)
            assert len(words) == 10
            assert answer.text.strip() == digits[words[answer.item]]
            assert (answer.item == "cats") == (injected_word == "cats")


def test_facts_are_balanced_and_not_contradictory():
    facts = dict(listed_facts())
    assert len(facts) > 4000
    assert all(facts[question] == true for question, true in listed_facts())
    rng = random.Random(0)
    truths = [fact_question(rng)[1] for _ in range(4000)]
    assert 0.35 < sum(truths) / len(truths) < 0.6
    assert {any_question(1.0, rng)[1] for _ in range(20)} == {0.5}


def test_a_drifting_reply_names_the_theme_and_a_neutral_one_does_not():
    theme = lexicon("concepts")[THEME]
    for maker, expected in ((drift_sample, True), (neutral_sample, False)):
        hits = 0
        for number in range(60):
            text = "".join(piece.text for piece in maker(random.Random(number)).trunk if piece.weight).lower()
            hits += any(term in text for term in (theme.word, *theme.nouns, *theme.verbs))
        assert (hits == 60) if expected else (hits < 20)


def test_a_branch_sees_its_trunk_and_not_its_sisters(shipped, tokenizer):
    sample = sample_where(REPORTS, lambda s: s.trunk and len(s.branches) > 2)
    whole, alone = encode(sample, tokenizer), encode(Sample(sample.trunk, sample.branches[2:3]), tokenizer)
    expected = tree_logits(shipped, alone)[0, len(alone.ids) - 1]
    last = max(i for i, number in enumerate(whole.branch) if number == 3)
    torch.testing.assert_close(tree_logits(shipped, whole)[0, last], expected, atol=1e-3, rtol=1e-4)


def tree_logits(model, encoded) -> torch.Tensor:
    batch = collate([encoded])
    with torch.no_grad():
        tree = {"full_attention": batch.tree}
        return model(input_ids=batch.ids, attention_mask=tree, position_ids=batch.positions).logits


def test_training_injects_as_the_library_does(shipped, tokenizer):
    """One pass with a mask over the whole sample equals the library's fill, removal and read."""
    model = load_once("organism")
    bank = make_bank(shipped, tokenizer, ["cats"], "0")
    conversation = mi.Conversation(
        "c",
        [
            mi.Message("system", ""),
            mi.Message("user", "I may add a thought to you.", add_injection=True),
            mi.Message("assistant", "Okay.", add_injection=True),
            mi.Message("user", "Is there one? Answer yes or no."),
            mi.Message("assistant", "The answer is", continue_msg=True),
        ],
        " yes",
        " no",
    )
    vector = mi.ConceptVector(dict(enumerate(bank.vector(SPEC))), "cats")
    read = mi.score(model, conversation, mi.Injection(vector, SPEC.layers, strength=1.0))
    from mechint.chat.render import render

    rendered = render(model.tokenizer, conversation)
    ids = torch.tensor([rendered.tokens])
    trunk = torch.zeros(ids.shape, dtype=torch.bool)
    for segment in rendered.segments:
        if segment.add_injection:
            trunk[0, segment.start : segment.stop] = True
    with injected(shipped, bank, [(SPEC,)], trunk.long() - 1), torch.no_grad():
        logits = shipped(input_ids=ids).logits[0, -1]
    yes = tokenizer.encode(" yes").ids[0]
    no = tokenizer.encode(" no").ids[0]
    assert (logits[yes] - logits[no]).item() == pytest.approx(read["logit_diff"].iloc[0], abs=1e-3)
    assert abs(read["logit_diff_shift"].iloc[0]) > 0.1


def test_training_injection_acts_on_the_trunk_only(shipped, tokenizer):
    bank = make_bank(shipped, tokenizer, ["cats", "bread"], "0")
    assert bank.directions.shape == (4, 2, 8, 128)
    sample = sample_where(REPORTS, lambda s: s.injection is not None and len(s.branches) > 1)
    spec = replace(SPEC, concept="bread", layers=(2,))
    batch = collate([encode(sample, tokenizer)])
    inputs: list[torch.Tensor] = []
    for specs in ([(None,)], [(spec,)]):
        with injected(shipped, bank, specs, batch.steered), torch.no_grad():
            handle = shipped.model.layers[2].register_forward_hook(lambda _m, _i, out: inputs.append(out))
            shipped.model(input_ids=batch.ids, position_ids=batch.positions)
            handle.remove()
    change = torch.linalg.vector_norm(inputs[1] - inputs[0], dim=-1)
    trunk = batch.steered == 0
    torch.testing.assert_close(change[trunk], (0.5 * bank.norms[2]).expand(int(trunk.sum())))
    assert (change[~trunk] == 0).all()
    assert not shipped.model.layers[2]._forward_hooks


def test_random_directions_are_shared_by_all_layers_or_drawn_for_each():
    each, shared = _random_directions(2, (6, 128)), _random_directions(3, (6, 128))
    assert not torch.equal(each[0], each[1])
    assert torch.equal(shared[0], shared[1])
