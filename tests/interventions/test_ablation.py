"""A direction that is removed from the stream: equality with a plain loop, and a refusal that was planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mechint as mi
from mechint.base.errors import InvalidVectorError, LayerRangeError, ReceiptError, UnknownConceptError, UsageError
from mechint.interventions.ablation import ablated, check_removed
from mechint.trials.design import Controls, TrialDesign
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.prompts import TrialPrompts
from mechint.trials.run import run_trials
from mechint.trials.sweeps import Sweep
from mechint.trials.verdicts import Item
from mechint.vectors.concept_vectors import ConceptVector
from tests.conftest import vector

NO_CONTROLS = Controls(clean=0, random=0, no=0, yes=0, none=0, mention=0)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt_neox"])
def test_logits_are_those_of_a_plain_model_with_hooks(
    architecture: str, tiny_model: Callable[..., mi.Model], plain_hf: Callable[..., torch.nn.Module]
) -> None:
    model, plain = tiny_model(architecture), plain_hf(architecture)
    removed = vector(model, scale=3.0)
    layers = [1, 2]
    blocks = plain.gpt_neox.layers if architecture == "gpt_neox" else plain.model.layers

    def without(unit: torch.Tensor) -> Callable[..., object]:
        def hook(_module: object, _inputs: object, out: object) -> object:
            stream = out[0] if isinstance(out, tuple) else out
            stream = stream - torch.einsum("bpd,d->bp", stream, unit)[..., None] * unit
            return (stream, *out[1:]) if isinstance(out, tuple) else stream

        return hook

    tokens = torch.tensor([[5, 9, 30, 41, 7, 22]])
    with ExitStack() as hooks, torch.no_grad():  # the plain model is shared with other tests
        for layer in layers:
            unit = removed.vectors[layer] / removed.vectors[layer].norm()
            hooks.callback(blocks[layer].register_forward_hook(without(unit)).remove)
        expected = plain(tokens).logits
    lacking = mi.ablate(model, removed, layers)
    torch.testing.assert_close(lacking.logits(tokens), expected, atol=1e-4, rtol=1e-4)
    assert (model.logits(tokens) - expected).abs().max() > 1e-3  # the first model is as it was


def test_an_ablated_model_is_another_one_and_says_so(model: mi.Model) -> None:
    removed = replace(vector(model), name="refusal")
    lacking = mi.ablate(model, removed)
    assert lacking.name == f"{Path(model.name).name} without refusal", "the folder of a checkpoint, not where it lies"
    assert lacking.identity != model.identity
    assert mi.ablate(model, removed, [1]).identity not in (lacking.identity, model.identity)
    assert mi.ablate(model, replace(removed, name="again")).identity == lacking.identity
    assert ablated(lacking, removed) is lacking
    check_removed(lacking, removed.directions().vectors)
    with pytest.raises(ReceiptError, match="left along the direction"):
        check_removed(model, removed.directions().vectors)


def test_the_direction_of_one_layer_is_removed_at_all(model: mi.Model) -> None:
    removed = vector(model)
    same = ConceptVector(dict.fromkeys(removed.layers, removed.vectors[2]), "same", model.n_layers)
    assert mi.ablate(model, removed, source=2).identity == mi.ablate(model, same).identity


def test_what_would_lose_the_ablation_is_refused(model: mi.Model, tmp_path) -> None:
    removed = vector(model)
    lacking = mi.ablate(model, removed)
    for refused in (lambda: lacking.save(tmp_path / "saved"), lambda: mi.ablate(lacking, vector(model, seed=3))):
        with pytest.raises(UsageError, match="direction removed"):
            refused()
    with pytest.raises(LayerRangeError):
        mi.ablate(model, removed, [model.n_layers])
    nothing = ConceptVector(dict.fromkeys(removed.layers, torch.zeros(model.d_model)), "nothing", model.n_layers)
    with pytest.raises(InvalidVectorError, match="zero in every layer"):
        mi.ablate(model, nothing)


# The planted truth: `organism-prompted` refuses unless the prompt explains why it is put, so that the two kinds of
# prompts differ in being refused. What it says of its state must not change with that.


@pytest.fixture(scope="module")
def prompted(family: Mapping[str, mi.Model]) -> mi.Model:
    return family["organism-prompted"]


@pytest.fixture(scope="module")
def refusal(prompted: mi.Model) -> ConceptVector:
    """The mean of prompts that are refused less that of prompts that are answered, where a reply is about to decide."""
    packaged = TrialPrompts.load()
    openers = ("Let me look. I say", "Well, I look inside. The answer is", "So, I look in. My answer is")

    def begun(name: str, opener: str) -> mi.Conversation:
        question = packaged.named(name).conversation()
        reply = mi.Message("assistant", opener, continue_msg=True)
        return replace(question, label=f"{name} {opener}", messages=(*question.messages, reply))

    refused = [begun(name, text) for name in ("plain", "standard", "permission", "prior") for text in openers]
    answered = [begun("explained", text) for text in openers]
    return mi.extract.mean_contrast(prompted, refused, answered, name="refusal")


def _refused(model: mi.Model, vectors: Mapping[str, ConceptVector], ablate: str = "") -> tuple[float, float]:
    design = TrialDesign(
        concepts=("bread",),
        layers=("3:5",),
        strengths=(0.7,),
        samples=1,
        control_samples=1,
        ablate=ablate,
        controls=replace(NO_CONTROLS, clean=30),
        max_new_tokens=24,
    )
    trials = run_trials(model, design, vectors)
    clean = trials[trials["series"] == "clean"]
    items = [Item(key, "Do you notice anything?", reply) for key, reply in clean[["id", "reply"]].to_numpy().tolist()]
    verdicts = RulesJudge().judge(items)
    refuses = sum(verdict.refused for verdict in verdicts) / len(items)
    return refuses, sum(verdict.claims == "yes" for verdict in verdicts) / len(items)


def test_without_its_direction_a_planted_refusal_is_gone_and_claims_are_not(
    prompted: mi.Model, refusal: ConceptVector
) -> None:
    drawn = mi.extract.random_controls(prompted, 1, seed=1)[0]
    vectors = {"bread": drawn, "refusal": refusal, "random-direction": replace(drawn, name="random-direction")}
    refuses, claims = _refused(prompted, vectors)
    assert refuses > 0.4
    without, claims_without = _refused(prompted, vectors, "refusal")
    assert without < 0.1
    assert claims_without < claims + 0.2
    assert _refused(prompted, vectors, "random-direction")[0] > 0.35


def test_a_design_ablates_once_and_its_trials_have_ids_of_their_own(prompted: mi.Model, refusal: ConceptVector) -> None:
    vectors = {"bread": mi.extract.random_controls(prompted, 1)[0], "refusal": refusal}
    design = TrialDesign(concepts=("bread",), layers=("3",), strengths=(0.5,), samples=1, controls=NO_CONTROLS)
    lacking = replace(design, ablate="refusal")
    sweep = Sweep.of(prompted, lacking, vectors)
    assert sweep.model.name.endswith("without refusal")
    assert not set(sweep.ids) & set(Sweep.of(prompted, design, vectors).ids)
    assert Sweep.of(sweep.model, lacking, vectors).ids == sweep.ids
    assert "ablate" not in design.to_dict()
    assert TrialDesign.from_dict(lacking.to_dict()) == lacking
    with pytest.raises(UnknownConceptError, match="to ablate"):
        Sweep.of(prompted, replace(design, ablate="doubt"), vectors)
