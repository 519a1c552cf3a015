"""The prefix tree, rows that part by layer, and the plans made of both: nothing is left out, nothing is done twice."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from conftest import conversation
from hypothesis import given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.chat.render import Rendered, render
from mechint.engine.branching import build_rows
from mechint.engine.effect import Effect, as_bits, as_positions, state_of, terms_of
from mechint.engine.plan import Plan, make_plans
from mechint.engine.prefix_tree import Path, build_tree
from mechint.interventions.specifications import CLEAN, Injection, Intervention

TOKENIZER = tiny.tokenizer()
N_LAYERS, D_MODEL = 6, 8


def vector(seed: int) -> mi.ConceptVector:
    rows = torch.randn(N_LAYERS, D_MODEL, generator=torch.Generator().manual_seed(seed))
    return mi.ConceptVector(dict(enumerate(rows)), f"v{seed}", N_LAYERS)


def plan_of(chats: list[mi.Conversation], steers: list[Intervention], min_shared: int = 1) -> Plan:
    rendered = [render(TOKENIZER, chat) for chat in chats]
    cells = [(c, i) for c in range(len(chats)) for i in range(len(steers))]
    (plan,) = make_plans(rendered, steers, cells, N_LAYERS, min_shared=min_shared)
    return plan


# The tree.

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)


@settings(deadline=None)
@given(sequences=st.lists(TOKENS, min_size=1, max_size=8), min_shared=st.integers(1, 4), data=st.data())
def test_every_token_of_every_path_lies_in_one_node(sequences, min_shared, data):
    paths = {
        number: Path(tokens, tuple(sorted(data.draw(st.sets(st.integers(1, len(tokens)))))))
        for number, tokens in enumerate(sequences)
    }
    nodes = [node for root in build_tree(paths, min_shared) for node in root.walk()]
    for number, path in paths.items():
        line = sorted((node for node in nodes if number in node.members), key=lambda node: node.start)
        assert tuple(token for node in line for token in node.tokens) == path.tokens
        assert [node for node in line if number in node.ends] == line[-1:]
        assert {node.stop for node in line} >= set(path.cuts)
        for before, after in pairwise(line):
            assert after.parent is before
            assert after in before.children
            assert before.stop == after.start
    if min_shared == 1:
        beginnings = {path.tokens[: stop + 1] for path in paths.values() for stop in range(len(path.tokens))}
        assert sum(len(node.tokens) for node in nodes) == len(beginnings)


def test_short_beginnings_are_not_worth_a_pass():
    paths = {0: Path((1, 2, 3, 4)), 1: Path((1, 2, 5, 6))}
    assert [len(node.tokens) for node in build_tree(paths, 2)] == [2]
    assert [node.tokens for node in build_tree(paths, 3)] == [(1, 2, 3, 4), (1, 2, 5, 6)]


def test_short_beginnings_of_many_are_worth_a_pass():
    paths = {number: Path((1, 2, number + 3, 9)) for number in range(20)}
    assert [node.tokens for node in build_tree(paths, 3)] == [(1, 2)]


# Rows.


def states(*steers: Intervention) -> list[Effect]:
    rendered = render(TOKENIZER, conversation())
    return [state_of(rendered, steer, terms_of(steer)) for steer in steers]


def test_rows_part_where_injections_begin_and_end():
    v = vector(0)
    ranges = [Injection(v, layers=range(first, last), strength=1.0) for first, last in ((1, 2), (1, 4), (3, 4))]
    rows = build_rows(states(CLEAN, *ranges), 0, 1000, N_LAYERS)
    # Before block 2 the first two ranges are one row, before block 3 they have parted, before block 4 all differ.
    assert rows.counts == (1, 1, 2, 3, 4, 4, 4)
    assert rows.level[1, 2] == rows.level[2, 2] != rows.level[0, 2]
    assert rows.level[0, 3] == rows.level[3, 3]
    assert len(set(rows.level[:, 4])) == 4
    assert [len(steered) for steered in rows.steered] == [0, 1, 1, 2, 0, 0]


def test_all_ranges_cost_what_differs():
    """A range i:j needs blocks of its own from j on; its start is shared with all ranges that begin at i."""
    ranges = [
        Injection(vector(0), layers=range(first, last), strength=1.0, name=f"{first}:{last}")
        for first in range(N_LAYERS)
        for last in range(first + 1, N_LAYERS + 1)
    ]
    rows = build_rows(states(CLEAN, *ranges), 0, 1000, N_LAYERS)
    # Before block l: the clean row, and of the ranges that begin at i < l one that goes on and l - 1 - i that ended.
    assert rows.counts == tuple(1 + level * (level + 1) // 2 for level in range(N_LAYERS + 1))
    assert sum(rows.counts[:-1]) < 0.32 * N_LAYERS * (len(ranges) + 1)


def test_equal_interventions_share_all_rows():
    v, w = vector(0), vector(0)
    same = [Injection(v, strength=1.0, name="a"), Injection(w, strength=1.0, name="b")]
    nothing = Injection(v, strength=0.0, name="zero")
    rows = build_rows(states(CLEAN, *same, nothing), 0, 1000, N_LAYERS)
    assert rows.level[1].tolist() == rows.level[2].tolist()
    assert rows.level[3].tolist() == rows.level[0].tolist()
    assert rows.counts[-1] == 2


@settings(deadline=None)
@given(bits=st.integers(0, 1 << 40))
def test_bits_are_positions(bits):
    positions = as_positions(bits)
    assert as_bits([place in positions for place in range(41)]) == bits


# Plans.


def marked(*flags: bool, label: str = "") -> mi.Conversation:
    messages = conversation().messages
    changed = [replace(m, add_injection=flag) for m, flag in zip(messages[1:], flags, strict=False)]
    return mi.Conversation(label or str(flags), (messages[0], *changed, *messages[1 + len(flags) :]))


def tokens(plan: Plan) -> int:
    return sum(step.n_tokens * len(step.states) for step in plan.steps())


def test_turns_below_one_prefill_share_it():
    questions = ["do you detect an injected thought?", "yes or no?"]
    chats = [conversation(str(i), question) for i, question in enumerate(questions)]
    lengths = [len(render(TOKENIZER, chat).tokens) for chat in chats]
    n_pos = render(TOKENIZER, chats[0]).prefix_length
    steers = [CLEAN, Injection(vector(0), strength=1.0)]
    plan = plan_of(chats, steers)
    (root,) = plan.roots
    assert root.n_tokens == n_pos
    assert len(root.states) == 2
    assert tokens(plan) < 2 * (n_pos + sum(length - n_pos for length in lengths))


def test_identical_cells_are_computed_once():
    chats = [conversation("a"), conversation("b")]
    steers = [CLEAN, Injection(vector(0), strength=1.0, name="x"), Injection(vector(0), strength=1.0, name="y")]
    plan = plan_of(chats, steers)
    assert tokens(plan) == 2 * len(render(TOKENIZER, chats[0]).tokens)
    reads = [cell for step in plan.steps() for cell in step.reads]
    assert sorted(reads) == [(c, i) for c in range(2) for i in range(3)]


def test_a_steered_prefix_begins_at_its_deepest_clean_ancestor():
    plan = plan_of([marked(False, True)], [CLEAN, Injection(vector(0), strength=1.0)])
    (root,) = plan.roots
    first = render(TOKENIZER, marked(False, True)).segments[0]
    assert (root.node.start, root.node.stop) == (first.start, first.stop)
    assert len(root.states) == 1
    assert [len(child.states) for child in root.children] == [2]


def test_relative_strengths_are_planned_like_absolute_ones():
    """They need no clean run, and share as much: what they are relative to is no part of a conversation."""
    chats = [conversation("a"), conversation("b", setup="Tell me about cats and bread.")]
    plans = [plan_of(chats, [Injection(vector(0), **how)]) for how in ({"relative_strength": 0.3}, {"strength": 0.3})]
    shapes = [
        [(step.node.start, step.node.stop, len(step.states), step.rows.counts) for step in plan.steps()]
        for plan in plans
    ]
    assert shapes[0] == shapes[1]
    assert {cell for step in plans[0].steps() for cell in step.reads} == {(0, 0), (1, 0)}


@settings(deadline=None)
@given(
    layers=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=5),
    marks=st.lists(st.sampled_from([(True, True), (False, True), (True, False)]), min_size=1, max_size=4),
    size=st.none() | st.integers(1, 3),
    min_shared=st.integers(1, 12),
)
def test_plans_hold_every_cell_once(layers, marks, size, min_shared):
    steers = [
        Injection(vector(n % 2), layers=range(first, min(N_LAYERS, first + count)), strength=1.0, name=str(n))
        for n, (first, count) in enumerate(layers)
    ]
    rendered: list[Rendered] = [render(TOKENIZER, marked(*m, label=str(n))) for n, m in enumerate(marks)]
    cells = [(c, i) for c in range(len(rendered)) for i in range(len(steers) + 1)]
    plans = make_plans(rendered, [CLEAN, *steers], cells, N_LAYERS, size, min_shared)
    reads = [cell for plan in plans for step in plan.steps() for cell in step.reads]
    assert sorted(reads) == cells
    for plan in plans:
        assert size is None or len({i for step in plan.steps() for _, i in step.cells}) <= size
    for step in (step for plan in plans for step in plan.steps()):
        for level, count in enumerate(step.rows.counts):
            assert set(step.rows.level[:, level]) == set(range(count))
            for before, rows in step.past(level):
                assert len(rows) == count
                assert rows.max() < before.rows.counts[level]


@pytest.mark.parametrize("level", [0, 3, 6])
def test_rows_continue_the_rows_of_their_own_past(level):
    steers = [CLEAN, *(Injection(vector(i), layers=[1, 2], strength=1.0, name=str(i)) for i in range(3))]
    plan = plan_of([conversation("a"), conversation("b", "yes or no?")], steers)
    (root,) = plan.roots
    for step in (s for s in plan.steps() if s.line):
        pasts = [rows for before, rows in step.past(level) if before is root]
        assert len(pasts) == 1
        for cell, state in step.cells.items():
            assert pasts[0][step.rows.level[state, level]] == root.rows.level[root.cells[cell], level]
        assert np.issubdtype(pasts[0].dtype, np.integer)
