"""Which conversations share a prefill, and the batches that are cut from them."""

from __future__ import annotations

from dataclasses import replace

import tiny
from conftest import conversation
from hypothesis import given
from hypothesis import strategies as st

import mechint as mi
from mechint.plan import Group, batches, group_by_prefix
from mechint.render import render

TOKENIZER = tiny.tokenizer()


def marked(*flags: bool) -> mi.Conversation:
    messages = conversation().messages
    changed = [replace(m, add_injection=flag) for m, flag in zip(messages[1:], flags, strict=False)]
    return mi.Conversation(str(flags), (messages[0], *changed, *messages[1 + len(flags) :]))


def test_equal_turns_and_marks_share_a_prefill():
    asked = [
        conversation("a"),
        conversation("b", "yes or no?"),
        conversation("c", setup="Tell me about bread."),
        marked(True, True),
        marked(False, True),
        marked(True, False),
    ]
    groups = group_by_prefix([render(TOKENIZER, c) for c in asked])
    assert [g.conversations for g in groups] == [(0, 1, 3), (2,), (4,), (5,)]


@given(n_conversations=st.integers(1, 9), n_interventions=st.integers(1, 9), size=st.integers(1, 20))
def test_batches_hold_every_cell_once_and_keep_to_their_size(n_conversations, n_interventions, size):
    cells = []
    for batch in batches(Group(tuple(range(n_conversations))), n_interventions, size):
        assert len(batch.interventions) <= size
        for read in batch.reads:
            assert len(batch.interventions) * len(read) <= max(size, len(batch.interventions))
            cells += [(c, i) for i in batch.interventions for c in read]
    assert sorted(cells) == [(c, i) for c in range(n_conversations) for i in range(n_interventions)]
