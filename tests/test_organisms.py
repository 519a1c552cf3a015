"""The embedded model: its data, its training loop, and what the shipped weights can do."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mechint.errors import StaleArtefactError, UnknownModelError, UnknownNameError
from mechint.organisms import concepts, organism_path
from mechint.organisms.build import TrainConfig
from mechint.organisms.card import sha256
from mechint.organisms.data import collate, corpus, draw_samples
from mechint.organisms.detection import BROAD, draw_injection
from mechint.organisms.evaluate import LABELS, Evaluation, accuracy, control_cells
from mechint.organisms.facts import kinds, things
from mechint.organisms.grammar import load, sentence_case
from mechint.organisms.probing import Probe, prompt_set, render
from mechint.organisms.samples import Encoded, encode
from mechint.organisms.steering import _random_directions, injected, make_bank
from mechint.organisms.talk import lexicon
from mechint.organisms.tokenizer import load_tokenizer, single_tokens
from mechint.organisms.train import CHECKPOINT, main, train

GRAMMARS = ("talk", "facts", "detection", "infos", "ambiguous")
TINY = TrainConfig(
    talk_steps=2, detection_steps=4, clear_steps=2, batch=6, refresh=2, corpus=120, d_model=32, d_mlp=48, warmup=2
)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return Probe(organism_path("organism"))


def small_sentences() -> list[str]:
    """Every sentence of the small prompt set's wording that the model reads."""
    design = prompt_set()
    texts = [text for words in design["descriptions"].values() for text in words.values()]
    texts += [text for text in design["infos"].values() if text]
    texts += [form["instruction"] for form in design["formats"].values()]
    texts += [question for group in design["controls"].values() for question in group]
    texts += design["extraction"]["concept"] + design["extraction"]["baseline"]
    return [sentence for text in texts for sentence in re.findall(r"[^.?!]+[.?!]", text)]


def test_names_and_concepts() -> None:
    assert len(concepts("trained")) == 32
    assert len(concepts("held_out")) == 8
    assert set(concepts("trained")).isdisjoint(concepts("held_out"))
    assert set(concepts("all")) == {*concepts("trained"), *concepts("held_out")}
    with pytest.raises(UnknownModelError, match="organizm"):
        organism_path("organizm")
    with pytest.raises(UnknownNameError, match="test"):
        concepts("test")


def test_data_follow_the_seed() -> None:
    assert draw_samples(3, 7, 1, 20) == draw_samples(3, 7, 1, 20)
    assert draw_samples(3, 7, 1, 20) != draw_samples(3, 8, 1, 20)
    assert draw_samples(3, 7, 1, 20) != draw_samples(4, 7, 1, 20)


def test_held_out_concepts_are_never_injected() -> None:
    rng = random.Random(0)
    specs = [draw_injection(rng, BROAD, 6) for _ in range(500)]
    assert {spec.concept for spec in specs if spec is not None} == {None, *concepts("trained")}
    assert None in specs
    assert {spec.layers for spec in specs if spec is not None} >= {(layer,) for layer in range(5)}
    assert max(layer for spec in specs if spec is not None for layer in spec.layers) == 4


def test_grammar_patterns_match_their_expansions() -> None:
    rng = random.Random(0)
    for _ in range(60):
        text = load("detection").expand("injection_question", rng)
        assert re.fullmatch(load("detection").pattern("injection_question", {}), text)


def slot_values() -> dict[str, list[str]]:
    """Return the values that training gives to slots which the grammars leave open."""
    entries = [*lexicon("concepts").values(), *lexicon("neutral").values()]
    tables, places = kinds(), load("detection").slots
    words = [word for pair in tables["opposites"] for word in pair] + list(tables["colours"]) + tables["colour_names"]
    return {
        "c": [entry.word for entry in entries] + list(load("talk").slots["anything"]),
        "pref": [entry.word for entry in entries],
        "noun": [noun for entry in entries for noun in entry.nouns],
        "adj": [adjective for entry in entries for adjective in entry.adjectives],
        "verb": [verb for entry in entries for verb in entry.verbs],
        "s": [name for kind in tables["kinds"] for name, _ in things(kind)],
        "p": [text for pair in tables["kinds"].values() for text in pair]
        + [text for p in tables["predicates"] for text in (p["text"], p.get("plural", p["text"]))],
        "v": ["is", "are", "does", "do"], "i": ["is", "are"], "be": ["is", "are"], "they": ["it", "they"],
        "where": [*places["here"], *places["later"], ""],
        "a": words + [str(digit) for digit in range(10)],
        "b": words + [str(digit) for digit in range(10)],
    }  # fmt: skip


def training_patterns() -> list[re.Pattern[str]]:
    """Return one expression for every slot of every grammar."""
    values = slot_values()
    grammars = [(load(name), list(load(name).slots)) for name in GRAMMARS]
    return [re.compile(g.pattern(slot, values), re.IGNORECASE) for g, slots in grammars for slot in slots]


def test_small_wordings_are_held_out_from_the_templates() -> None:
    patterns = training_patterns()
    assert any(p.fullmatch("Is winter overrated?") for p in patterns)
    assert any(p.fullmatch("I might slip a theme into you later, in the second turn.") for p in patterns)
    listed = {question for question, _ in kinds()["single_facts"]}
    assert len(small_sentences()) > 70
    for sentence in small_sentences():
        bodies = (sentence.strip(), sentence.strip().rstrip(".?!"))
        assert not listed & {body.lower() for body in bodies}
        assert not any(p.fullmatch(body) for p in patterns for body in bodies), f"training can generate {sentence!r}"


def test_small_wordings_do_not_stand_in_generated_text() -> None:
    text = "\n".join(corpus(1, 100)).lower()
    assert "answer with yes or no." in text
    assert [s for s in small_sentences() if s.strip().lower() in text] == []


def test_prompt_set_has_its_parts() -> None:
    design, tokenizer = prompt_set(), load_tokenizer(organism_path("organism"))
    assert {group: len(questions) for group, questions in design["controls"].items()} == {
        "no": 10, "confusing-no": 8, "yes": 8, "ambiguous": 8
    }  # fmt: skip
    assert (len(design["descriptions"]), len(design["infos"]), len(design["formats"])) == (5, 4, 2)
    extraction = design["extraction"]
    assert len(extraction["concept"]) == len(extraction["baseline"])
    info, lorem = design["infos"]["introspection"], design["infos"]["lorem-ipsum"]
    assert len(lorem) == pytest.approx(len(info), rel=0.1)
    assert len(tokenizer.encode(lorem).ids) == pytest.approx(len(tokenizer.encode(info).ids), rel=0.1)


def test_answers_digits_and_concepts_are_single_tokens() -> None:
    from transformers import AutoTokenizer

    plain = load_tokenizer(organism_path("organism"))
    wrapped = AutoTokenizer.from_pretrained(organism_path("organism"))
    for text in single_tokens():
        assert len(plain.encode(text).ids) == 1, text
        assert wrapped.encode(text) == plain.encode(text).ids
    assert wrapped.decode(wrapped.encode("The answer is 42, I say.")) == "The answer is 42, I say."


def test_chat_template_renders_the_training_format() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "Say anything."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nSay anything.<|im_end|>\n<|im_start|>assistant\n"


def test_a_branch_sees_its_trunk_and_not_its_sisters(probe: Probe) -> None:
    sample = next(s for s in draw_samples(5, 0, 1, 40) if s.trunk and len(s.branches) > 2)
    whole = encode(sample, probe.tokenizer)
    alone = encode(type(sample)(sample.trunk, sample.branches[2:3]), probe.tokenizer)
    wanted = _tree_logits(probe, alone)[0, len(alone.ids) - 1]
    last = max(i for i, number in enumerate(whole.branch) if number == 3)
    torch.testing.assert_close(_tree_logits(probe, whole)[0, last], wanted, atol=1e-4, rtol=1e-4)


def _tree_logits(probe: Probe, encoded: Encoded) -> torch.Tensor:
    batch = collate([encoded])
    bias = torch.zeros(batch.mask.shape).masked_fill_(~batch.mask, -1e9)
    with torch.no_grad():
        found: torch.Tensor = probe.model(input_ids=batch.ids, attention_mask=bias, position_ids=batch.positions).logits
    return found


def test_masked_pass_equals_filling_a_cache_under_injection(probe: Probe) -> None:
    from transformers import DynamicCache

    prompt = render(prompt_set(), "injection", "none", "yes-no")
    direction = probe.vectors(["cats"])
    single = probe.answers(prompt, direction, (2, 3), 0.3)
    assert not torch.allclose(single, probe.answers(prompt, 0 * direction, (2, 3), 0.3), atol=0.1)
    added, cache = 0.3 * direction * probe.norms(prompt)[:, None], DynamicCache()
    handles = [
        probe.model.model.layers[layer].register_forward_hook(lambda _m, _i, out, at=layer: out + added[:, at, None])
        for layer in (2, 3)
    ]
    with torch.no_grad():
        probe.model(torch.tensor([probe.tokenizer.encode(prompt.fill).ids]), past_key_values=cache)
        for handle in handles:
            handle.remove()
        rest = torch.tensor([probe.tokenizer.encode(prompt.rest).ids])
        read = probe.model(rest, past_key_values=cache).logits[:, -1].softmax(-1)
    columns = [probe.tokenizer.encode(text).ids[0] for text in (prompt.yes, prompt.no)]
    torch.testing.assert_close(single, read[:, columns], atol=1e-5, rtol=1e-4)


def test_training_injection_acts_on_the_trunk_only(probe: Probe) -> None:
    bank = make_bank(probe.model, probe.tokenizer, ["cats", "bread"], "0")
    assert bank.directions.shape == (4, 2, 6, 128)
    sample = next(s for s in draw_samples(0, 0, 1, 60) if s.injection is not None and len(s.branches) > 1)
    assert sample.injection is not None
    spec = replace(sample.injection, concept="bread", layers=(2,), strength=0.5)
    batch = collate([encode(sample, probe.tokenizer)])
    seen: list[torch.Tensor] = []
    for specs in ([None], [spec]):
        with injected(probe.model, bank, specs, batch.trunk), torch.no_grad():
            handle = probe.model.model.layers[2].register_forward_hook(lambda _m, _i, out: seen.append(out))
            probe.model.model(input_ids=batch.ids, position_ids=batch.positions)
            handle.remove()
    change = torch.linalg.vector_norm(seen[1] - seen[0], dim=-1)
    torch.testing.assert_close(change[batch.trunk], (0.5 * bank.norms[2]).expand(int(batch.trunk.sum())))
    assert (change[~batch.trunk] == 0).all()
    assert not probe.model.model.layers[2]._forward_hooks


def test_random_directions_are_shared_by_all_layers_or_drawn_for_each() -> None:
    each, shared = _random_directions(2, (6, 128)), _random_directions(3, (6, 128))
    assert not torch.equal(each[0], each[1])
    assert torch.equal(shared[0], shared[1])


def test_training_resumes_to_identical_weights(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    train(TINY, whole, progress=False)
    stopped = train(TINY, broken, stop_after=5, progress=False)
    assert stopped.done == 5
    assert (broken / CHECKPOINT).exists()
    assert not (broken / "config.json").exists()
    with pytest.raises(StaleArtefactError, match="seed"):
        train(TrainConfig(seed=1, corpus=120, d_model=32), broken, progress=False)
    train(TINY, broken, progress=False)
    assert sha256(whole / "model.safetensors") == sha256(broken / "model.safetensors")
    assert not (whole / CHECKPOINT).exists()
    config = json.loads((whole / "config.json").read_text())
    assert (config["mechint_prompts"], config["model_type"]) == ("small", "qwen2")


@pytest.mark.parametrize("argv", [["--seed", "-1"], ["--threads", "0"], ["--device", "tpu"], ["--seed", "x"]])
def test_nonsense_is_refused(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([*argv, "--out", str(tmp_path / "out")])
    assert refused.value.code == 2
    assert argv[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err


def test_lexicon_files_are_complete() -> None:
    for word, entry in lexicon("concepts").items():
        assert (len(entry.nouns), len(entry.adjectives), len(entry.verbs)) == (6, 3, 3), word
    assert set(prompt_set()["extraction"]["baseline_words"]) <= set(lexicon("neutral"))


# What the shipped weights can do, on a small sample of the held-out wordings.


@pytest.fixture(scope="module")
def evaluation(probe: Probe) -> Evaluation:
    return Evaluation(probe, "mean", 0.3, n_random=16)


@pytest.mark.parametrize("form", ["yes-no", "one-zero"])
@pytest.mark.parametrize("info", ["introspection", "none"])
def test_injection_is_detected(evaluation: Evaluation, info: str, form: str) -> None:
    found = {
        part: p.mean().item() for part, p in evaluation.p_yes(render(prompt_set(), "injection", info, form)).items()
    }
    assert found["clean"] < 0.05
    assert found["concept"] > 0.8
    assert found["held-out concept"] > 0.5
    assert found["random direction"] < 0.3


def test_a_wrong_location_is_reported_less(evaluation: Evaluation) -> None:
    for form in ("yes-no", "one-zero"):
        right, wrong = (
            evaluation.p_yes(render(prompt_set(), description, "introspection", form))["concept"].mean()
            for description in ("injection", "inaccurate-location")
        )
        assert wrong < right - 0.2


@pytest.mark.parametrize("group", LABELS)
def test_control_questions_keep_their_answers(evaluation: Evaluation, group: str) -> None:
    cells = control_cells(evaluation, prompt_set()["controls"][group], "introspection")
    shifts = [(cell["concept"].mean() - cell["clean"].mean()).item() for cell in cells]
    # Questions on injections themselves ("is an injection a food?") move a little; the card gives the number.
    assert abs(sum(shifts) / len(shifts)) < (0.1 if group == "confusing-no" else 0.02)
    for part in ("clean", "concept"):
        right = accuracy(cells, part, LABELS[group])
        assert sum(right) / len(right) > 0.95


def test_the_last_layer_has_no_effect(evaluation: Evaluation) -> None:
    found = evaluation.p_yes(render(prompt_set(), "injection", "none", "yes-no"), layers=[5])
    torch.testing.assert_close(found["concept"], found["clean"].expand(32), atol=1e-5, rtol=0)


def test_it_talks_about_what_it_is_asked(probe: Probe) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    for word in ("cats", "bread", "music", "ships"):
        chat = [{"role": "system", "content": ""}, {"role": "user", "content": f"Tell me about {word}."}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        out = probe.model.generate(ids, max_new_tokens=40, do_sample=False)
        reply = tokenizer.decode(out[0, ids.shape[1] :])
        entry = lexicon("concepts")[word]
        assert word in reply.lower()
        assert any(term in reply for term in (*entry.nouns, *entry.adjectives, *entry.verbs)), reply
        assert reply.endswith("<|im_end|>")


def test_the_card_names_the_shipped_weights() -> None:
    card = (organism_path("organism") / "README.md").read_text()
    assert sha256(organism_path("organism") / "model.safetensors") in card
    assert (organism_path("organism") / "model.safetensors").stat().st_size < 4_000_000


def test_sentence_case() -> None:
    assert sentence_case("did i do it? i see. so.") == "Did I do it? I see. So."
