"""Own text: what `generate` says to neutral prompts, kept by recipe and weights, gone on with after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import mechint as mi
from analyses.kit.dose import CONCEPTS, OTHERS
from mechint.base.errors import UsageError
from mechint.chat.conversations import Conversation, Message
from mechint.prompts.design import SLOT, PromptDesign
from mechint.readouts import own_text as module
from mechint.readouts.own_text import OwnText, TextRecipe, neutral_prompts, own_text

RECIPE = TextRecipe(prompts=6, samples=2, max_new_tokens=5)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_AT_ONCE", 6)


def test_prompts_are_of_the_set_and_name_no_concept(model: mi.Model) -> None:
    prompts = neutral_prompts(model, 500)
    assert len(prompts) == len(set(prompts)) > 100
    requests = PromptDesign.load(model.prompts).extraction.concept
    assert not {request.replace(SLOT, name) for request in requests for name in (*CONCEPTS, *OTHERS)} & {*prompts}
    assert neutral_prompts(model, 6) == neutral_prompts(model, 6) != neutral_prompts(model, 6, seed=1)


def test_replies_are_those_of_generate(model: mi.Model) -> None:
    replies = own_text(model, RECIPE)
    prompts = neutral_prompts(model, 6)
    chats = [Conversation(str(number), (Message("user", text),)) for number, text in enumerate(prompts)]
    table = mi.generate(model, chats, mi.CLEAN, max_new_tokens=5, temperature=1.0, n=2)
    spoken = table[table["text"].str.strip() != ""]
    assert [(chat.label, chat.messages[-1].content) for chat in replies] == list(
        zip(spoken["conversation"], spoken["text"], strict=True)
    )
    assert [chat.messages[0].content for chat in replies] == [prompts[int(chat.label)] for chat in replies]


def _counted(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let the model be asked `most` times at most; returns how many prompts it was given each time."""
    calls: list[int] = []
    real: Callable[..., pd.DataFrame] = module.generate

    def generate(model: mi.Model, chats: list[Conversation], *rest: object, **options: object) -> pd.DataFrame:
        if len(calls) == most:
            raise KeyboardInterrupt
        calls.append(len(chats))
        return real(model, chats, *rest, **options)

    monkeypatch.setattr(module, "generate", generate)
    return calls


def test_a_killed_call_goes_on_to_the_same_text(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = own_text(model, RECIPE)
    for file in OwnText(model, RECIPE)._batches():
        file[0].unlink()
    with monkeypatch.context() as patch:
        _counted(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            own_text(model, RECIPE)
    assert not OwnText(model, RECIPE).is_kept
    calls = _counted(monkeypatch, 9)
    assert own_text(model, RECIPE) == whole
    assert calls == [3]
    assert OwnText(model, RECIPE).is_kept
    own_text(model, RECIPE)
    assert calls == [3]


def test_another_recipe_or_model_has_text_of_its_own(
    model: mi.Model, tiny_model: Callable[..., mi.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_text(model, RECIPE)
    calls = _counted(monkeypatch, 9)
    own_text(model, TextRecipe(prompts=6, samples=2, max_new_tokens=5, seed=1))
    own_text(tiny_model("qwen2", seed=3), RECIPE)
    assert calls == [3, 3, 3, 3]


def test_a_damaged_file_is_made_again(model: mi.Model) -> None:
    whole = own_text(model, RECIPE)
    for file, damage in zip(OwnText(model, RECIPE)._batches(), ('["a', "{}"), strict=True):
        file[0].write_text(damage)
    assert own_text(model, RECIPE) == whole


def test_a_model_that_says_nothing_is_refused(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(_: mi.Model, chats: list[Conversation], *__: object, **___: object) -> pd.DataFrame:
        return pd.DataFrame({"text": [" "] * 2 * len(chats)})

    monkeypatch.setattr(module, "generate", generate)
    with pytest.raises(UsageError, match="says nothing to 6 prompts"):
        own_text(model, RECIPE)
