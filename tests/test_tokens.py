"""Answer tokens are single tokens, or an error that names the pieces."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import tiny
from conftest import conversation

from mechint.answers import all_answer_ids, answer_ids
from mechint.errors import TokenizationError, TokenizationWarning, UsageError
from mechint.render import render_all
from mechint.tokens import Answers, single_token

TOKENIZER = tiny.tokenizer()


def test_single_token():
    assert TOKENIZER.decode([single_token(TOKENIZER, " yes", "The answer is")]) == " yes"
    assert single_token(TOKENIZER, " yes") != single_token(TOKENIZER, " Yes")


def test_several_tokens_are_named():
    with pytest.raises(TokenizationError, match=r"' maybe' is \d tokens: \['Ġm', 'a'"):
        single_token(TOKENIZER, " maybe", "The answer is")


def test_empty_answer():
    with pytest.raises(TokenizationError, match="0 tokens"):
        single_token(TOKENIZER, "")


def test_answer_that_merges_with_the_prefix_warns():
    """ " 1" is a token here, so after a prefix that ends in a space the tokenizer would never write "1"."""
    with pytest.warns(TokenizationWarning, match="assistant_prefix"):
        assert TOKENIZER.decode([single_token(TOKENIZER, "1", "The answer is ")]) == "1"


def test_no_warning_where_the_pair_fits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        single_token(TOKENIZER, " no", "The answer is")
        single_token(TOKENIZER, " 1", "The answer is")


def test_word_marking_tokenizer_is_read_in_context():
    """SentencePiece as in Llama 2: ' yes' is two pieces on its own, but one after a word."""
    from tokenizers import Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", "▁The", "▁answer", "▁is", "▁yes"]
    raw = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    assert tok(" yes", add_special_tokens=False)["input_ids"] == [words.index("▁"), words.index("▁yes")]
    assert single_token(tok, " yes", "The answer is") == words.index("▁yes")
    with pytest.raises(TokenizationError, match="2 tokens"):
        single_token(tok, " yes")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Answers(yes=(" yes",), no=(" yes",)),
        lambda: Answers(yes=("",)),
        lambda: Answers(yes=(" yes",), reduce="mean"),
        lambda: Answers.options([]),
        lambda: Answers.options("0123"),
    ],
)
def test_bad_answers(build):
    with pytest.raises(UsageError):
        build()


def test_variants_cover_spellings():
    answers = Answers.variants("max")
    assert len(answers.yes) == len(answers.no) == 4
    assert answers.texts() == (*answers.yes, *answers.no)


@pytest.mark.parametrize("answers", [None, Answers(yes=(" yes", " no"), no=(" 1",)), Answers.options([" yes", " no"])])
def test_answers_of_many_are_those_of_each(answers):
    """Conversations that end alike share a look-up, unless their own answers differ."""
    chats = [conversation(f"{i}", f"question {i}?") for i in range(3)]
    chats += [replace(chats[0], yes_token=" no", no_token=" yes"), replace(chats[0], yes_token="", no_token="")]
    chats.append(conversation("another ending", prefix="The number is"))
    rendered = render_all(TOKENIZER, chats)
    found = all_answer_ids(TOKENIZER, rendered, answers)
    assert found == [answer_ids(TOKENIZER, item, answers) for item in rendered]
    if answers is None:
        assert found[0].yes == found[3].no
        assert found[4].yes == ()
