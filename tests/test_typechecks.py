"""The tests' own type checks: a wrong type is seen, and so are axes that do not fit together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import typechecks
from beartype.roar import BeartypeCallHintViolation

from mechint.models.backends.blocks import attended
from mechint.models.cache import KVCache
from mechint.organisms.training.grammar import sentence_case


def test_wrong_types_are_seen():
    with pytest.raises(BeartypeCallHintViolation):
        sentence_case(3)
    with pytest.raises(BeartypeCallHintViolation):
        KVCache(keys=3)


@pytest.mark.parametrize(("tokens", "past"), [((2, 3), (3,)), ((3,), (3,)), ((2, 3), (2, 1))])
def test_axes_that_do_not_fit_are_seen(tokens, past):
    with pytest.raises(BeartypeCallHintViolation):
        attended(torch.ones(tokens, dtype=torch.long), torch.ones(past, dtype=torch.long))
    assert attended(torch.ones(2, 3, dtype=torch.long), torch.tensor([1, 2])).shape == (2, 5)


def test_functions_inside_others_are_checked_each_time_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def adder(k):\n def add(n: int = 1) -> int: return n + k\n return add"
    (tmp_path / "checked_inside.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with typechecks.install("checked_inside"):
        module = importlib.import_module("checked_inside")
    for k in (1, 10):
        add = module.adder(k)
        assert (add(2), add(), add.__name__) == (2 + k, 1 + k, "add")
        with pytest.raises(BeartypeCallHintViolation):
            add("two")
        with pytest.raises(BeartypeCallHintViolation):
            module.adder(0.5)(1)


def test_only_checked_modules_are_compiled_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or every library that they import first is compiled again, by each process."""
    text = "from importlib._bootstrap_external import cache_from_source\ndef f(n: int): return n"
    (tmp_path / "checked_apart.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with typechecks.install("checked_apart"):
        module = importlib.import_module("checked_apart")
    assert module.cache_from_source("library.py") == importlib.util.cache_from_source("library.py")
    with pytest.raises(BeartypeCallHintViolation):
        module.f("one")
