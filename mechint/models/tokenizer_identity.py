"""The identity of a tokenizer: two are the same if they write every text as the same numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mechint.base.files import sha256
from mechint.models.tokenizer_files import PROBES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a fast tokenizer does to a text before and while it is split. Padding, truncation, the tokens that are put around
# a text, and how numbers become text again are no part of it.
_RULES = ("normalizer", "pre_tokenizer", "model")


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of a tokenizer's words and numbers, added and special tokens, and rules: merges, splits, and so on.

    Rules that are no data, those of tokenizers written in Python, are told by their class and by what they make of some
    texts.
    """
    words = sorted(tokenizer.get_vocab().items())
    added = sorted((number, repr(token)) for number, token in tokenizer.added_tokens_decoder.items())
    return sha256(json.dumps([words, added]).encode(), json.dumps(_rules(tokenizer), sort_keys=True).encode())


def _rules(tokenizer: PreTrainedTokenizerBase) -> object:
    if not tokenizer.is_fast:
        return [type(tokenizer).__name__, [tokenizer.encode(text, add_special_tokens=False) for text in PROBES]]
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return {name: content[name] for name in _RULES}
