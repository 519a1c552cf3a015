"""A run keeps to the memory that it is allowed, whatever is asked, and ends with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import conversation, vector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mechint as mi
from mechint.base.errors import MemoryLimitError, UsageError
from mechint.base.sizes import format_bytes, parse_bytes
from mechint.chat.render import render
from mechint.engine import engine
from mechint.engine.division import Division, Visit
from mechint.engine.footprint import Footprint
from mechint.engine.passes import Budget
from mechint.engine.plan import Plan, Step, make_plans
from mechint.interventions.specifications import CLEAN, Injection, Intervention
from mechint.models import memory
from mechint.models.memory import Memory, Room

SETUPS = ("Tell me about cats.", "Tell me about bread and the sea.")
QUESTIONS = ("yes or no?", "do you detect an injected thought?", "Yes or no, is there a thought about the sea?")


def chats(repeat: int = 1) -> list[mi.Conversation]:
    return [
        conversation(f"{s}{q}", question, setup=setup * repeat)
        for s, setup in enumerate(SETUPS)
        for q, question in enumerate(QUESTIONS)
    ]


def sweep(model: mi.Model, n_vectors: int = 4, *, relative: bool = False) -> list[Intervention]:
    """Every vector at every range of layers, so that one prefix has many states."""
    strength = "relative_strength" if relative else "strength"
    ranges = [range(first, last) for first in range(model.n_layers) for last in range(first + 1, model.n_layers + 1)]
    return [
        CLEAN,
        *(
            Injection(vector(model, n), layers, **{strength: 2.0}, name=f"{n} {layers}")
            for n in range(n_vectors)
            for layers in ranges
        ),
    ]


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let runs take so many bytes besides what is there."""

    def allowing(limit: int) -> None:
        def of(model: mi.Model, max_memory: int | str | None, **_: object) -> Memory:
            return Memory(limit, tuple(model.devices))

        monkeypatch.setattr(Memory, "of", of)

    return allowing


class Counting(TorchDispatchMode):
    """Keeps count of the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.held = 0  # at most: those that are gone are taken out only where the peak may have risen
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                    self.held += storage.nbytes()
        if self.held > self.peak:
            self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
            self.held = sum(size for _, size in self.alive.values())
            self.peak = max(self.peak, self.held)
        return out


# Amounts.


@pytest.mark.parametrize(
    ("text", "count"),
    [("4GB", 4 * 10**9), ("4gib", 2**32), ("512 MB", 512 * 10**6), ("1.5G", 15 * 10**8), ("7", 7), (2**30, 2**30)],
)
def test_amounts_of_memory_are_written_with_units(text: int | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "4 potatoes", "-1GB", "0", 0, -5, True, "nan", "1e9", "9999999TB", "4GBGB"])
def test_anything_else_is_refused(text: int | str) -> None:
    with pytest.raises(UsageError, match="4GB"):
        parse_bytes(text)


def test_amounts_are_shown_with_three_digits() -> None:
    texts = ["7 B", "1.23 KB", "5.67 MB", "12.3 GB"]
    assert [format_bytes(count) for count in (7, 1234, 5_670_000, 12_300_000_000)] == texts


# What a run may take.


def test_a_quarter_of_what_is_free_is_taken_at_most(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    for free in (1000, 4096, 5000, 10**10):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: free)
        limit = Memory.of(model, None).limit
        assert free / 8 < limit <= free / 4
        assert limit.bit_count() == 1, "a run that is gone on with divides its work alike though a little less is free"


def test_a_limit_is_of_all_that_the_process_holds(model: mi.Model) -> None:
    there = memory.in_use(torch.device("cpu"))
    assert 0 < Memory.of(model, there + 10**9).limit <= 10**9 + 10**8
    assert Memory.of(model, "900GB").limit > 5 * 10**11
    for little in ("1MB", 1):
        with pytest.raises(MemoryLimitError, match="the model and what it needs take"):
            mi.score(model, chats(), CLEAN, max_memory=little)


def test_what_others_take_while_it_runs_is_not_there(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Memory(1000, tuple(model.devices))
    monkeypatch.setattr(memory, "free_memory", lambda _: 100_000)
    assert limited.room(400) == Room(600, 600, shared=True) == limited.planned(400)
    monkeypatch.setattr(memory, "free_memory", lambda _: 400)
    assert limited.room(400) == Room(300, 300, shared=True)


# Dividing.


def plan_of(model: mi.Model, conversations: Sequence[mi.Conversation], steers: Sequence[Intervention]) -> Plan:
    rendered = [render(model.tokenizer, chat) for chat in conversations]
    cells = [(c, i) for c in range(len(conversations)) for i in range(len(steers))]
    (plan,) = make_plans(rendered, steers, cells, model.n_layers)
    return plan


def visits(model: mi.Model, plan: Plan, limit: int, tokens: int = 10_000) -> tuple[Division, list[Visit]]:
    footprint = Footprint(model, Budget(tokens), 1)
    division = Division(footprint, Memory(limit, tuple(model.devices)).planned, frozenset())
    return division, list(division.visits(plan.roots))


LIMITS = st.integers(1, 1 << 24)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=LIMITS, tokens=st.integers(1, 4000), repeat=st.integers(1, 3))
def test_whatever_is_allowed_every_cell_is_read_once_and_what_fits_is_kept_to(model, limit, tokens, repeat):
    conversations, steers = chats(repeat), sweep(model, 2)
    plan = plan_of(model, conversations, steers)
    division, steps = visits(model, plan, limit, tokens)
    read = [cell for visit in steps if visit.begins for step in visit.steps for cell in step.reads]
    assert sorted(read) == [(c, i) for c in range(len(conversations)) for i in range(len(steers))]
    for visit in (visit for visit in steps if visit.begins):
        if len(visit.steps) > 1 or len(visit.steps[0].states) > 1:
            before = visit.kept - division.footprint.kept(visit.load)
            assert before + division.footprint.peak(visit.load) <= limit


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=LIMITS)
def test_what_continues_a_pass_is_read_before_the_next_one_begins(model, limit):
    """Only the line from a root to what is run stands at any time, and every step finds what it continues there."""
    _, steps = visits(model, plan_of(model, chats(), sweep(model, 2)), limit)
    standing: list[Visit] = []
    for visit in steps:
        if visit.begins:
            there = {step for before in standing for step in before.steps}
            assert all(step.parent is None or step.parent in there for step in visit.steps)
            standing.append(visit)
        else:
            assert standing.pop().steps is visit.steps
    assert not standing
    assert all(before.kept <= after.kept for before, after in pairwise(steps) if before.begins and after.begins)


def test_a_part_of_a_step_does_what_the_whole_does_to_its_states(model: mi.Model) -> None:
    plan = plan_of(model, chats(), sweep(model))
    _, steps = visits(model, plan, 1 << 17)
    parts = [step for visit in steps if visit.begins for step in visit.steps]
    wholes = {id(step.node): step for step in plan.steps()}
    assert len(parts) > len(wholes)
    for piece in parts:
        _same_rows(piece, wholes[id(piece.node)])


def _same_rows(piece: Step, whole: Step) -> None:
    chosen = np.array([whole.states.index(state) for state in piece.states])
    for level in range(len(piece.rows.counts)):
        ours, expected = piece.rows.level[:, level], whole.rows.level[chosen, level]
        assert (
            len(set(zip(ours, expected, strict=True)))
            == len(set(ours))
            == len(set(expected))
            == piece.rows.counts[level]
        )
    for layer, origin in enumerate(piece.rows.origin):
        assert (origin[piece.rows.level[:, layer + 1]] == piece.rows.level[:, layer]).all()
        steered = np.isin(whole.rows.level[chosen, layer + 1], list(whole.rows.steered[layer]))
        assert (np.isin(piece.rows.level[:, layer + 1], list(piece.rows.steered[layer])) == steered).all()
        assert all(piece.rows.level[state, layer + 1] == row for row, state in piece.rows.steered[layer].items())


def test_states_that_share_most_stay_together(model: mi.Model) -> None:
    """What several parts have in common is computed in each, so that parts are not made at random."""
    plan = plan_of(model, chats()[:1], sweep(model))
    whole = sum(sum(step.computed) for step in plan.steps())
    _, steps = visits(model, plan, 1 << 18)
    began = [visit for visit in steps if visit.begins]
    assert len(began) > 8
    assert sum(sum(step.computed) for visit in began for step in visit.steps) < 1.5 * whole


# Numbers and bytes.


@pytest.mark.parametrize(("limit", "relative"), [(1, True), (100_000, False), (1_000_000, True)])
def test_little_memory_changes_no_number(
    model: mi.Model, limit: int, relative: bool, allow: Callable[[int], None]
) -> None:
    conversations, steers = chats(), sweep(model, 2, relative=relative)
    plenty, passes = mi.logit_lens(model, conversations, steers), mi.explain(model, conversations, steers).passes
    allow(limit)
    calls: list[tuple[int, int]] = []
    little = mi.logit_lens(model, conversations, steers, progress=lambda *done: calls.append(done))
    pd.testing.assert_frame_equal(plenty, little, rtol=1e-4, atol=1e-5)
    assert plenty.attrs["receipts"][-1].keys() == little.attrs["receipts"][-1].keys()
    assert len(plenty.attrs["receipts"]) == len(little.attrs["receipts"])
    cost = mi.explain(model, conversations, steers, layers=range(-1, model.n_layers))
    assert (cost.passes, cost.passed_tokens) == (len(calls), sum(tokens for _, tokens in calls))
    assert cost.passes > passes


def test_memory_that_others_take_makes_passes_smaller(
    model: mi.Model, allow: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    conversations, steers = chats(), sweep(model, 2)
    allow(10_000_000)
    calls: list[int] = []
    before = mi.score(model, conversations, steers, progress=lambda _, tokens: calls.append(tokens))
    plenty = len(calls)
    monkeypatch.setattr(memory, "free_memory", lambda _: 10**9 if len(calls) < plenty + 3 else 300_000)
    after = mi.score(model, conversations, steers, progress=lambda _, tokens: calls.append(tokens))
    assert len(calls) - plenty > plenty
    pd.testing.assert_frame_equal(before, after, rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_goes_on_in_other_memory_and_ends_bit_for_bit(model, tmp_path, monkeypatch) -> None:
    """It divides its work as it had begun to, though more of the computer's memory is free by now."""
    conversations, steers = chats(), sweep(model, 2)
    monkeypatch.setattr(memory, "free_memory", lambda _: 1_200_000)
    calls: list[int] = []
    whole = mi.score(model, conversations, steers, progress=lambda _, tokens: calls.append(tokens))
    n_passes = len(calls)

    class StopError(Exception):
        pass

    def stop(cells: int, tokens: int) -> None:
        calls.append(tokens)
        if len(calls) == n_passes + 9:
            raise StopError

    with pytest.raises(StopError):
        mi.score(model, conversations, steers, store=tmp_path, progress=stop)
    monkeypatch.setattr(memory, "free_memory", lambda _: 10**10)
    assert (
        mi.explain(model, conversations, steers).passes
        < mi.explain(model, conversations, steers, store=tmp_path).passes
    )
    again = mi.score(model, conversations, steers, store=tmp_path)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert again.attrs["receipts"] == whole.attrs["receipts"]


@pytest.mark.parametrize(("lens", "limit"), [(False, 1_500_000), (True, 4_000_000), (True, 100_000_000)])
def test_the_peak_is_what_was_foretold(model, lens: bool, limit: int, allow: Callable[[int], None]) -> None:
    """To a fifth, of all tensors that are alive at once; and within what was allowed."""
    conversations, steers = chats(repeat=12), sweep(model)
    allow(limit)
    layers = range(-1, model.n_layers) if lens else None
    read = mi.logit_lens if lens else mi.score
    read(model, conversations[:1], steers[:2])
    cost = mi.explain(model, conversations, steers, layers=layers, batch_tokens=1000)
    with Counting() as counting:
        read(model, conversations, steers, batch_tokens=1000)
    assert counting.peak == pytest.approx(cost.peak_bytes, rel=0.2)
    assert counting.peak <= limit


def test_tokens_at_once_go_by_what_is_allowed(model: mi.Model) -> None:
    budgets = [
        engine.make_budget(model, None, None, Memory(limit, tuple(model.devices))) for limit in (1, 10**6, 10**9)
    ]
    assert [budget.tokens for budget in budgets] == sorted({budget.tokens for budget in budgets})
    assert budgets[0].rows(100, 100) == 1
