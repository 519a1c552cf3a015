"""The tokenizer of a GGUF model, made from the fields of its file and nothing else.

transformers takes the family's own rules of splitting, or GPT-2's where it does not know the name of the file's
pre-tokenizer: "1234" is then other tokens than the model was trained on. Here a name that is not known is refused.

The rules are those of llama.cpp (src/llama-vocab.cpp), in the form that the families' tokenizer.json has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from mechint.models.gguf_models import GGUFModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"


def _modern(digits: str) -> str:
    return rf"{_CONTRACTIONS}|{_BEFORE}\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"


def _cased(digits: str, after: str = "") -> str:
    words = f"{_BEFORE}{_UPPER}*{_LOWER}+{after}|{_BEFORE}{_UPPER}+{_LOWER}*{after}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


@dataclass(frozen=True)
class _Rules:
    """How a byte-level vocabulary splits a text: by each pattern in turn, every match a piece.

    Without patterns, by GPT-2's, after each digit with `digits`. `composed` normalises to NFC; `whole` keeps pieces
    that are tokens as they are; `bos` is what no key means; `empty` says how the family's file has affixes of none.
    """

    patterns: tuple[str, ...] = ()
    digits: bool = False
    composed: bool = False
    whole: bool = False
    bos: bool = False
    empty: bool = False


_DIGITS = _Rules(digits=True)
_LLAMA3 = _Rules((_modern(r"\p{N}{1,3}"),), whole=True, bos=True)
_QWEN2 = _Rules((_modern(r"\p{N}"),), composed=True, empty=True)
_GPT4O = _Rules((_cased(r"\p{N}{1,3}", rf"{_CONTRACTIONS}?"),))
RULES = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "exaone4"), _Rules(empty=True)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "midm-2.0", "pixtral"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx"), _Rules(_LLAMA3.patterns)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "kormo"), _QWEN2),
    **dict.fromkeys(("gpt-4o", "kanana2"), _GPT4O),
    "stablelm2": _Rules(_QWEN2.patterns),
    "tekken": _Rules((_cased(r"\p{N}"),), whole=True, bos=True),
    "deepseek-coder": _Rules((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
}
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6  # llama.cpp's types of tokens
_ADDED = (_CONTROL, _USER_DEFINED)
_SPACE = "\u2581"  # stands for a space in SentencePiece's words
_SPECIALS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def tokenizer_of(model: GGUFModel) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the tokenizer that a file declares, with its chat template, and where it is from, in words.

    Raises ValueError for kinds of tokenizers and of rules that are not known, and for numbers without a token.
    """
    from transformers import PreTrainedTokenizerFast

    kind, words = model.value("tokenizer.ggml.model", str), _words(model)
    if kind == "gpt2":
        name = model.value("tokenizer.ggml.pre", str, "")
        if name not in RULES:
            raise ValueError(f"its pre-tokenizer is {name[:40]!r}; known are {', '.join(RULES)}")
        raw, source, bos = _byte_level(model, words, RULES[name]), f"pre-tokenizer {name}", RULES[name].bos
    elif kind == "llama":
        raw, source, bos = _sentencepiece(model, words), "SentencePiece, text split as llama.cpp does", True
    else:
        raise ValueError(f"its tokenizer is of the kind {kind[:40]!r}; gpt2 and llama are read")
    specials = _specials(model, words)
    _add_tokens(raw, model, words)
    _frame(raw, specials, model, bos)
    template = model.fields.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError("its tokenizer.chat_template is no text")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, chat_template=template, clean_up_tokenization_spaces=False, **specials
    )
    return tokenizer, f"GGUF metadata ({source})"


def _words(model: GGUFModel) -> list[str]:
    """Return all tokens, but for the last ones that only stand for rows of the embedding without a token."""
    words = _texts(model, "tokenizer.ggml.tokens")
    while words and words[-1] == f"[PAD{len(words) - 1}]":
        words.pop()
    if not words or len(set(words)) < len(words):
        raise ValueError("its tokenizer.ggml.tokens are none, or hold a token twice")
    return words


def _texts(model: GGUFModel, key: str) -> list[str]:
    values: list[object] = model.value(key, list)
    texts = [text for text in values if isinstance(text, str)]
    if len(texts) < len(values):
        raise ValueError(f"its {key} are not all texts")
    return texts


def _types(model: GGUFModel, words: list[str]) -> list[object]:
    types: list[object] = model.value("tokenizer.ggml.token_type", list)
    if len(types) < len(words):
        raise ValueError(f"it has {len(words)} tokens and {len(types)} types of tokens")
    return types[: len(words)]


def _trained(model: GGUFModel, words: list[str]) -> dict[str, int]:
    """Return the tokens and their numbers without those that were added after them, as a tokenizer.json has it."""
    types, count = _types(model, words), len(words)
    while count and types[count - 1] in _ADDED:
        count -= 1
    return {word: number for number, word in enumerate(words[:count])}


def _byte_level(model: GGUFModel, words: list[str], rules: _Rules) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = [_pair(text) for text in _texts(model, "tokenizer.ggml.merges")]
    vocabulary = _trained(model, words)
    affixes = dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), "") if rules.empty else {}
    raw = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=rules.whole, **affixes))
    splits: list[PreTokenizer] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rules.patterns]
    splits += [pre_tokenizers.Digits(individual_digits=True)] if rules.digits else []
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rules.patterns)
    raw.pre_tokenizer = pre_tokenizers.Sequence([*splits, level]) if splits else level
    raw.decoder = decoders.ByteLevel()
    if rules.composed:
        raw.normalizer = normalizers.NFC()
    return raw


def _pair(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    if at < 0:
        raise ValueError(f"its merge {merge[:40]!r} is no pair")
    return merge[:at], merge[at + 1 :]


def _sentencepiece(model: GGUFModel, words: list[str]) -> Tokenizer:
    """Return a tokenizer that joins the pair with the highest score, as SentencePiece's BPE does."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = {word: number for number, word in enumerate(words)}
    prefix = model.value("tokenizer.ggml.add_space_prefix", bool, default=True)
    unknown = [word for word, kind in zip(words, _types(model, words), strict=True) if kind == _UNKNOWN]
    merges = _merges(model, vocabulary)
    raw = Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown[0] if unknown else None, fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", _SPACE)
    raw.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return raw


def _merges(model: GGUFModel, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return all pairs of words that make a word, the word with the highest score first."""
    scores: list[object] = model.value("tokenizer.ggml.scores", list)
    if len(scores) < len(vocabulary) or not all(isinstance(score, float | int) for score in scores):
        raise ValueError(f"it has {len(vocabulary)} tokens and {len(scores)} scores")
    types = _types(model, list(vocabulary))
    ranked: list[tuple[float, int, int, str, str]] = []
    for word, number in vocabulary.items():
        if types[number] in (_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE):
            continue
        for at in range(1, len(word)):
            left, right = vocabulary.get(word[:at]), vocabulary.get(word[at:])
            if left is not None and right is not None:
                score = scores[number]
                assert isinstance(score, float | int)
                ranked.append((-float(score), left, right, word[:at], word[at:]))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _specials(model: GGUFModel, words: list[str]) -> dict[str, str]:
    """Return the tokens that have a part to play, by transformers' names."""
    numbers = {name: model.fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIALS.items()}
    for name, number in numbers.items():
        if number is not None and (type(number) is not int or not 0 <= number < len(words)):
            raise ValueError(f"its {name} is number {str(number)[:40]} of {len(words)} tokens")
    return {name: words[number] for name, number in numbers.items() if isinstance(number, int)}


def _add_tokens(raw: Tokenizer, model: GGUFModel, words: list[str]) -> None:
    """Make every control token, and every one that the user of a vocabulary defined, a piece that is never split."""
    from tokenizers import AddedToken

    marked = [(word, kind) for word, kind in zip(words, _types(model, words), strict=True) if kind in _ADDED]
    for kind, run in groupby(marked, key=lambda pair: pair[1]):  # in order, as new ones are numbered so
        tokens = [AddedToken(word, normalized=False, special=kind == _CONTROL) for word, _ in run]
        (raw.add_special_tokens if kind == _CONTROL else raw.add_tokens)(tokens)
    if raw.get_vocab_size() != len(words):
        raise ValueError("its special tokens are not among its tokens")


def _frame(raw: Tokenizer, specials: dict[str, str], model: GGUFModel, bos: bool) -> None:
    """Let the tokens for beginning and end be added where the file says so (chat templates write their own)."""
    from tokenizers import processors

    add_bos = model.value("tokenizer.ggml.add_bos_token", bool, default=bos) and "bos_token" in specials
    add_eos = model.value("tokenizer.ggml.add_eos_token", bool, default=False) and "eos_token" in specials
    before = [specials["bos_token"]] if add_bos else []
    after = [specials["eos_token"]] if add_eos else []
    if not before and not after:
        return
    numbers = [(token, raw.token_to_id(token)) for token in dict.fromkeys((*before, *after))]
    raw.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=[*before, "$A", *after, *before, "$B:1", *after], special_tokens=numbers
    )
