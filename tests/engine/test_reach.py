"""Sliding windows: what an injection cannot reach is exactly clean, and is said in the receipt and in one warning."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mechint as mi
from benchmarks import tiny_models
from mechint.base.errors import ReachWarning
from mechint.chat.conversations import Message
from mechint.chat.render import render
from mechint.interventions.specifications import CLEAN
from mechint.models.backends.windows import Windows

ALTERNATING = ["full_attention", "sliding_attention"] * 2
MODELS = {
    "mistral": {"sliding_window": 12},
    "qwen2": {"use_sliding_window": True, "sliding_window": 12, "layer_types": ALTERNATING},
    "gpt_oss": {"sliding_window": 12, "layer_types": ALTERNATING},
    "gemma3_text": {"sliding_window": 12, "layer_types": ["sliding_attention"] * 4},
    "gpt_neo": {"window_size": 12, "attention_types": [[["local"], 4]], "attention_layers": ["local"] * 4},
    "llama": {},
}
SIZES = {
    "mistral": (12,) * 4,
    "qwen2": (None, 12) * 2,
    "gpt_oss": (None, 12) * 2,
    "gemma3_text": (12,) * 4,
    "gpt_neo": (12,) * 4,
    "llama": (None,) * 4,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, mi.Model]:
    """A model of each kind of window."""
    folder: Path = tmp_path_factory.mktemp("windows")
    return {
        name: mi.load(
            tiny_models.write_checkpoint(folder / name, tiny_models.tiny_model(tiny_models.tiny_config(name, special)))
        )
        for name, special in MODELS.items()
    }


def chat(after: int, label: str = "chat") -> mi.Conversation:
    """A conversation whose answer is read some words after its marked turns."""
    turns = (
        Message("user", "Tell me about the sea.", add_injection=True),
        Message("assistant", "b", add_injection=True),
        Message("user", " c" * after),
        Message("assistant", "The answer is", continue_msg=True),
    )
    return mi.Conversation(label, turns, yes_token=" yes", no_token=" no")


def injection(model: mi.Model, layer: int, positions: list[int] | None = None) -> mi.Injection:
    row = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    vector = mi.ConceptVector({layer: row}, "random", model.n_layers)
    return mi.Injection(vector, layers=[layer], relative_strength=3.0, positions=positions, name="steer")


@pytest.mark.parametrize("name", MODELS)
def test_windows_are_those_that_the_model_computes_with(name, models):
    model = models[name]
    assert model.blocks.windows.sizes == SIZES[name]
    assert getattr(model.blocks.model.config.get_text_config(), "sliding_window", None) in (None, 12)


@pytest.mark.parametrize("name", [name for name in MODELS if None not in SIZES[name]] + ["qwen2"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_last_position_that_is_reached_is_the_last_one_that_changes(name, layer, models):
    model, start = models[name], 3
    tokens = render(model, chat(40)).token_tensor()
    row = injection(model, layer).amount(layer, model)

    def add(activation: torch.Tensor, /, *, hook: object) -> torch.Tensor:
        changed = activation.clone()
        changed[:, start] += row
        return changed

    last: list[torch.Tensor] = []
    watch = (model.resid_post(3), lambda activation, hook: last.append(activation[0].clone()))
    for hooks in ([watch], [(model.resid_post(layer), add), watch]):
        model.forward(tokens, hooks=hooks)
    changed = (last[0] != last[1]).any(-1).nonzero()[:, 0].tolist()
    reach = model.blocks.windows.reach(layer, start)
    assert changed[-1] == (tokens.shape[1] - 1 if reach is None else reach)


def test_an_injection_that_ends_before_the_answer_is_exactly_clean_and_said_so_once(models):
    model = models["mistral"]
    near, far = chat(1, "near"), chat(60, "far")
    with pytest.warns(ReachWarning, match="1 of 4 cells read exactly what clean reads.*'far'") as warned:
        table = mi.score(model, [near, far], [CLEAN, injection(model, 1)])
    assert len(warned) == 1
    shift = table.set_index(["conversation", "intervention"]).logit_diff_shift
    assert shift["far", "steer"] == 0.0
    assert shift["near", "steer"] != 0.0
    receipts = {(r["conversation"], r["intervention"]): r["reach"] for r in table.attrs["receipts"]}
    end = render(model, far).prefix_length - 1 + 2 * 11
    assert receipts["near", "steer"] == end
    assert end < len(render(model, far).tokens) - 1
    assert mi.prefill(model, far, [CLEAN, injection(model, 1)]).receipts[1].reach == end
    with pytest.warns(ReachWarning):
        mi.generate(model, far, injection(model, 1), max_new_tokens=1)


def test_nothing_is_said_where_one_block_sees_everything(models):
    for name in ("qwen2", "llama"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = mi.score(models[name], chat(60), [CLEAN, injection(models[name], 1)])
        assert table.logit_diff_shift[1] != 0
        assert all(receipt["reach"] is None for receipt in table.attrs["receipts"])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=6), st.integers(-1, 5), st.integers(0, 40))
def test_reach_is_that_of_following_every_path(sizes, layer, position):
    windows = Windows(tuple(sizes))
    reached = {position}
    for size in sizes[layer + 1 :]:
        reached = {q for q in range(120) if any(k <= q and (size is None or q - k < size) for k in reached)}
    reach = windows.reach(layer, position)
    assert max(reached) == (119 if reach is None else reach)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tables_say_the_dtype(dtype, tiny_checkpoint):
    model = mi.load(tiny_checkpoint("qwen2"), dtype=dtype)
    tables = [
        mi.score(model, chat(1), [CLEAN]),
        mi.logit_lens(model, chat(1), [CLEAN]),
        mi.generate(model, chat(1), CLEAN, max_new_tokens=1),
        mi.text_loss(model, ["The sea is wide."], [CLEAN]),
    ]
    assert {table.attrs["dtype"] for table in tables} == {dtype}
