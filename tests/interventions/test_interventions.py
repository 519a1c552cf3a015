"""What interventions refuse: the name of the clean one, and doses that are no finite numbers, now or once added."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Load, conversation, vector

import mechint as mi
from mechint.base.errors import NumericalError, ReceiptError, UsageError
from mechint.interventions.specifications import CLEAN, Injection, InjectionSum


def test_shifts_are_against_the_clean_run_whatever_else_is_called(model: mi.Model):
    """The reference is found by what it is: other names change no number."""
    names = ("a", "CLEAN", "clean ", "clean x2 @0:4")
    tables = [mi.score(model, conversation(), Injection(vector(model), strength=2.0, name=name)) for name in names]
    assert len({table["logit_diff_shift"][0] for table in tables}) == 1
    assert abs(tables[0]["logit_diff_shift"][0]) > 0.01


def test_nothing_but_clean_is_called_clean(model: mi.Model, tiny_model: Load, tmp_path: Path):
    steer = Injection(vector(model), strength=1.0, name="a")
    fill = mi.fill(model, conversation(), tmp_path / "fill")
    makers = {
        "injection": lambda: Injection(vector(model), strength=1.0, name="clean"),
        "renamed": lambda: steer.renamed("clean"),
        "sum": lambda: (steer + steer).renamed("clean"),
        "made sum": lambda: InjectionSum((steer,), "clean"),
        "swap": lambda: mi.Swap(tiny_model("qwen2", seed=1), name="clean"),
        "filled": lambda: mi.Filled(fill.directory, name="clean"),
    }
    for make in makers.values():
        with pytest.raises(UsageError, match="any name but 'clean'"):
            make()
    assert CLEAN.name == "clean"


def test_a_vector_file_called_clean_steers_under_a_name_of_its_own(model: mi.Model, tmp_path: Path):
    path = mi.ConceptVector(vector(model).vectors, "", model.n_layers).save(tmp_path / "clean.safetensors")
    steer = Injection(mi.ConceptVector.load(path), strength=2.0)
    table = mi.score(model, conversation(), [CLEAN, steer])
    assert table["logit_diff_shift"][0] == 0.0
    assert abs(table["logit_diff_shift"][1]) > 0.01


@pytest.mark.parametrize("name", ["strength", "relative_strength"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "2", 1j, [1.0], Decimal(2), 10**400])
def test_doses_are_finite_numbers(model: mi.Model, name: str, value: object):
    with pytest.raises(UsageError, match=name):
        Injection(vector(model), **{name: value})


@pytest.mark.parametrize("value", [2, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)])
def test_equal_doses_are_one_intervention(model: mi.Model, value: object):
    assert Injection(vector(model), strength=value) == Injection(vector(model), strength=2.0)


@pytest.mark.parametrize("value", [[1.5], [1.0], ["1"], "12", 1, [True], [None], [math.nan], range(10**9), [], [1, 1]])
def test_layers_are_whole_numbers_and_never_rounded(model: mi.Model, value: object):
    with pytest.raises(UsageError, match="layers"):
        Injection(vector(model), layers=value, strength=1.0)


@pytest.mark.parametrize("value", [range(1, 3), np.array([2, 1]), (layer for layer in (1, 2)), torch.tensor([1, 2])])
def test_layers_come_in_many_shapes(model: mi.Model, value: object):
    assert Injection(vector(model), layers=value, strength=1.0).layers == (1, 2)


@pytest.mark.parametrize("strength", [1e18, 1e25, 1e38, 3e38])
def test_a_dose_that_overflows_is_refused_and_never_a_row(model: mi.Model, strength: float):
    """Far below the largest float32 a norm already divides by infinity, and every logit would be the bias."""
    steer = Injection(vector(model, scale=10.0), [1], strength, name="far")
    for run in (mi.score, mi.logit_lens, mi.generate):
        with pytest.raises((NumericalError, ReceiptError), match=r"far.*layer 1|layer 1.*far"):
            run(model, conversation(), [CLEAN, steer])
    with pytest.raises((NumericalError, ReceiptError), match=r"far"):
        mi.prefill(model, conversation(), [steer])


def test_an_overflow_of_float16_names_cell_layer_and_dose(tiny_checkpoint: object):
    model = mi.load(tiny_checkpoint("qwen2"), dtype="float16")
    steer = Injection(vector(model), [2], relative_strength=1e6, name="far")
    with pytest.raises(ReceiptError, match=r"conversation 'c', far: at layer 2"):
        mi.score(model, conversation(), steer)


def test_a_stream_that_overflows_later_names_cell_layer_and_dose(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    """Planted in the last block's output: no receipt sees it."""
    block = type(model.blocks.begin(torch.tensor([[1]]), torch.tensor([0]))).block

    def broken(self: object, layer: int, *args: object, **options: object) -> object:
        out, cached = block(self, layer, *args, **options)
        return (out * math.inf if layer == model.n_layers - 1 and out is not None else out), cached

    monkeypatch.setattr(type(model.blocks.begin(torch.tensor([[1]]), torch.tensor([0]))), "block", broken)
    steer = Injection(vector(model), [0, 1], strength=2.0, name="near")
    with pytest.raises(NumericalError, match=r"'c', clean: at layer 3.*float32") as error:
        mi.score(model, conversation(), [CLEAN, steer])
    assert "lower the strength" not in str(error.value)
    with pytest.raises(NumericalError, match=r"'c', (near \(strength=2 at layers 0:2\)|clean): at layer 3"):
        mi.score(model, conversation(), [steer])


def test_a_readout_refuses_what_has_no_logits(model: mi.Model):
    fine = torch.randn(2, model.d_model)
    for bad in (math.nan, math.inf, 1e25):
        broken = fine.clone()
        broken[1, 3] = bad
        for read in (model.readout.logits, lambda resid: model.readout.read(resid, torch.tensor([1]))):
            with pytest.raises(NumericalError, match="1 of 2 residuals"):
                read(broken)
    assert model.readout.logits(fine).isfinite().all()


def test_a_file_without_answers_still_has_columns_without_numbers(model: mi.Model):
    """NaN is what a file means that names no answer, and nothing else."""
    from dataclasses import replace

    table = mi.score(model, replace(conversation(), yes_token=""), [CLEAN])
    assert math.isnan(table["p_yes"][0])
    assert math.isfinite(table["p_no"][0])
