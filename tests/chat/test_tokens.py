"""Answer tokens are single tokens, or an error that names the pieces."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import tiny
import torch
from conftest import conversation
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from mechint.base.errors import NumericalError, TokenizationError, TokenizationWarning, UsageError
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import render_all
from mechint.chat.tokens import Answers, single_token
from mechint.engine.answers import AnswerIds, all_answer_ids, answer_ids, read_rows
from mechint.models.readout import Readout

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
    ids = all_answer_ids(TOKENIZER, rendered, answers)
    assert ids == [answer_ids(TOKENIZER, item, answers) for item in rendered]
    if answers is None:
        assert ids[0].yes == ids[3].no
        assert ids[4].yes == ()


WORDS = ("<unk>", "▁", "▁The", "▁answer", "▁is", "▁yes", "▁Yes", "▁no", "▁No", "▁1", "▁2")


def word_marking(template: str) -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 has it: ' yes' after a word and 'yes' on its own are one token."""
    raw = Tokenizer(models.Unigram([*((word, -1.0) for word in WORDS), ("s", -9.0)], unk_id=0))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", chat_template=template)


@pytest.fixture
def marked_answer():
    """A tokenizer that marks words, and a conversation in it."""
    tok = word_marking("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    messages = (Message("user", "The", True), Message("assistant", "The answer is", continue_msg=True))
    return tok, render_all(tok, [Conversation("c", messages)])[0]


@pytest.mark.filterwarnings("ignore::mechint.base.errors.TokenizationWarning")
@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_spellings_that_are_one_token_count_once(marked_answer, reduce: str):
    tok, rendered = marked_answer
    ids = answer_ids(tok, rendered, Answers.variants(reduce))
    assert ids.yes == (WORDS.index("▁yes"), WORDS.index("▁Yes"))
    assert ids.no == (WORDS.index("▁no"), WORDS.index("▁No"))
    logits = torch.full((len(WORDS) + 1,), -3.0)
    logits[WORDS.index("▁yes")] = 4.0
    readout = Readout(nn.Identity(), logits[:, None])
    row = read_rows(readout, torch.ones(1, 1), [ids])[0]
    p = logits.double().softmax(0)
    expected = {"sum": p[list(ids.yes)].sum(), "max": p[list(ids.yes)].max()}[reduce]
    assert row["p_yes"] == pytest.approx(expected.item(), abs=1e-6)
    assert row["yes_no_mass"] <= 1


@pytest.mark.filterwarnings("ignore::mechint.base.errors.TokenizationWarning")
@pytest.mark.parametrize(
    "answers",
    [Answers(yes=(" yes",), no=("yes",)), Answers(yes="no", no=(" yes", " no")), Answers.options(["1", " 1"])],
)
def test_answers_that_are_one_token_are_not_told_apart(marked_answer, answers: Answers):
    with pytest.raises(TokenizationError, match="one token to this tokenizer"):
        answer_ids(*marked_answer, answers)


def test_a_token_that_is_counted_twice_is_refused():
    readout = Readout(nn.Identity(), torch.tensor([[3.0], [0.0]]))
    with pytest.raises(NumericalError, match="together"):
        read_rows(readout, torch.ones(1, 1), [AnswerIds((0, 0), (), (), "sum")])
    with pytest.raises(NumericalError, match="together"):
        read_rows(readout, torch.ones(1, 1), [AnswerIds((), (), (("a", 0), ("b", 0)), "sum")])
