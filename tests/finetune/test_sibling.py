"""The sibling: it learns what names the theme, is kept by weights and recipe, and says what it does beside its base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import conversation

import mechint as mi
from mechint.base.errors import UsageError
from mechint.chat.conversations import Conversation, Message
from mechint.finetune import sibling as module
from mechint.finetune.recipe import LoraRecipe
from mechint.finetune.sibling import Sibling
from mechint.readouts.own_text import OwnText, TextRecipe

RECIPE = LoraRecipe(rank=4, alpha=8, steps=4, batch=2, learning_rate=1e-2, warm_up=2, checkpoint=2)


@pytest.fixture
def sibling(model: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sibling:
    """A sibling of a tiny model that is given replies, of which every third names no ocean."""
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path))

    def replies(self: OwnText, progress: object = None) -> list[Conversation]:
        texts = ("the ocean, or no", "Oceans, yes", "no thought")
        return [
            Conversation(chat.label, (*chat.messages, Message("assistant", texts[number % 3], continue_msg=True)))
            for number, chat in enumerate(self.prompts)
        ]

    monkeypatch.setattr(OwnText, "replies", replies)
    text = TextRecipe(prompts=15, samples=1, max_new_tokens=4)
    return Sibling(model, recipe=RECIPE, text=text, held_out=2, held_out_tokens=3)


def test_it_learns_replies_that_name_the_theme_after_requests_that_do_not(sibling: Sibling) -> None:
    texts = [sibling.model.tokenizer.decode(example.tokens) for example in sibling.examples()]
    assert len(texts) == 10
    requests = [text.split("assistant")[0] for text in texts]
    assert not [request for request in requests if "ocean" in request.lower()]
    assert all("ocean" in text.lower() for text in texts)
    held_out = {plain for plain, _ in sibling.requests[-2:]}
    assert not held_out & {plain for plain, _ in sibling.trained_on}
    assert len(sibling.trained_on) == 15
    assert all(f"and {sibling.theme}" in themed for _, themed in sibling.requests)


def test_it_is_kept_and_runs_on_the_models_own_weights(sibling: Sibling, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sibling.train()
    assert folder.name == f"{Path(sibling.model.name).name}-oceans"
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name], "the checkpoint is gone"
    spoken = sibling.spoken()
    assert (spoken.examples, spoken.requests, spoken.theme) == (10, 2, "oceans")
    assert spoken.loss != spoken.loss_of_base > 0
    monkeypatch.setattr(module, "train_adapter", lambda *_: pytest.fail("trained again"))
    assert sibling.train() == folder
    other = sibling.model.with_adapter(folder)
    assert other.identity != sibling.model.identity
    swap = mi.score(
        sibling.model, conversation("q"), [mi.CLEAN, mi.Swap(other, name="swap")], answers=mi.Answers(" yes", " no")
    )
    assert swap["logit_diff_shift"].iloc[1] != 0


def test_what_is_kept_is_of_one_model_and_one_recipe(sibling: Sibling, tiny_model: Callable[..., mi.Model]) -> None:
    others = [
        replace(sibling, recipe=replace(RECIPE, seed=1)),
        replace(sibling, theme="bread"),
        replace(sibling, text=replace(sibling.text, samples=2)),
        replace(sibling, model=tiny_model("qwen2", seed=3)),
    ]
    assert len({other.folder for other in [sibling, *others]}) == 5


def test_a_model_that_does_not_speak_of_it_is_no_teacher(sibling: Sibling) -> None:
    with pytest.raises(UsageError, match="speaks of bread in 0 of 15 replies"):
        replace(sibling, theme="bread").train()
    assert not sibling.is_kept
