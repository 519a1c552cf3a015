"""The organism's tokenizer: byte-level BPE of 2,560 entries, digits split, ChatML template."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from mechint.base.errors import TokenizationError
from mechint.organisms import concepts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 2560
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [END_OF_TEXT, TURN_START, TURN_END]
ANSWERS = (" yes", " no", " Yes", " No", "yes", "no", "Yes", "No")
# A space belongs to the word or the digit after it; each digit stands alone, so that " 7" is one token.
SPLIT = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s*\n+|\s+"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def single_tokens() -> list[str]:
    """Return the strings that must be single tokens: answers, digits after a space, concepts after a space."""
    return [
        *ANSWERS,
        " nothing",
        *(f" {digit}" for digit in range(10)),
        *(f" {concept}" for concept in concepts("all")),
    ]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Return a BPE tokenizer of exactly 2,560 entries trained on `texts`; raises TokenizationError."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    # A lone word on its line, many times: rare concepts must not split.
    frequent = [word for word in single_tokens() for _ in range(500)]
    tokenizer.train_from_iterator([*texts, *frequent], trainer)
    check_single_tokens(tokenizer)
    return tokenizer


def check_single_tokens(tokenizer: Tokenizer) -> None:
    """Raise TokenizationError if an answer, a digit or a concept is more than one token."""
    for text in single_tokens():
        pieces = tokenizer.encode(text).tokens
        if len(pieces) != 1:
            raise TokenizationError(
                given=f"{text!r} is {pieces}", allowed="one token", advice="give it more weight in the corpus"
            )


def as_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers uses it, with special tokens and the ChatML template."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        model_max_length=1024,
        padding_side="left",
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


def load_tokenizer(directory: Path) -> Tokenizer:
    """Return the plain tokenizer of a checkpoint directory."""
    return Tokenizer.from_file(str(directory / "tokenizer.json"))
