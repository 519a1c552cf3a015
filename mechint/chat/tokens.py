"""Answer tokens: pairs, sets of variants and option lists, each a checked single token, never a guess."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mechint.base.errors import TokenizationError, TokenizationWarning, UsageError
from mechint.base.signatures import checked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REDUCTIONS = ("sum", "max")

YES_VARIANTS = (" yes", " Yes", "yes", "Yes")
NO_VARIANTS = (" no", " No", "no", "No")


@checked
@dataclass(frozen=True)
class Answers:
    """Which tokens are read as answers: yes against no (each a set of variants), or a list of options.

    Over variants, `reduce` gives the probability summed ("sum"; the logit is then the log-sum-exp of the
    variants' logits) or that of the likeliest variant ("max").
    """

    yes: str | Sequence[str] = ()
    no: str | Sequence[str] = ()
    reduce: str = "sum"
    choices: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("yes", "no", "choices"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if self.reduce not in REDUCTIONS:
            raise UsageError(f"reduce={self.reduce!r}", "'sum' or 'max'", "choose one of the two")
        texts = self.texts()
        if len(set(texts)) != len(texts) or "" in texts:
            raise UsageError(f"answers {texts}", "each answer once, none empty", "remove what is repeated or empty")

    @classmethod
    def options(cls, options: Sequence[str]) -> Answers:
        """Return answers that are a list of options, each read on its own."""
        if isinstance(options, str) or not options:
            raise UsageError(f"options {options!r}", "a list of one or more answers", "pass a list")
        return cls(choices=tuple(options))

    @classmethod
    def variants(cls, reduce: str = "sum") -> Answers:
        """Return yes and no in four spellings each: with and without a space, capitalised or not."""
        return cls(yes=YES_VARIANTS, no=NO_VARIANTS, reduce=reduce)

    def texts(self) -> tuple[str, ...]:
        """Every answer text, in order: yes, no, choices."""
        return (*self.yes, *self.no, *self.choices)


def single_token(tokenizer: PreTrainedTokenizerBase, answer: str, context: str = "") -> int:
    """Return the id of `answer` as one token, read after the rendered text `context` if that is given.

    Tokenizers that mark word beginnings (SentencePiece) split " yes" on its own but not in context: the id that
    `answer` adds to `context` is then taken. Warns (TokenizationWarning) if the tokenizer would write another token
    there than on its own. Raises TokenizationError, naming the pieces, if the answer is not one token.
    """
    alone = _encode(tokenizer, answer)
    added = _added(tokenizer, context, answer) if context else alone
    if len(alone) == 1:
        if added != alone:
            warnings.warn(
                f"the answer {answer!r} is token {alone[0]}, but after {context[-20:]!r} the tokenizer would write "
                f"{_pieces(tokenizer, added) if added else 'other tokens'}; check the assistant_prefix",
                TokenizationWarning,
                stacklevel=3,
            )
        return alone[0]
    if added is not None and len(added) == 1:
        return added[0]
    raise TokenizationError(
        given=f"the answer {answer!r} is {len(alone)} tokens: {_pieces(tokenizer, alone)}",
        allowed="answers that are a single token of this tokenizer",
        advice="choose another spelling (with or without the space before it), or a set of variants: "
        "answers=mi.Answers(yes=(...), no=(...))",
    )


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _added(tokenizer: PreTrainedTokenizerBase, context: str, answer: str) -> list[int] | None:
    before, after = _encode(tokenizer, context), _encode(tokenizer, context + answer)
    return after[len(before) :] if after[: len(before)] == before else None


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    return [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
