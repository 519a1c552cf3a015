"""The tests' own type checks: a wrong type is seen, and so are axes that do not fit together."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from mechint.models.backends.blocks import attended
from mechint.models.cache import KVCache
from mechint.organisms.training.grammar import sentence_case


def test_wrong_types_are_seen():
    with pytest.raises(BeartypeCallHintViolation):
        sentence_case(3)
    with pytest.raises(jaxtyping.TypeCheckError):
        KVCache(keys=3)


@pytest.mark.parametrize(("tokens", "past"), [((2, 3), (3,)), ((3,), (3,)), ((2, 3), (2, 1))])
def test_axes_that_do_not_fit_are_seen(tokens, past):
    with pytest.raises(jaxtyping.TypeCheckError):
        attended(torch.ones(tokens, dtype=torch.long), torch.ones(past, dtype=torch.long))
    assert attended(torch.ones(2, 3, dtype=torch.long), torch.tensor([1, 2])).shape == (2, 5)
