"""Replies, losses and fills keep to a memory: fewer rows at once, the same numbers, one error where nothing fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import MemoryLimitError
from mechint.models import memory, row_memory
from mechint.models.memory import Memory

TEXTS = ["the sea is a cat", "yes", "a thought about cats and the sea"]


@pytest.fixture
def rows_at_once(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each pass of a model has had, whole or block by block."""
    real, begin, sizes = model.backend.forward, model.blocks.begin, []
    monkeypatch.setattr(model.backend, "forward", lambda t, c, m, h: (sizes.append(len(t)), real(t, c, m, h))[1])
    monkeypatch.setattr(model.blocks, "begin", lambda t, past: (sizes.append(len(t)), begin(t, past))[1])
    return sizes


def allow(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(Memory, "of", lambda model, *_, **__: Memory(limit, tuple(model.devices)))


def replies(model: mi.Model, **options: object) -> pd.DataFrame:
    steer = [mi.CLEAN, mi.Injection(vector(model), [1], strength=2.0, name="v")]
    return mi.generate(model, conversation(), steer, max_new_tokens=4, n=4, temperature=1.0, **options)


def losses(model: mi.Model, **options: object) -> pd.DataFrame:
    return mi.text_loss(model, TEXTS, mi.CLEAN, **options)


@pytest.mark.parametrize("table_of", [replies, losses])
def test_less_memory_is_fewer_rows_and_the_same_numbers(
    table_of: Callable[..., pd.DataFrame], model: mi.Model, rows_at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty = table_of(model)
    many = max(rows_at_once)
    rows_at_once.clear()
    allow(monkeypatch, 1)
    little = table_of(model)
    assert max(rows_at_once) == 1 < many
    pd.testing.assert_frame_equal(plenty, little, rtol=1e-4, atol=1e-5)
    rows_at_once.clear()
    allow(monkeypatch, 2 * row_memory.row_bytes(model, 64, 64))
    table_of(model)
    assert 1 < max(rows_at_once) <= many


def test_what_cannot_fit_is_one_error_before_any_pass(
    model: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ = model.cache_widths, model.blocks.shares_prompts
    monkeypatch.setattr(model.backend, "forward", lambda *_: pytest.fail("a pass was made"))
    monkeypatch.setattr(model.blocks, "begin", lambda *_: pytest.fail("a pass was made"))
    allow(monkeypatch, 100)
    for run in (
        lambda: replies(model, max_memory="2GB"),
        lambda: losses(model, max_memory="2GB"),
        lambda: mi.fill(model, conversation(), tmp_path / "fill", max_memory="2GB"),
    ):
        with pytest.raises(MemoryLimitError, match=r"a row of \d+ tokens takes about"):
            run()


def test_a_limit_below_what_the_process_holds_is_refused(model: mi.Model, tmp_path: Path) -> None:
    there = memory.in_use(torch.device("cpu"))
    for run in (replies, losses):
        with pytest.raises(MemoryLimitError):
            run(model, max_memory=there // 2)
    with pytest.raises(MemoryLimitError):
        mi.fill(model, conversation(), tmp_path / "fill", max_memory=there // 2)
    mi.fill(model, conversation(), tmp_path / "fill", max_memory="900GB")


def test_replies_are_told_as_they_end(model: mi.Model) -> None:
    calls: list[tuple[int, int]] = []
    table = replies(model, progress=lambda *counts: calls.append(counts))
    assert sum(count for count, _ in calls) == len(table)
    assert sum(tokens for _, tokens in calls) == table["n_tokens"].sum()
    steps = table["n_tokens"].nunique()
    assert len(calls) == steps
