"""How many positions a model can be read at: below the limit every conversation is exact, beyond it all is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import mechint as mi
from benchmarks import plain, tiny_models
from mechint.base.errors import UsageError
from mechint.chat.conversations import Message
from mechint.chat.render import render, render_all

LIMIT = 64
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [4.0, 5.0, 6.0, 8.0]}
KINDS = {
    "longrope": (
        "phi3",
        {"original_max_position_embeddings": LIMIT, "rope_parameters": {**LONGROPE, "rope_theta": 1e4}},
    ),
    "dynamic": (
        "llama",
        {
            "max_position_embeddings": LIMIT,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
        },
    ),
    "learned": ("opt", {"max_position_embeddings": LIMIT}),
    "learned, gpt2": ("gpt2", {"n_positions": LIMIT}),
}


@pytest.fixture(scope="module")
def path_of(tmp_path_factory: pytest.TempPathFactory):
    """The checkpoint of each kind of positions."""
    folder = tmp_path_factory.mktemp("context")

    def make(kind: str) -> Path:
        path = folder / kind.replace(", ", "-")
        if not path.exists():
            tiny_models.write_checkpoint(path, tiny_models.tiny_model(tiny_models.tiny_config(*KINDS[kind])))
        return path

    return make


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, path_of) -> Path:
    """A checkpoint of each kind in turn."""
    checkpoint: Path = path_of(request.param)
    return checkpoint


@pytest.fixture(scope="module")
def model(path: Path) -> mi.Model:
    """Its model."""
    return mi.load(path)


def chat(label: str, before: int, after: int) -> mi.Conversation:
    """A conversation with some words in its first turn and some in its second question."""
    turns = (
        Message("user", " a" * before, add_injection=True),
        Message("assistant", "b", add_injection=True),
        Message("user", " c" * after),
        Message("assistant", "The answer is", continue_msg=True),
    )
    return mi.Conversation(label, turns, yes_token=" yes", no_token=" no")


def of_length(model: mi.Model, n_pos: int, after: int = 1) -> mi.Conversation:
    """A conversation of so many tokens."""
    shortest = len(render(model, chat("x", 1, after)).tokens)
    fitting = chat(f"{n_pos}/{after}", n_pos - shortest + 1, after)
    assert len(render(model, fitting).tokens) == n_pos
    return fitting


def expected(path: Path, model: mi.Model, conversation: mi.Conversation) -> float:
    """Plain Hugging Face for a conversation alone, with a model that has read nothing before."""
    yes = model.tokenizer.encode(" yes", add_special_tokens=False)[0]
    no = model.tokenizer.encode(" no", add_special_tokens=False)[0]
    fresh = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
    logits = plain.Plain(fresh).logits(render(model, conversation).tokens)
    return float(logits[yes] - logits[no])


def test_up_to_the_limit_each_conversation_is_exact_whatever_else_is_in_the_table(path, model):
    """What is read after a long and a short past is padded together, beyond the last position that there is."""
    chats = [of_length(model, LIMIT), of_length(model, LIMIT - 1, after=30), of_length(model, 44)]
    table = mi.score(model, chats, [mi.CLEAN]).set_index("conversation")
    for item in chats:
        truth = expected(path, model, item)
        assert table.logit_diff[item.label] == pytest.approx(truth, abs=1e-4)
        assert mi.score(model, item, [mi.CLEAN]).logit_diff[0] == pytest.approx(truth, abs=1e-4)


def test_beyond_the_limit_every_way_in_is_refused_with_its_reason(model, tmp_path):
    within, beyond = of_length(model, 44), of_length(model, 91)
    ways = {
        "score": lambda: mi.score(model, [within, beyond], [mi.CLEAN]),
        "lens": lambda: mi.logit_lens(model, beyond, [mi.CLEAN]),
        "generate": lambda: mi.generate(model, beyond, mi.CLEAN, max_new_tokens=1),
        "a reply that grows beyond": lambda: mi.generate(model, within, mi.CLEAN, max_new_tokens=40),
        "prefill": lambda: mi.prefill(model, beyond, [mi.CLEAN]),
        "fill": lambda: mi.fill(model, [within, beyond], tmp_path / "filled"),
        "text loss": lambda: mi.text_loss(model, ["a b " * 60], [mi.CLEAN]),
        "a pass": lambda: model.forward(torch.zeros((1, LIMIT + 1), dtype=torch.long)),
        "a pass after a cache": lambda: model.forward(
            torch.zeros((1, 2), dtype=torch.long), model.forward(torch.zeros((1, LIMIT - 1), dtype=torch.long))
        ),
        "logits": lambda: model.logits(torch.zeros((1, LIMIT + 1), dtype=torch.long)),
    }
    for way, call in ways.items():
        with pytest.raises(UsageError, match=f"at most {LIMIT}: "):
            pytest.fail(f"{way} is not refused: {call()}")
    assert not list(tmp_path.rglob("*.safetensors")), "refused before anything is filled"


def test_the_limit_is_that_of_the_configuration_under_its_older_names(path_of, tmp_path):
    for kind, old in (("longrope", {**LONGROPE, "type": "longrope"}), ("dynamic", {"type": "dynamic", "factor": 4.0})):
        source = path_of(kind)
        for file in source.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        config = json.loads((source / "config.json").read_text())
        del config["rope_parameters"]
        config |= {"rope_scaling": {key: value for key, value in old.items() if key != "rope_type"}, "rope_theta": 1e4}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert mi.load(tmp_path).backend.context.n_pos == LIMIT


def test_frequencies_that_a_model_writes_anew_in_each_pass_are_no_edit_of_its_weights(path_of):
    model = mi.load(path_of("longrope"))
    before, norms = model.weights.versions(), model.residual_norms
    mi.score(model, of_length(model, 44), [mi.CLEAN])
    assert model.weights.versions() == before
    assert model.residual_norms is norms, "measured once"
    with torch.no_grad():
        next(model.backend.hf_model.parameters()).mul_(1.5)
    assert model.weights.versions() != before


def test_static_scalings_have_no_limit(tmp_path):
    for kind in ("linear", "yarn"):
        rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": LIMIT}
        if kind == "linear":
            del rope["original_max_position_embeddings"]
        config = tiny_models.tiny_config("llama", {"max_position_embeddings": 256, "rope_parameters": rope})
        model = mi.load(tiny_models.write_checkpoint(tmp_path / kind, tiny_models.tiny_model(config)))
        assert model.backend.context.n_pos is None
        longer = render_all(model, [of_length(model, 91), of_length(model, 44)])
        assert [len(item.tokens) for item in longer] == [91, 44]
        truth = expected(tmp_path / kind, model, of_length(model, 91))
        table = mi.score(model, [of_length(model, 91), of_length(model, 44)], [mi.CLEAN])
        assert table.logit_diff[0] == pytest.approx(truth, abs=1e-4)
