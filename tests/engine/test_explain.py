"""What a table will cost where caches were filled before: what is in a file is read, and counts as nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import conversation, vector

import mechint as mi
from mechint.chat.render import render
from mechint.interventions.specifications import CLEAN, Filled, Injection, Intervention, Swap


@pytest.fixture
def other(tiny_model) -> mi.Model:
    return tiny_model("qwen2", seed=1)


@pytest.fixture
def filled(other: mi.Model, tmp_path: Path) -> Filled:
    return mi.fill(other, chats(), tmp_path / "fill")


def chats() -> list[mi.Conversation]:
    """Two conversations share their first turns, a third has longer ones of its own."""
    setup = "Tell me about cats. " * 4
    return [
        conversation("one", setup=setup),
        conversation("two", "is the sea a cat?", setup=setup),
        conversation("three", setup=f"Tell me about bread. {setup}", reply="nothing at all"),
    ]


def lengths(model: mi.Model, chat: mi.Conversation) -> tuple[int, int]:
    """Tokens of the first turns, and of what is read after them."""
    text = render(model.tokenizer, chat)
    return text.prefix_length, len(text.tokens) - text.prefix_length


def passed(model: mi.Model, interventions: list[Intervention], **options: object) -> int:
    """How many tokens the engine says that it has passed."""
    costs: list[int] = []
    mi.score(model, chats(), interventions, progress=lambda _, tokens: costs.append(tokens), **options)
    return sum(costs)


def test_a_filled_cell_costs_what_is_read_after_its_first_turns(model: mi.Model, filled: Filled) -> None:
    """Beside the clean cell, which every table has."""
    before, after = lengths(model, chats()[0])
    clean = mi.explain(model, chats()[0], CLEAN)
    both = mi.explain(model, chats()[0], filled)
    for count in ("alone_tokens", "distinct_tokens", "passed_tokens"):
        assert getattr(clean, count) == before + after
        assert getattr(both, count) == before + after + after
    assert (clean.passes, both.passes) == (2, 3), "the first turns, the question; and the question again"
    assert both.blocks == both.alone_blocks == (before + after + after) * model.n_layers
    assert both.saved == 0


def test_a_file_takes_memory_for_its_cache_and_not_for_a_pass(
    model: mi.Model, other: mi.Model, filled: Filled, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    mi.score(model, chats()[0], CLEAN, store=store)  # so that clean passes do not count
    swap = mi.explain(model, chats()[0], Swap(other), store=store)
    fill = mi.explain(model, chats()[0], filled, store=store)
    assert (swap.passes, fill.passes) == (2, 1)
    assert fill.cache_bytes == swap.cache_bytes > 0
    assert 0 < fill.pass_bytes < swap.pass_bytes


def test_filled_cells_cost_the_swap_less_its_first_turns(model: mi.Model, other: mi.Model, filled: Filled) -> None:
    swap = mi.explain(model, chats(), Swap(other), batch_size=1)
    fill = mi.explain(model, chats(), filled, batch_size=1)
    prefixes = [
        rendered.tokens[: rendered.prefix_length] for rendered in (render(model.tokenizer, chat) for chat in chats())
    ]
    first, second, third = prefixes
    assert first == second
    assert swap.alone_tokens - fill.alone_tokens == 2 * len(first) + len(third)
    beginnings = {tokens[:stop] for tokens in (first, third) for stop in range(1, len(tokens) + 1)}
    assert swap.distinct_tokens - fill.distinct_tokens == len(beginnings)
    assert swap.blocks > fill.blocks


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 30}, {"batch_size": 1}])
def test_what_is_told_is_what_is_passed(
    model: mi.Model, other: mi.Model, filled: Filled, options: dict[str, int]
) -> None:
    steer = Injection(vector(model), strength=1.0, name="steer")
    for interventions in ([filled], [CLEAN, filled], [CLEAN, filled, Swap(other, name="swap"), steer]):
        cost = mi.explain(model, chats(), interventions, **options)
        assert cost.distinct_tokens <= cost.passed_tokens == passed(model, interventions, **options)
        assert cost.passed_tokens < cost.alone_tokens or interventions == [filled]
