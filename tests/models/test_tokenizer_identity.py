"""Models are swapped only where every text is the same numbers to both: words, special tokens, merges, rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from conftest import conversation
from transformers import AddedToken, ByT5Tokenizer, PreTrainedTokenizerFast

import mechint as mi
from mechint.base.errors import SwapError
from mechint.interventions.prefill import prefill
from mechint.models.tokenizer_identity import tokenizer_key

Change = Callable[[dict], None]


def rules(change: Change | None = None, **named: object) -> PreTrainedTokenizerFast:
    """The tiny models' tokenizer, its file changed."""
    from tokenizers import Tokenizer

    plain = tiny.tokenizer()
    content = json.loads(plain.backend_tokenizer.to_str())
    if change is not None:
        change(content)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **named}
    raw = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=plain.chat_template, **names)


def other_merges(content: dict) -> None:
    content["model"]["merges"] = content["model"]["merges"][::-1]


def other_numbers(content: dict) -> None:
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]


def other_splits(content: dict) -> None:
    content["pre_tokenizer"]["pretokenizers"] = content["pre_tokenizer"]["pretokenizers"][1:]


def normalized(content: dict) -> None:
    content["normalizer"] = {"type": "Lowercase"}


def stripped(content: dict) -> None:
    next(token for token in content["added_tokens"] if token["content"] == "<|im_start|>")["rstrip"] = True


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("one")
    tiny.hf_model("qwen2", len(rules())).save_pretrained(path)
    rules().save_pretrained(path)
    return path


@pytest.mark.parametrize("change", [other_merges, other_numbers, other_splits, normalized, stripped])
def test_a_swap_needs_the_same_tokenizer(change: Change, checkpoint: Path) -> None:
    model, other = mi.load(checkpoint), mi.load(checkpoint)
    prefill(model, conversation(), [mi.Swap(other)])
    assert other.tokenizer is not model.tokenizer
    changed = mi.wrap(other.backend.handle, rules(change))
    assert changed.vocabulary != model.vocabulary
    with pytest.raises(SwapError, match="tokenizer"):
        prefill(model, conversation(), [mi.Swap(changed)])


def test_what_changes_no_token_is_the_same_tokenizer() -> None:
    plain, padded = rules(), rules(pad_token="</s>", padding_side="left", model_max_length=7)
    padded.chat_template = None
    assert tokenizer_key(plain) == tokenizer_key(padded)
    padded("some text", max_length=3, truncation=True, padding="max_length")
    assert tokenizer_key(plain) == tokenizer_key(padded)


def test_added_and_special_tokens_count() -> None:
    plain, more = rules(), rules()
    more.add_tokens(["zorp"])
    special = rules()
    special.add_tokens([AddedToken("zorp", special=True)], special_tokens=True)
    assert len({tokenizer_key(each) for each in (plain, more, special)}) == 3


def test_tokenizers_in_python_have_keys() -> None:
    assert not ByT5Tokenizer().is_fast
    assert tokenizer_key(ByT5Tokenizer()) == tokenizer_key(ByT5Tokenizer())
    assert tokenizer_key(ByT5Tokenizer()) != tokenizer_key(ByT5Tokenizer(extra_ids=7))
