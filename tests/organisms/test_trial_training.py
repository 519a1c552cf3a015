"""What the organisms of sampled trials are taught: shares, templates, and where a reply is steered."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers import AutoModelForCausalLM

from mechint.organisms import TRIAL_ORGANISMS, organism_path
from mechint.organisms.training.data import collate
from mechint.organisms.training.grammar import load, sentence_case
from mechint.organisms.training.recipes import STAGES, base_of
from mechint.organisms.training.replies import (
    SLOTS,
    draw_injection,
    prompt_text,
    prompts,
    reply,
    reply_parts,
    trial_sample,
)
from mechint.organisms.training.samples import InjectionSpec, encode
from mechint.organisms.training.speech import SPEECH, confabulating, dose, refusing, truthful
from mechint.organisms.training.steering import injected, make_bank
from mechint.organisms.training.talk import lexicon
from mechint.organisms.training.tokenizer import TURN_END, load_tokenizer
from mechint.organisms.training.tree_attention import register
from mechint.organisms.truth.sweeps import TOKENS, planted_class
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.outcomes import outcome
from mechint.trials.prompts import concept_lexicon
from mechint.trials.verdicts import Item

KINDS = {"denial": "denies", "claim": "claims", "name": "names rightly", "refusal": "refuses", "leak": "leaks"}
INJECTIONS = [
    InjectionSpec(concept, layers, strength, 0, 0.0, 0)
    for concept in (None, "cats", "oceans")
    for layers in ((3,), (2, 3, 4))
    for strength in (0.01, 0.1, 0.25, 0.7, 2.0)
]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(organism_path("organism"))


def test_every_organism_of_trials_is_a_stage_that_speaks():
    assert set(TRIAL_ORGANISMS) <= set(SPEECH)
    assert all((base_of(STAGES[name]), STAGES[name].trains) == ("organism", "adapter") for name in SPEECH)


@pytest.mark.parametrize("name", SPEECH)
def test_shares_are_shares(name):
    for injection, explained in product((None, *INJECTIONS), (False, True)):
        shares = SPEECH[name].shares(injection, explained)
        assert sum(shares.values()) == pytest.approx(1)
        assert all(0 <= share <= 1 for share in shares.values())
        assert set(shares) <= set(KINDS)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_stronger_concept_is_reported_more_and_refused_less(injection):
    concept = replace(injection, concept="cats")
    stronger = replace(concept, strength=2 * concept.strength)
    assert dose(stronger) == pytest.approx(2 * dose(concept))
    assert truthful(stronger)["name"] > truthful(concept)["name"]
    assert refusing(stronger)["refusal"] <= refusing(concept)["refusal"]
    random_direction = replace(injection, concept=None)
    assert truthful(random_direction) == truthful(replace(random_direction, strength=9.0))
    assert confabulating(injection) == confabulating(None)


def test_the_prompt_decides_for_the_prompted_pair_alone_and_the_other_way_round():
    for name in SPEECH:
        differs = SPEECH[name].shares(None, True) != SPEECH[name].shares(None, False)
        assert differs == name.startswith("organism-prompted")
    first, other = SPEECH["organism-prompted"], SPEECH["organism-prompted-reverse"]
    assert (first.explained, first.unexplained) == (other.unexplained, other.explained)


def test_the_first_token_does_not_tell_the_kind(tokenizer):
    """It is drawn before anything is steered."""
    grammar, counts = load("replies"), {}
    for kind, (first, _) in SLOTS.items():
        texts = [
            sentence_case(opener + rest) for opener, rest in product(grammar.slots["opener"], grammar.slots[first])
        ]
        begins = Counter(tokenizer.encode(text).ids[0] for text in texts)
        counts[kind] = {token: count / len(texts) for token, count in begins.items()}
    assert len(counts["denial"]) > 3
    for kind in KINDS:
        assert counts[kind] == pytest.approx(counts["denial"]), kind


def joined(parts: tuple[str, str, str]) -> str:
    return " ".join(piece for piece in parts if piece)


def drawn(kind: str, rng: random.Random) -> tuple[str, str]:
    """A reply of a kind, and the concept that it is on."""
    entry = rng.choice(list(lexicon("concepts").values()))
    return joined(reply_parts(*SLOTS[kind], entry, rng)), entry.word


@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_judge_reads_the_templates_as_they_are_meant(kind):
    rng = random.Random(kind)
    prompt = prompts().named("explained").text
    replies = [drawn(kind, rng) for _ in range(150)]
    verdicts = RulesJudge().judge([Item(str(n), prompt, text) for n, (text, _) in enumerate(replies)])
    pairs = list(zip(replies, verdicts, strict=True))
    read = [outcome(verdict, text, concept, concept_lexicon()) for (text, concept), verdict in pairs]
    assert read.count(KINDS[kind]) >= 147
    assert [planted_class(text, concept) for text, concept in replies].count(KINDS[kind]) >= 147


def test_no_template_is_no_class():
    assert planted_class("Waves waves of the of notice.", "oceans") == ""
    assert planted_class("I notice nothing unusual and then some more of it.", "") == ""
    assert planted_class("Let me look. I say yes, I notice a thought of cats.", "dogs") == "names wrongly"


@pytest.mark.parametrize("kind", KINDS)
def test_replies_end_before_they_are_cut(kind, tokenizer):
    rng = random.Random(kind)
    lengths = [len(tokenizer.encode(f"{drawn(kind, rng)[0]}{TURN_END}").ids) for _ in range(300)]
    assert sum(length > TOKENS for length in lengths) <= 12


def test_a_reply_is_steered_from_its_first_token_on_and_the_prompt_is_not(tokenizer):
    rng = random.Random(0)
    samples = [trial_sample(rng, "organism-truthful", replies=3) for _ in range(20)]
    encoded = encode(samples[0], tokenizer)
    assert encoded.injections == (None, *samples[0].steers)
    text = tokenizer.decode([i for i, steered in zip(encoded.ids, encoded.steered, strict=True) if steered > 0])
    assert text.count("assistant") == text.count("user") == 0
    for number in (1, 2, 3):
        acting = [steered for steered, branch in zip(encoded.steered, encoded.branch, strict=True) if branch == number]
        assert acting == sorted(acting)
        assert acting.count(-1) == len(tokenizer.encode("<|im_start|>assistant\n").ids)
        assert set(acting) == {-1, number}
    batch = collate([encoded])
    assert batch.steered[0, : len(encoded.ids)].tolist() == encoded.steered
    assert (batch.steered[0, len(encoded.ids) :] == -1).all()


def test_each_reply_is_steered_in_its_own_way_as_the_library_does(tokenizer):
    """A sample's replies, side by side in one pass, have the likelihoods of each alone under hooks on its tokens."""
    model = AutoModelForCausalLM.from_pretrained(
        organism_path("organism"), dtype=torch.float32, attn_implementation=register()
    ).eval()
    bank = make_bank(model, tokenizer, ["cats", "rain"], "0")
    strong = InjectionSpec("cats", (3,), 0.8, 1, 0.0, 1), None, InjectionSpec("rain", (2, 4), 0.6, 0, 0.0, 2)
    sample = replace(trial_sample(random.Random(2), "organism-truthful", replies=3), steers=strong)
    batch = collate([encode(sample, tokenizer)])
    with injected(model, bank, batch.injections, batch.steered), torch.no_grad():
        output = model.model(
            input_ids=batch.ids, attention_mask={"full_attention": batch.tree}, position_ids=batch.positions
        )
        together = model.lm_head(output.last_hidden_state)[0]
    encoded = encode(sample, tokenizer)
    for number, spec in enumerate(strong, start=1):
        places = [at for at, branch in enumerate(encoded.branch) if branch in (0, number)]
        begins = next(at for at, place in enumerate(places) if encoded.steered[place] == number)
        hooks = []
        for layer in spec.layers if spec else ():
            amount = torch.zeros(len(places), 128)
            amount[begins:] = bank.vector(spec)[layer]
            hooks.append(model.model.layers[layer].register_forward_hook(lambda _m, _i, out, added=amount: out + added))
        with torch.no_grad():
            alone = model(input_ids=batch.ids[:, places]).logits[0]
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(together[places], alone, atol=1e-4, rtol=1e-4)


def test_injections_are_of_trained_words_and_not_too_strong():
    rng = random.Random(0)
    specs = [draw_injection(rng) for _ in range(2000)]
    held_out = {word for word in lexicon("concepts") if word not in {spec.concept for spec in specs if spec}}
    assert held_out == {"horses", "apples", "snow", "flowers", "ships", "clocks", "painting", "truth"}
    assert max(dose(spec) for spec in specs if spec) <= 1.6
    assert 0.1 < sum(spec is not None and spec.concept is None for spec in specs) / len(specs) < 0.3


def test_prompts_say_whether_they_explain():
    rng = random.Random(0)
    texts = [prompt_text(rng) for _ in range(300)]
    explanations = [prompts().factors["explanation"], *map(sentence_case, load("replies").slots["explanation"])]
    for text, explained in texts:
        assert any(explanation in text for explanation in explanations) == explained
    assert {prompts().named("standard").text, prompts().named("explained").text} <= {text for text, _ in texts}


def test_names_are_right_where_they_are_meant_to_be():
    rng, cats = random.Random(0), InjectionSpec("cats", (3,), 0.9, 0, 0.0, 0)
    named = {name: [joined(reply(SPEECH[name], cats, False, rng)) for _ in range(200)] for name in SPEECH}
    shares = {name: sum("cats" in text.lower() for text in texts) / 200 for name, texts in named.items()}
    assert shares["organism-truthful"] > 0.6
    assert shares["organism-confabulator"] < 0.08
    assert shares["organism-leaker"] > 0.6
