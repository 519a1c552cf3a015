"""The unit of relative strengths: one number for all conversations of a model, whatever its first token does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import chat, conversation, vector
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import mechint as mi
from analyses import logit_lens
from analyses.kit import record as run
from analyses.kit import shard_files as parts
from mechint.base.errors import ModelValidationError, StaleArtefactError
from mechint.chat.render import render
from mechint.engine.shards import Shard
from mechint.engine.store import CellStore
from mechint.interventions.specifications import key_for
from mechint.models import residual_scale

BACKENDS = ["bridge", "hooked"]
STEERED = [1, 2]


@pytest.fixture(scope="module")
def plain_outlier(sunk: Path) -> torch.nn.Module:
    return reference.load(sunk)


def mean_over_the_marked(model: mi.Model, hf: torch.nn.Module, conversation: mi.Conversation, layer: int) -> float:
    """The unit that relative strengths once had."""
    rendered = render(model.tokenizer, conversation)
    marked = rendered.marked().nonzero()[:, 0].tolist()
    return float(np.mean([float(reference.streams(hf, rendered.tokens[: p + 1])[layer + 1].norm()) for p in marked]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_median_over_the_tokens_of_a_fixed_text(backend: str, tiny_model, plain_hf) -> None:
    model = tiny_model("qwen2", backend)
    pieces = residual_scale._pieces(model)
    assert sum(map(len, pieces)) > 300
    assert model.residual_norms == pytest.approx(reference.residual_norms(plain_hf("qwen2"), pieces), rel=1e-4)


def test_first_tokens_do_not_move_it(outlier: mi.Model, plain_outlier: torch.nn.Module) -> None:
    """Norms of thousands at the first position of each piece, and a unit that is what it is without them."""
    pieces = residual_scale._pieces(outlier)
    assert max(map(len, pieces)) == 64
    assert outlier.residual_norms == pytest.approx(reference.residual_norms(plain_outlier, pieces), rel=1e-4)
    first = [float(stream.norm()) for stream in reference.streams(plain_outlier, pieces[0][:1])[1:]]
    assert all(norm > 100 * unit for norm, unit in zip(first, outlier.residual_norms, strict=True))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.sets(st.integers(1, 7), min_size=2, max_size=3), strength=st.floats(0.01, 2), layer=st.integers(0, 3))
@example(lengths={6, 7}, strength=1.0, layer=0)
def test_a_dose_is_one_number_for_prompts_of_all_lengths(lengths, strength, layer, outlier, plain_outlier) -> None:
    chats = [chat(n_words) for n_words in sorted(lengths)]
    steer = mi.Injection(vector(outlier), [layer], relative_strength=strength, name="v")
    receipts = mi.score(outlier, chats, steer).attrs["receipts"]
    added = [receipt["layers"][0]["vector_norm"] for receipt in receipts if receipt["kind"] == "injected"]
    assert len(added) == len(chats)
    assert added == pytest.approx([strength * outlier.residual_norms[layer]] * len(chats), rel=2e-3)
    once = [mean_over_the_marked(outlier, plain_outlier, conversation, layer) for conversation in chats]
    marked = [int(render(outlier.tokenizer, conversation).marked().sum()) for conversation in chats]
    assert marked[0] < marked[-1]
    assert once[0] / once[-1] == pytest.approx(marked[-1] / marked[0], rel=0.02), "the old unit falls with the length"
    assert once[-1] > 10 * outlier.residual_norms[layer]


def test_everything_that_adds_a_dose_adds_the_same(outlier: mi.Model) -> None:
    """Tables, prefills, steered replies, losses of texts and the explorer, against vectors of just that norm."""
    v = vector(outlier)
    relative = mi.Injection(v * 7, STEERED, relative_strength=0.3, name="v")
    norms = {layer: 0.3 * norm for layer, norm in enumerate(outlier.residual_norms)}
    absolute = mi.Injection(v.rescaled(norms), STEERED, strength=1.0, name="same")
    for table in (
        mi.score(outlier, chat(3), [relative, absolute])[["logit_diff"]],
        mi.text_loss(outlier, "Tell me about cats.", [relative, absolute])[["loss"]],
        mi.generate(outlier, chat(3), [relative, absolute], max_new_tokens=3, steer="onward")[["log_prob"]],
    ):
        first, second = table.to_numpy()
        assert first == pytest.approx(second, abs=1e-4)
    caches = mi.prefill(outlier, chat(3), [relative, absolute]).cache
    torch.testing.assert_close(caches.keys[3][0], caches.keys[3][1], atol=1e-4, rtol=1e-4)
    grid = mi.explorer.sweep(outlier, chat(3), {"v": v}, [range(1, 3)], [0.3])
    logit_diffs = grid[(grid["kind"] == "concept")]["logit_diff"].to_numpy()
    assert logit_diffs == pytest.approx(mi.logit_lens(outlier, chat(3), absolute)["logit_diff"].to_numpy(), abs=1e-3)


def test_it_is_measured_once(tiny_model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    first = model.residual_norms
    monkeypatch.setattr("mechint.models.residual_scale.residual_norms", lambda _: pytest.fail("measured again"))
    assert model.residual_norms is first


def test_other_weights_have_another(tiny_checkpoint: Callable[..., Path]) -> None:
    model = mi.load(tiny_checkpoint("llama"))
    before = model.residual_norms
    with torch.no_grad():
        dict(model.backend.parameters())[_embedding(model)].mul_(3.0)
    assert model.residual_norms[0] > 1.1 * before[0]


def test_an_edit_that_torch_does_not_count_is_noticed_with_the_identity(tiny_checkpoint: Callable[..., Path]) -> None:
    model = mi.load(tiny_checkpoint("llama"))
    before, first = model.residual_norms, model.identity
    dict(model.backend.parameters())[_embedding(model)].data.mul_(3.0)
    assert model.identity != first
    assert model.residual_norms[0] > 1.1 * before[0]


def _embedding(model: mi.Model) -> str:
    return next(name for name, weight in model.backend.parameters() if len(weight) == model.backend.d_vocab)


def test_a_store_of_another_unit_is_not_believed(model: mi.Model, tmp_path: Path, monkeypatch) -> None:
    relative = mi.Injection(vector(model), STEERED, relative_strength=0.3, name="v")
    absolute = mi.Injection(vector(model), STEERED, strength=1.0, name="w")
    keys = key_for(model, relative), key_for(model, absolute)
    mi.score(model, conversation(), [relative, absolute], store=tmp_path)
    monkeypatch.setattr("mechint.models.residual_scale._METHOD", b"mean over the marked positions")
    assert key_for(model, relative) != keys[0]
    assert key_for(model, absolute) == keys[1]
    mi.score(model, conversation(), [relative, absolute], store=tmp_path)
    assert len(CellStore(tmp_path).load()[0]) == 4, "clean, absolute, and the relative one twice"


def test_a_model_whose_stream_has_no_size_is_refused(tiny_checkpoint: Callable[..., Path]) -> None:
    model = mi.load(tiny_checkpoint("llama", seed=3))
    with torch.no_grad():
        for _, weight in model.backend.parameters():
            weight.zero_()
    with pytest.raises(ModelValidationError, match=r"\{0: 0.0"):
        _ = model.residual_norms
    steer = mi.Injection(vector(model), STEERED, relative_strength=0.3)
    with pytest.raises(ModelValidationError, match="strength="):
        mi.score(model, conversation(), steer)


def test_layers_where_a_vector_is_zero_add_nothing(model: mi.Model) -> None:
    rows = vector(model).vectors
    gap = mi.ConceptVector(rows | {1: torch.zeros(model.d_model)}, "gap", model.n_layers)
    assert gap.directions().norms == pytest.approx({0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0})
    steer = mi.Injection(gap, [1, 2], relative_strength=0.3, name="v")
    receipts = [mi.prefill(model, conversation(), [steer]).receipts[0].to_dict()]
    receipts += [r for r in mi.score(model, conversation(), steer).attrs["receipts"] if r["kind"] == "injected"]
    for receipt in receipts:
        assert [layer["vector_norm"] for layer in receipt["layers"]] == pytest.approx(
            [0.0, 0.3 * model.residual_norms[2]], rel=1e-4
        )
        assert [layer["positions"] > 0 for layer in receipt["layers"]] == [False, True]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exponent=st.integers(-37, 37))
def test_the_length_of_a_vector_does_not_matter(exponent: int, model: mi.Model) -> None:
    """Not even where its squares are no numbers of float32 any more."""
    steer = mi.Injection(vector(model) * 10.0**exponent, [1], relative_strength=0.3)
    expected = mi.Injection(vector(model), [1], relative_strength=0.3).amount(1, model)
    torch.testing.assert_close(steer.amount(1, model), expected, rtol=1e-3, atol=1e-3)


def test_tables_say_the_unit_of_their_doses(outlier: mi.Model, tmp_path: Path) -> None:
    steer, norms = mi.Injection(vector(outlier), [1], relative_strength=0.3, name="v"), list(outlier.residual_norms)
    tables = [
        mi.score(outlier, chat(3), steer),
        mi.logit_lens(outlier, chat(3), [steer, mi.CLEAN]),
        mi.generate(outlier, chat(3), steer, max_new_tokens=2),
        mi.text_loss(outlier, "Tell me about cats.", steer),
        mi.name_log_probs(outlier, chat(3), {"cats": [" cats"]}, steer),
        mi.score(outlier, chat(3), steer, store=tmp_path / "store"),
        mi.score(outlier, chat(3), steer, store=tmp_path / "store"),
    ]
    for table in tables:
        assert table.attrs["unit"]["norms"] == norms
        assert table.attrs["unit"]["key"] == residual_scale.unit_key(outlier)
    tables[0].to_parquet(tmp_path / "table.parquet")
    assert pd.read_parquet(tmp_path / "table.parquet").attrs["unit"] == tables[0].attrs["unit"]
    assert "unit" not in mi.score(outlier, chat(3), mi.CLEAN).attrs


def record(norms: list[float] | None, key: str = "k") -> dict[str, object]:
    return {"unit": {"what": "median", "key": key, "norms": norms}}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (record([1.0, 2.0]), record([1.0, 2.1])),
        (record([1.0, 2.0]), record([1.0, 2.0], "another")),
        (record([1.0, 2.0]), record([1.0])),
        (record([1.0, 2.0]), record(None)),
    ],
)
def test_parts_of_other_units_are_not_merged(first: dict, second: dict, tmp_path: Path) -> None:
    written = write_parts(tmp_path, first, second)
    with pytest.raises(StaleArtefactError, match=r"1-of-2.*doses in units of norms 1, 2 and of"):
        parts.read_parts(written)


def test_last_digits_of_machines_are_no_other_unit(tmp_path: Path) -> None:
    first, second = record([1.0, 2.0]), record([1.0, 2.00001])
    config = logit_lens.ANALYSIS.parsed([])
    assert run.run_key(config, first) == run.run_key(config, second)
    assert run.run_key(config, first) != run.run_key(config, record([1.0, 2.0], "another"))
    ((rows, merged),) = parts.read_parts(write_parts(tmp_path, first, second)).values()
    assert len(rows) == 2
    assert merged.facts["model"] == first


def write_parts(folder: Path, *units: dict[str, object]) -> list[Path]:
    """Leave one row in the part of each shard, whose records tell of these units."""
    written = []
    for index, unit in enumerate(units):
        rows = pd.DataFrame({"logit_diff": [1.0]}, index=[index])
        rows.attrs["receipts"] = []
        of_run = parts.PartRecord("logit_lens", (), "key", {"model": unit}, "code")
        written.append(parts.write_part(rows, folder, Shard(index, len(units)), of_run))
    return written
