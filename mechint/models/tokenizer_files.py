"""The tokenizer that a checkpoint's own `tokenizer.json` says.

For about twenty model types transformers makes the family's tokenizer anew from the words of `tokenizer.json` and drops
its rules of splitting. A checkpoint that was trained with other rules (a distillation, a merged model, a tokenizer with
words added) is then read as other tokens than it knows, and every number differs. So the two are compared:

    tokenizer.json splits "1234" into "1234"; Qwen2's own rules into "1", "2", "3", "4"
    -> the file's tokenizer is taken, and the model says so (`model.tokenizer_source`)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import ModelValidationError
from mechint.models.model_names import Source

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

FILE = "tokenizer.json"
# Where rules of splitting differ between families: digits, white space, contractions, case, scripts, marks, symbols.
PROBES = (
    "The answer is 7, 42, 2024 or 1234567890; 3.14 and 1,000.",
    "  two   spaces\tand a tab\n\nlines \n  indented\r\n\n\n   ",
    "don't I'LL we've it's THEY'RE rock'n'roll",
    "naïve café Ångström e\u0301 ﬁ Ⅳ ½ ²",
    "漢字とかな 한국어 русский العربية हिन्दी ไทย עברית",
    "👍🏽 👩‍👩‍👧 🇫🇷 → ≠ ∑ _under_ snake_case CamelCase HTTPServer2",
    'def f(x):\n    return x**2  # 100%\n\t</tag> <|pipe|> [INST] {"key": [1, 2]}',
    " yes",
    "yes",
)


def own_tokenizer(
    source: Source, truth: Tokenizer | None, built: PreTrainedTokenizerBase
) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the tokenizer of a checkpoint's `tokenizer.json`, and where it is from.

    `truth` is what `read_rules` returns, `built` what transformers made of the checkpoint. Where it is from is said in
    words, with the first difference if `built` is not used.
    Raises ModelValidationError for a file that transformers cannot be made to follow.
    """
    if truth is None:
        return built, f"{type(built).__name__} (the checkpoint has no {FILE})"
    difference = _difference(truth, built)
    if difference is None:
        return built, FILE
    replaced = _from_file(source)
    remaining = _difference(truth, replaced)
    if remaining is not None:
        raise ModelValidationError(
            given=f"model {source.name!r}: no tokenizer of transformers writes what its {FILE} says: {remaining}",
            allowed=f"a {FILE} that transformers can load",
            advice="save the tokenizer again with PreTrainedTokenizerFast(tokenizer_file=...).save_pretrained()",
        )
    return replaced, f"{FILE}; transformers' {type(built).__name__} would split other tokens: {difference}"


def check_rows(tokenizer: PreTrainedTokenizerBase, n_rows: int, name: str) -> None:
    """Raise ModelValidationError if chats would need tokens beyond the `n_rows` of a model's embedding.

    Tokens that were added to a tokenizer and that no chat needs, often one for padding, may lie beyond.
    """
    template, added = str(tokenizer.chat_template or ""), tokenizer.get_added_vocab()
    needed = {str(token) for token in (tokenizer.bos_token, tokenizer.eos_token) if token}
    beyond = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if number >= n_rows and (token not in added or token in needed or token in template)
    }
    if beyond:
        token = min(beyond, key=lambda token: beyond[token])
        raise ModelValidationError(
            given=f"model {name!r}: its tokenizer has token {beyond[token]} ({token!r}), its embedding {n_rows} rows",
            allowed="the tokenizer that the model was trained with: numbers below the rows of the embedding",
            advice="take the tokenizer files from the model's own repository, or resize its embedding and train that",
        )


def _tokenizer_file(source: Source) -> Path | None:
    """Return the file of a directory, or of a hub's repository as it is cached; None if there is none."""
    if source.is_local:
        path = Path(source.location) / FILE
        return path if path.is_file() else None
    from transformers.utils import cached_file

    cached = cached_file(
        source.location,
        FILE,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if cached is None else Path(cached)


def read_rules(source: Source) -> Tokenizer | None:
    """Return the tokenizer of a checkpoint's `tokenizer.json`; None if there is no such file.

    Raises ModelValidationError for a file that cannot be read.
    """
    from tokenizers import Tokenizer

    path = _tokenizer_file(source)
    if path is None:
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelValidationError(
            given=f"model {source.name!r}: its {FILE} cannot be read: {str(error)[:200]}",
            allowed=f"a {FILE} as the tokenizers library writes it",
            advice="download or save the tokenizer again",
        ) from error


def _from_file(source: Source) -> PreTrainedTokenizerBase:
    """Return the file's tokenizer with the checkpoint's special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
        source.location, trust_remote_code=False
    )
    return tokenizer


def _difference(truth: Tokenizer, built: PreTrainedTokenizerBase) -> str | None:
    """Return the first text that the two write as different tokens, with these; None if all are the same."""
    added = [token.content for token in truth.get_added_tokens_decoder().values()]
    around = [f"a{token}b {token} 12\n" for token in added]
    for text in (*PROBES, *added, *around):
        right = truth.encode(text, add_special_tokens=False)
        ids = _encoded(built, text)
        if ids != right.ids:
            pieces = "nothing at all" if ids is None else built.convert_ids_to_tokens(ids[:8])
            return f"{text[:24]!r} is {right.tokens[:8]} there, and would be {pieces}"
    return None


def _encoded(built: PreTrainedTokenizerBase, text: str) -> list[int] | None:
    """Return the tokens of a text; None where a tokenizer fails, as one with another family's words does."""
    try:
        return list(built(text, add_special_tokens=False)["input_ids"])
    except Exception:  # noqa: BLE001  (tokenizers raises bare Exceptions)
        return None
