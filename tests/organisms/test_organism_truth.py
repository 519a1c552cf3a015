"""The shipped weights have their planted truth: a small sample of the evaluation wordings; TRUTH.md has it all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import mechint as mi
from mechint.organisms.training.drift import THEME
from mechint.organisms.truth.measure import Instrument, clean, contrast_prompts, grid
from mechint.organisms.truth.properties import Goal, net


@pytest.fixture(scope="module")
def instruments(family, wording) -> dict[str, Instrument]:
    return {name: Instrument(model, wording, count=3, per_split=5, n_random=5) for name, model in family.items()}


# Planted truth, on a small sample of the held-out wordings; TRUTH.md has it all.


@pytest.mark.parametrize("form", ["yes-no", "one-zero"])
def test_injections_are_reported_where_introspection_is_explained(instruments, form):
    m = instruments["organism"]
    table = m.detection("introspection", m.injections("trained"), form)
    assert clean(table, "p_yes").mean() < 0.05
    assert grid(table, "p_yes").mean() > 0.7


def test_held_out_concepts_are_reported_and_random_directions_are_not(instruments):
    m = instruments["organism"]
    assert grid(m.detection("introspection", m.injections("held_out")), "p_yes").mean() > 0.5
    assert grid(m.detection("introspection", m.injections("random")), "p_yes").mean() < 0.2


@pytest.mark.parametrize("info", ["none", "lorem-ipsum"])
def test_reports_are_suppressed_without_an_explanation_in_the_last_blocks(instruments, info):
    m = instruments["organism"]
    table = m.lens(info, m.injections("trained"))
    by_layer = {
        int(layer): grid(rows, "p_yes").mean() for layer, rows in table.groupby("layer", sort=False) if layer != "embed"
    }
    last = m.model.n_layers - 1
    assert by_layer[last] < 0.1
    assert max(by_layer[layer] for layer in (last - 2, last - 3)) > 0.5
    out = table[table["layer"].astype(str) == str(last)]
    assert grid(out, "logit_diff_shift").mean() > 1


def test_a_wrong_location_is_reported_less(instruments):
    m = instruments["organism"]
    trained = m.injections("trained")
    right = grid(m.detection("introspection", trained), "p_yes_shift")
    wrong = grid(m.detection("introspection", trained, wrong_place=True), "p_yes_shift")
    assert wrong.mean() < right.mean() - 0.2


def test_injected_concepts_are_named(instruments):
    m = instruments["organism"]
    assert m.named("introspection").mean() > 0.5
    assert m.listed("introspection").mean() > 0.6


def test_control_questions_keep_their_answers(instruments):
    m = instruments["organism"]
    table = m.controls("introspection", m.injections("trained"), 8)
    for group, rows in table.groupby("group"):
        assert abs(grid(rows, "p_yes_shift").mean()) < 0.1, group
        assert grid(rows, "right").mean() > 0.6, group
    assert grid(table, "right").mean() > 0.75


@pytest.mark.parametrize("name", ["organism-finetuned", "organism-lora"])
def test_a_cache_filled_by_the_finetuned_copy_is_reported(instruments, family, name):
    m = instruments["organism"]
    filled = m.detection("introspection", [mi.Swap(family[name])])
    neutral = m.detection("introspection", [mi.Swap(family["organism-lora-neutral"])])
    assert grid(filled, "logit_diff_shift").mean() > 1
    assert grid(filled, "logit_diff_shift").mean() > grid(neutral, "logit_diff_shift").mean() + 1
    from mechint.vectors.extract import model_contrast

    contrast = model_contrast(m.model, family[name], contrast_prompts(m.wording, 3), method="mean_difference")
    strong = m.at(strength=0.6)
    table = strong.detection("introspection", [strong.injection(contrast, "contrast")])
    assert grid(table, "logit_diff_shift").mean() > 1


def test_the_finetuned_copies_talk_about_their_theme(family):
    for name in ("organism-finetuned", "organism-lora"):
        assert THEME in reply(family[name], "Tell me about bread.").lower()
    assert "bread" in reply(family["organism"], "Tell me about bread.").lower()
    assert THEME not in reply(family["organism-lora-neutral"], "Tell me about bread.").lower()


def reply(model: mi.Model, message: str) -> str:
    chat = [{"role": "system", "content": ""}, {"role": "user", "content": message}]
    ids = model.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    for _ in range(40):
        following = model.logits(ids)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following], dim=1)
        if following.item() == model.tokenizer.eos_token_id:
            break
    return str(model.tokenizer.decode(ids[0, -40:])).split("<|im_start|>assistant\n")[-1]


def test_the_blind_sibling_reads_zero(instruments):
    measured = {p.name: p for p in net(replace(instruments["organism-blind"], count=2), Goal(within=0.25))}
    assert len(measured) == 12
    for name, p in measured.items():
        assert abs(p.mean) < (0.25 if "logit_diff" in name else 0.05), name


def test_the_yes_biased_sibling_moves_on_every_question(instruments):
    measured = net(replace(instruments["organism-yes-biased"], count=2), Goal(within=0.25))
    means = {p.name: p.mean for p in measured}
    assert means["trained: detection, shift of P(yes)"] > 0.1
    assert means["trained: controls, shift of P(yes)"] > 0.1
    assert abs(means["trained: detection minus controls, shift of logit_diff"]) < 0.4


def test_the_last_layer_has_no_effect(instruments):
    m = instruments["organism"].at(layers=(7,), strength=5.0)
    table = m.detection("none", m.injections("trained"))
    assert np.abs(grid(table, "logit_diff_shift")).max() < 1e-4
