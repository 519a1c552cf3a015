"""Whether the answers of a recipe are single tokens of a tokenizer, as they follow the prefill."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mechint.base.errors import TokenizationError
from mechint.chat.tokens import single_token
from mechint.finetune.specification import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_tokens(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the token of each answer of a recipe, trained or held out, as it follows the prefill.

    Raises TokenizationError for an answer of several tokens, naming a spelling that is one, and for two answers that
    are the same token. Taking the first of several would train another word without saying so.
    """
    words = [word for split in ("train", "held_out") for answers in recipe.answer_sets(split) for word in answers]
    tokens = {word: _token(tokenizer, recipe.asking.prefill, word) for word in dict.fromkeys(words)}
    if len(set(tokens.values())) < len(tokens):
        raise TokenizationError(
            given=f"answers of recipe {recipe.name!r} that are the same token: {tokens}",
            allowed="a token for each answer",
            advice="choose other words",
        )
    return tokens


def _token(tokenizer: PreTrainedTokenizerBase, prefill: str, word: str) -> int:
    try:
        return single_token(tokenizer, word, prefill)
    except TokenizationError as error:
        fitting = [repr(spelling) for spelling in _spellings(word) if _is_single(tokenizer, prefill, spelling)]
        advice = (
            f"write it as {' or '.join(fitting)}" if fitting else "choose another word, or a recipe's `small` answers"
        )
        raise TokenizationError(error.given, error.allowed, advice) from error


def _spellings(word: str) -> Iterator[str]:
    """Yield other spellings of an answer that follow the same prefill."""
    space, bare = word[: len(word) - len(word.lstrip())], word.strip()
    yield from (
        f"{space}{spelling}" for spelling in (bare.lower(), bare.capitalize(), bare.upper()) if spelling != bare
    )


def _is_single(tokenizer: PreTrainedTokenizerBase, prefill: str, word: str) -> bool:
    try:
        single_token(tokenizer, word, prefill)
    except TokenizationError:
        return False
    return True
