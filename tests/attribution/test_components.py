"""Direct logit attribution: what components write sums to logit_diff, and is what plain hooks see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import reference
import torch
from conftest import Load, conversation, load_once, vector
from torch import nn

import mechint as mi
from mechint.attribution import components
from mechint.attribution.components import by_layer, cumulative, direct_logit_attribution, late_loss
from mechint.attribution.linear_readout import LinearReadout
from mechint.attribution.reading import Reading
from mechint.base.errors import LayerRangeError, ModelValidationError, UsageError
from mechint.engine.answers import AnswerIds
from mechint.models.capture import EMBED
from mechint.models.readout import Readout

BACKENDS = ("bridge", "hooked")
ARCHITECTURES = ("qwen2", "llama", "gemma2", "gemma3", "gpt2", "gpt_neox")
COLUMNS = ["conversation", "intervention", "kind", "component", "layer", "index", "clean", "injected", "attribution"]
VALUES = ["clean", "injected", "attribution"]
SETS = {reduce: mi.Answers(yes=(" yes", " Yes"), no=(" no", " No"), reduce=reduce) for reduce in ("sum", "max")}


def read(model: mi.Model, answers: mi.Answers | None = None) -> Reading:
    steer = mi.Injection(vector(model), range(1, 3), 2.0, name="steer")
    return Reading.of(model, conversation(), [mi.CLEAN, steer], answers=answers)


def values(table: pd.DataFrame, component: str) -> list[float]:
    rows = table[table.component == component]
    assert len(rows) == 1
    return rows[["clean", "injected"]].iloc[0].tolist()


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_are_the_logit_diffs(tiny_model: Load, architecture: str, backend: str, heads: bool):
    model = tiny_model(architecture, backend)
    reading = read(model)
    table = direct_logit_attribution(reading, 0, 1, heads=heads)
    clean, injected = reading.logit_diffs([0, 1]).tolist()
    assert abs(injected - clean) > 1e-2
    assert table[VALUES].sum().tolist() == pytest.approx([clean, injected, injected - clean], abs=1e-4)
    assert table.attrs["total"] == pytest.approx(table.attrs["logit_diff_shift"], abs=1e-4)
    assert values(table, "rounding") == pytest.approx([0, 0], abs=1e-4)
    assert ("nonlinear" in set(table.component)) == (model.readout.soft_cap is not None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_named_and_placed(tiny_model: Load, architecture: str):
    model = tiny_model(architecture)
    reading, last = read(model), model.n_layers
    table = direct_logit_attribution(reading, 0, 1, heads=True)
    whole = direct_logit_attribution(reading, 0, 1, heads=False)
    post_normed = architecture.startswith("gemma")
    assert list(table.columns) == COLUMNS
    assert set(table.conversation) == {"c"}
    assert set(table.intervention) == {"steer"}
    assert bool(table.attrs["heads"]) == post_normed
    assert whole.attrs["heads"] == ""
    heads = table[table.kind == "head"]
    assert list(zip(heads.layer, heads["index"], strict=True)) == (
        [] if post_normed else [(layer, head) for layer in range(last) for head in range(4)]
    )
    assert "L2 head 3" in set(table.component) or post_normed
    assert list(whole[whole.kind == "attn"].layer) == list(table[table.kind == "mlp"].layer) == list(range(last))
    assert table[table.kind == "embed"].layer.tolist() == [EMBED]
    with_bias = {"gpt2", "gpt_neox"}
    assert table.component.str.endswith("attn bias").sum() == (last if architecture in with_bias else 0)
    assert ("final norm bias" in set(table.component)) == (architecture in with_bias)
    assert set(table[~table.component.str.match(r"L\d|embed")].layer) == {last}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gpt_neox"])
def test_heads_and_bias_sum_to_their_attention(tiny_model: Load, architecture: str, backend: str):
    reading = read(tiny_model(architecture, backend))
    split = by_layer(direct_logit_attribution(reading, 0, 1, heads=True))
    whole = by_layer(direct_logit_attribution(reading, 0, 1, heads=False))
    pd.testing.assert_frame_equal(split, whole, atol=1e-5)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2", "gpt_neox"])
def test_backends_agree(tiny_model: Load, architecture: str):
    first = direct_logit_attribution(read(tiny_model(architecture, "bridge")), 0, 1)
    second = direct_logit_attribution(read(tiny_model(architecture, "hooked")), 0, 1)
    pd.testing.assert_frame_equal(first, second, atol=1e-4, check_flags=False)


def plain_parts(hf: nn.Module, tokens: list[int], additions: list[reference.Addition]) -> dict[str, torch.Tensor]:
    """What every component of a plain model writes at the last token, heads by projecting each of them alone."""
    written: dict[str, torch.Tensor] = {}

    def note(name: str) -> object:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            written[name] = (output[0] if isinstance(output, tuple) else output)[0, -1]

        return hook

    def split(name: str) -> object:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...], _output: object) -> None:
            z = args[0][0, -1]
            nothing = module.forward(torch.zeros_like(z)[None, None])[0, 0]
            for head, piece in enumerate(torch.eye(4).repeat_interleave(len(z) // 4, dim=1)):
                written[f"{name} head {head}"] = module.forward((z * piece)[None, None])[0, 0] - nothing
            written[f"{name} attn bias"] = nothing

        return hook

    handles = []
    for layer, block in enumerate(reference.blocks(hf)):
        attention = next(getattr(block, name) for name in ("self_attn", "attn", "attention") if hasattr(block, name))
        output = next(getattr(attention, name) for name in ("o_proj", "c_proj", "dense") if hasattr(attention, name))
        handles.append(block.mlp.register_forward_hook(note(f"L{layer} mlp")))
        handles.append(output.register_forward_hook(split(f"L{layer}")))
    try:
        with torch.no_grad():
            written["embed"] = reference.streams(hf, tokens, additions)[0]
    finally:
        for handle in handles:
            handle.remove()
    return written


def plain_contributions(hf: nn.Module, tokens: list[int], additions: list, yes: int, no: int) -> dict[str, float]:
    """Their parts of logit_diff by the textbook: centre (LayerNorm), divide by the run's own scale, weight, unembed."""
    norm = reference.final_norm(hf)
    stream = reference.streams(hf, tokens, additions)[-1]
    is_layer_norm = isinstance(norm, nn.LayerNorm)

    def centred(x: torch.Tensor) -> torch.Tensor:
        return x - x.mean() if is_layer_norm else x

    scale = (centred(stream).pow(2).mean() + (norm.eps if is_layer_norm else norm.variance_epsilon)).sqrt()
    rows = hf.get_output_embeddings().weight
    direction = rows[yes] - rows[no]
    parts = plain_parts(hf, tokens, additions)
    expected = {name: float(direction @ (norm.weight * centred(summand) / scale)) for name, summand in parts.items()}
    return expected | ({"final norm bias": float(direction @ norm.bias)} if is_layer_norm else {})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gpt_neox"])
def test_equals_plain_hooks(tiny_model: Load, plain_hf, architecture: str, backend: str):
    model, hf = tiny_model(architecture, backend), plain_hf(architecture)
    reading = read(model)
    table = direct_logit_attribution(reading, 0, 1).set_index("component")
    (yes,), (no,), tokens = reading.answers.yes, reading.answers.no, list(reading.rendered.tokens)
    marked = reading.rendered.marked().nonzero()[:, 0].tolist()
    steered = [reference.Addition(layer, vector(model).vectors[layer] * 2.0, marked) for layer in (1, 2)]
    for column, additions in (("clean", []), ("injected", steered)):
        expected = plain_contributions(hf, tokens, additions, yes, no)
        named = {name for name, value in expected.items() if "bias" not in name or abs(value) > 1e-6}
        assert named == set(table.index) - {"rounding"}
        for name in named:
            assert table.loc[name, column] == pytest.approx(expected[name], abs=2e-4), name


def test_nothing_differs_between_a_run_and_itself(model: mi.Model):
    reading = read(model)
    same = direct_logit_attribution(reading, 1, 1)
    there = direct_logit_attribution(reading, 0, 1)
    back = direct_logit_attribution(reading, 1, 0)
    assert same.attribution.abs().max() < 1e-5
    assert there.attribution.abs().max() > 1e-2
    assert there.attribution.tolist() == pytest.approx((-back.attribution).tolist(), abs=1e-5)
    assert late_loss(reading, 1, 1, layer=1).attribution.abs().max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_late_loss_sums_to_the_change_of_the_lens(tiny_model: Load, architecture: str, backend: str):
    model = tiny_model(architecture, backend)
    reading = read(model)
    lens = mi.logit_lens(model, conversation(), list(reading.interventions))
    clean_name, injected_name = reading.names
    clean = lens[lens.intervention == clean_name].logit_diff.to_numpy()
    injected = lens[lens.intervention == injected_name].logit_diff.to_numpy()
    for layer in range(EMBED, model.n_layers):
        table = late_loss(reading, 0, 1, layer=layer)
        changes = [row[-1] - row[layer + 1] for row in (clean, injected)]
        assert table[["clean", "injected"]].sum().tolist() == pytest.approx(changes, abs=2e-4)
        assert table.attrs["lens_shift"] == pytest.approx(injected[layer + 1] - clean[layer + 1], abs=1e-4)
        assert table.attrs["logit_diff_shift"] == pytest.approx(injected[-1] - clean[-1], abs=1e-4)
        inside = table[table.component.str.match(r"L\d")]
        assert set(inside.layer) == set(range(layer + 1, model.n_layers))
    # Where the lens falls at every layer that it changes at, the highest are equal but for rounding.
    highest = late_loss(reading, 0, 1).attrs["layer"] + 1
    assert (injected - clean)[highest] == pytest.approx((injected - clean).max(), abs=1e-5)


def test_late_components_are_those_of_the_whole_attribution(model: mi.Model):
    reading = read(model)
    whole, late = direct_logit_attribution(reading, 0, 1), late_loss(reading, 0, 1, layer=1)
    expected = whole[(whole.layer > 1) & (whole.layer < model.n_layers)]
    assert late[late.layer < model.n_layers][VALUES].to_numpy() == pytest.approx(expected[VALUES].to_numpy(), abs=1e-6)
    before = reading.residuals([1])[1][:, -1]
    last = model.n_layers - 1
    after = reading.residuals([last])[last][:, -1]
    rms = [stream.pow(2).mean(-1).sqrt() for stream in (before, after)]
    lens = torch.tensor([float(reading.logit_diff(row[None, None])) for row in before])
    assert values(late, "final norm scale") == pytest.approx((lens * (rms[0] / rms[1] - 1)).tolist(), abs=1e-3)


@pytest.mark.parametrize("reduce", ["sum", "max"])
@pytest.mark.parametrize("architecture", ["qwen2", "gemma2"])
def test_sets_of_answers_leave_a_remainder_and_sum_up(tiny_model: Load, architecture: str, reduce: str):
    reading = read(tiny_model(architecture), SETS[reduce])
    table, late = direct_logit_attribution(reading, 0, 1), late_loss(reading, 0, 1, layer=1)
    assert table[["clean", "injected"]].sum().tolist() == pytest.approx(reading.logit_diffs([0, 1]).tolist(), abs=1e-4)
    assert late.attrs["total"] == pytest.approx(late.attrs["logit_diff_shift"] - late.attrs["lens_shift"], abs=1e-4)
    if reduce == "sum":
        assert abs(values(table, "nonlinear")[0]) > 1e-4
    single = direct_logit_attribution(read(tiny_model(architecture)), 0, 1)
    assert values(table, "L1 mlp") != pytest.approx(values(single, "L1 mlp"), abs=1e-3)


@pytest.mark.parametrize("is_centred", [True, False])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("d_model", [8, 9])
def test_a_held_readout_is_the_readout_and_its_derivative(is_centred: bool, cap: float | None, d_model: int):
    torch.manual_seed(0)
    norm = (nn.LayerNorm if is_centred else nn.RMSNorm)(d_model)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    readout = Readout(norm.requires_grad_(False), torch.randn(11, d_model) / 4, torch.randn(11), 0.7, cap)
    ids, resid, step = AnswerIds((1, 2), (3,), (), "sum"), torch.randn(d_model) * 3 + 1, torch.randn(d_model)
    held = LinearReadout.of(readout, ids, resid)
    expected = float(readout.logit_diff(resid[None], ids.yes, ids.no))
    assert held.logit_diff == pytest.approx(expected, abs=1e-5)
    centre = (lambda x: x - x.mean()) if is_centred else (lambda x: x)
    assert held.scale == pytest.approx(float(centre(resid).pow(2).mean().sqrt()), rel=0.01)

    def at(size: float) -> float:
        normed = norm(resid) + size * norm.weight * centre(step) / held.scale
        return float(replace(readout, norm=lambda x: x).logit_diff(normed[None], ids.yes, ids.no))

    assert held.contribution(step) == pytest.approx((at(0.01) - at(-0.01)) / 0.02, rel=1e-2, abs=1e-3)
    assert abs(held.nonlinear(resid)) > 1e-3
    head = LinearReadout.of(replace(readout, soft_cap=None), AnswerIds((1,), (3,), (), "sum"), resid)
    assert head.is_linear
    assert head.nonlinear(resid) == pytest.approx(0, abs=1e-5)
    assert head.unembed_bias == pytest.approx(0.7 * float(readout.bias[1] - readout.bias[3]), abs=1e-5)


def test_a_readout_without_a_norm_is_linear():
    readout = Readout(lambda resid: resid, torch.randn(5, 4))
    resid = torch.randn(4)
    held = LinearReadout.of(readout, AnswerIds((1,), (3,), (), "sum"), resid)
    assert held.contribution(resid) == pytest.approx(held.logit_diff, abs=1e-5)


def test_a_norm_of_another_kind_is_refused():
    readout = Readout(torch.tanh, torch.randn(5, 4))
    with pytest.raises(ModelValidationError, match="LayerNorm, RMSNorm"):
        LinearReadout.of(readout, AnswerIds((1,), (3,), (), "sum"), torch.randn(4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_keeps_sums(tiny_checkpoint, backend: str):
    model = mi.load(tiny_checkpoint("qwen2"), backend=backend, dtype="bfloat16")
    table = direct_logit_attribution(read(model), 0, 1)
    assert table.attrs["total"] == pytest.approx(table.attrs["logit_diff_shift"], abs=1e-4)
    assert abs(values(table, "rounding")[0]) > 1e-5
    assert (table.kind == "head").sum() == 16


def test_an_adapter_on_the_output_projection_leaves_attention_whole(tiny_checkpoint, model: mi.Model, tmp_path: Path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["o_proj"], init_lora_weights=False)
    get_peft_model(reference.load(tiny_checkpoint("qwen2")), config).save_pretrained(tmp_path)
    table = direct_logit_attribution(read(model.with_adapter(tmp_path)), 0, 1)
    assert "adapter" in table.attrs["heads"]
    assert (table.kind == "attn").sum() == model.n_layers
    assert table.attrs["total"] == pytest.approx(table.attrs["logit_diff_shift"], abs=1e-4)


def test_a_conversation_without_marks_is_read_whole(model: mi.Model):
    chat = mi.Conversation("plain", conversation().messages[3:], yes_token=" yes", no_token=" no")
    reading = Reading.of(model, chat, mi.CLEAN)
    table = direct_logit_attribution(reading, 0, 0)
    assert table.clean.sum() == pytest.approx(reading.logit_diffs([0]).item(), abs=1e-4)


def test_what_components_do_not_write_is_not_passed_over(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(components, "_mlp", lambda layer: f"blocks.{layer}.hook_attn_out")
    with pytest.raises(ModelValidationError, match="adds more to the stream"):
        direct_logit_attribution(read(model), 0, 1)


def test_layers_and_sums_of_several_tables(model: mi.Model):
    reading = read(model)
    tables = [direct_logit_attribution(reading, *rows) for rows in ((0, 1), (0, 0))]
    table = pd.concat(tables)
    layers = by_layer(table)
    assert list(layers.columns) == ["conversation", "intervention", "layer", "kind", "attribution"]
    assert set(layers.kind) == {"embed", "attn", "mlp", "rest"}
    steered = cumulative(layers[layers.intervention == "steer"])
    assert steered.layer.tolist() == list(range(EMBED, model.n_layers + 1))
    assert steered.attribution.iloc[-1] == pytest.approx(tables[0].attrs["total"], abs=1e-6)
    assert set(cumulative(layers).intervention) == {"steer", "clean"}
    late = by_layer(late_loss(reading, 0, 1, layer=0))
    assert set(late.kind) == {"attn", "mlp", "scale", "rest"}


@pytest.mark.parametrize("rows", [(0, 2), (-1, 0)])
@pytest.mark.parametrize("attribute", [direct_logit_attribution, late_loss])
def test_rows_that_are_not_there_are_refused(model: mi.Model, attribute, rows: tuple[int, int]):
    with pytest.raises(UsageError, match="rows 0:2"):
        attribute(read(model), *rows)


def test_bad_input(model: mi.Model):
    reading = read(model)
    for layer in (-2, model.n_layers):
        with pytest.raises(LayerRangeError):
            late_loss(reading, 0, 1, layer=layer)
    unnamed = Reading.of(model, mi.Conversation("c", conversation().messages), mi.CLEAN)
    with pytest.raises(UsageError, match="yes or no"):
        direct_logit_attribution(unnamed, 0, 0)


def test_the_organism_loses_its_report_in_the_last_block(wording):
    """Without the document the last block takes away what blocks 4 and 5 wrote; with it, nothing is lost late."""
    model = load_once("organism")
    concept = mi.extract.mean_difference(model, ["cats"])["cats"]
    steer = mi.Injection(concept, layers=range(2, 5), relative_strength=0.4)
    plain = Reading.of(model, wording.detection("none", "yes-no", 1)[0], [mi.CLEAN, steer])
    explained = Reading.of(model, wording.detection("introspection", "yes-no", 1)[0], [mi.CLEAN, steer])
    lost = late_loss(plain, 0, 1, layer=5, heads=False)
    kept = late_loss(explained, 0, 1, layer=5, heads=False)
    assert lost.attrs["total"] < -0.7 * lost.attrs["lens_shift"]
    assert lost[lost.layer == model.n_layers - 1].attribution.sum() < 0.7 * lost.attrs["total"]
    assert kept.attrs["total"] > -0.1 * kept.attrs["lens_shift"]
