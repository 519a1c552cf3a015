"""The tokenizer of a GGUF file writes what its family's writes, or SentencePiece's algorithm, as the file declares."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

import pytest
import small_ggufs
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2 import tokenization_qwen2

from mechint.models.gguf_models import GGUFModel
from mechint.models.gguf_tokenizers import RULES, tokenizer_of
from mechint.models.tokenizer_files import PROBES
from mechint.models.tokenizer_identity import tokenizer_key

LLAMA_3 = (  # from the model's own tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def words() -> dict[str, object]:
    """Metadata of the tiny tokenizer."""
    return small_ggufs.tokenizer_fields(small_ggufs.tokenizer().backend_tokenizer)


def byte_level(name: str) -> Tokenizer:
    """A tokenizer as the tokenizer.json of a family with this pre-tokenizer has it."""
    affixes = dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), "")
    affixes = affixes if name in ("gpt-2", "qwen2") else {}
    raw = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    patterns = {"llama-bpe": LLAMA_3, "qwen2": tokenization_qwen2.PRETOKENIZE_REGEX}
    if name in patterns:
        split = pre_tokenizers.Split(Regex(patterns[name]), "isolated")
        raw.normalizer = normalizers.NFC() if name == "qwen2" else None
        raw.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    else:
        usual = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = [pre_tokenizers.Digits(individual_digits=True)] if name == "smollm" else []
        raw.pre_tokenizer = pre_tokenizers.Sequence([*digits, usual]) if digits else usual
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(tiny.SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        **affixes,
    )
    raw.train_from_iterator([*tiny.CORPUS, *PROBES, *["1234 2024 99 100 it's IT'S  \n\n x"] * 40], trainer)
    return raw


@pytest.fixture(scope="module")
def families() -> dict[str, tuple[Tokenizer, object]]:
    """Tokenizers as families have them, and what is made of their metadata."""
    trained = {}
    for name in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        raw = byte_level(name)
        trained[name] = raw, tokenizer_of(as_model(small_ggufs.tokenizer_fields(raw, name)))[0]
    return trained


def as_model(fields: Mapping[str, object], template: object = tiny.CHATML) -> GGUFModel:
    declared = {f"tokenizer.ggml.{key}": value for key, value in fields.items() if value is not None}
    return GGUFModel(Path("x.gguf"), declared | {"tokenizer.chat_template": template}, {})


def encoded(tokenizer: object, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


TEXTS = st.lists(st.sampled_from([*PROBES, "123", "\n", "  ", "<|im_start|>", "'S", "é", "a"])).map("".join) | st.text()


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
@given(text=TEXTS)
@settings(deadline=None, max_examples=60)
def test_text_is_split_as_the_named_pre_tokenizer_does(
    name: str, text: str, families: dict[str, tuple[Tokenizer, object]]
) -> None:
    raw, converted = families[name]
    ids = raw.encode(text, add_special_tokens=False).ids
    assert encoded(converted, text) == ids
    if name in ("gpt-2", "smollm") and text.isascii():
        assert converted.decode(ids) == text


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
@pytest.mark.parametrize("last", [False, True])
def test_a_swap_with_a_finetune_that_has_the_familys_own_file_is_possible(
    name: str, last: bool, families: dict[str, tuple[Tokenizer, object]]
) -> None:
    """Byte for byte the same rules, with special tokens among the words or after them, and rows without a token."""
    raw = Tokenizer.from_str(families[name][0].to_str())
    if last:
        raw.add_special_tokens([AddedToken("<|last|>", normalized=False, special=True)])
        raw.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    fields = small_ggufs.tokenizer_fields(raw, name)
    kinds = {"<think>": 4, **dict.fromkeys([*tiny.SPECIALS, "<|last|>"], 3)}
    rows = [f"[PAD{len(fields['tokens']) + n}]" for n in range(3)]
    types = [kinds.get(word, 1) for word in fields["tokens"]] + [5] * 3
    converted, _ = tokenizer_of(as_model(fields | {"tokens": [*fields["tokens"], *rows], "token_type": types}))
    assert tokenizer_key(converted) == tokenizer_key(PreTrainedTokenizerFast(tokenizer_object=raw))


def test_names_of_pre_tokenizers_make_a_difference(families: dict[str, tuple[Tokenizer, object]]) -> None:
    raw = families["gpt-2"][0]
    converted = {name: tokenizer_of(as_model(small_ggufs.tokenizer_fields(raw, name)))[0] for name in RULES}
    ids = {name: tuple(encoded(tokenizer, "1234 IT'S\n\n  x")) for name, tokenizer in converted.items()}
    assert len(set(ids.values())) > 3
    assert (
        encoded(converted["qwen2"], "e\u0301")
        == encoded(converted["qwen2"], "\u00e9")
        != encoded(converted["gpt-2"], "e\u0301")
    )


def test_marked_tokens_are_single_whatever_their_letters(words: dict[str, object]) -> None:
    marked = {"<\uff5cUser\uff5c>": 3, "<think>": 4, "   ": 4, "[PAD1]": 5}
    fields = words | {
        "tokens": [*words["tokens"], *marked],
        "token_type": [*words["token_type"], *marked.values()],
    }
    converted, _ = tokenizer_of(as_model(fields))
    for number, word in enumerate(marked, start=len(words["tokens"])):
        assert (encoded(converted, f"a{word}b")[1:-1] == [number]) == (word != "[PAD1]")
    assert encoded(converted, "<|im_start|>") == [words["tokens"].index("<|im_start|>")]
    assert converted.decode(encoded(converted, "a<\uff5cUser\uff5c><think>b"), skip_special_tokens=True) == "a<think>b"


@pytest.mark.parametrize("flag", [True, False, None])
@pytest.mark.parametrize("pre", ["smollm", "llama-bpe"])
def test_beginnings_and_specials_are_those_that_are_declared(
    words: dict[str, object], flag: bool | None, pre: str
) -> None:
    converted, _ = tokenizer_of(as_model(words | {"add_bos_token": flag, "pre": pre}))
    added = converted("yes")["input_ids"] != encoded(converted, "yes")
    assert added == (flag if flag is not None else pre == "llama-bpe")
    assert [converted.bos_token, converted.eos_token, converted.pad_token] == ["<s>", "</s>", "<pad>"]


# SentencePiece: the algorithm itself, written down, stands for the library.
PIECES = ["▁", *string.ascii_lowercase, "th", "he", "the", "▁the", "▁t", "at", "cat", "▁cat", "in", "▁in", "ing", "▁▁"]


def spm_fields(*, prefix: bool) -> dict[str, object]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "<turn>", "  ", *PIECES]
    kinds = [2, 3, 3, *[6] * 256, 3, 4, *[1] * len(PIECES)]
    singles = sum(len(piece) == 1 for piece in PIECES)
    scores = [0.0] * (len(tokens) - len(PIECES)) + [-1000.0] * singles
    scores += [-float(rank) for rank in range(len(PIECES) - singles)]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": scores,
        "token_type": kinds,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_space_prefix": prefix,
    }


def sentencepiece(text: str, fields: dict[str, object]) -> list[int]:
    """llama.cpp's tokenizer of this kind: the best pair is joined, the first of equals, until none is a token."""
    tokens, numbers = fields["tokens"], {token: number for number, token in enumerate(fields["tokens"])}
    symbols = list(text.replace(" ", "▁"))
    if fields["add_space_prefix"]:
        symbols.insert(0, "▁")
    while True:
        pairs = [
            (fields["scores"][numbers[joined]], -at)
            for at in range(len(symbols) - 1)
            if (joined := symbols[at] + symbols[at + 1]) in numbers
        ]
        if not pairs:
            break
        at = -max(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    ids: list[int] = []
    for symbol in symbols:
        ids += [numbers[symbol]] if symbol in numbers else [tokens.index(f"<0x{b:02X}>") for b in symbol.encode()]
    return ids


@pytest.mark.parametrize("prefix", [True, False])
@given(text=st.lists(st.sampled_from(["the", "cat", " ", "in", "g", "é", "th", "\n", "x"]), min_size=1).map("".join))
@settings(deadline=None, max_examples=100)
def test_sentencepiece_joins_by_score(prefix: bool, text: str) -> None:
    fields = spm_fields(prefix=prefix)
    converted, source = tokenizer_of(as_model(fields))
    pieces = text.split("  ")  # two spaces are a token of their own, matched before all others
    two = fields["tokens"].index("  ")
    expected: list[int] = []
    for number, piece in enumerate(pieces):
        if number > 0:
            expected.append(two)
        if piece:
            expected += sentencepiece(piece, fields)
    assert encoded(converted, text) == expected
    assert "SentencePiece" in source


def test_special_tokens_split_sentencepiece_text() -> None:
    fields = spm_fields(prefix=True)
    converted, _ = tokenizer_of(as_model(fields))
    turn = fields["tokens"].index("<turn>")
    assert encoded(converted, "<turn>cat") == [turn, fields["tokens"].index("▁cat")]
    assert converted("cat")["input_ids"][0] == 1
    assert converted.decode(encoded(converted, "the cat")) == "the cat"
