"""The aims of the organisms of sampled trials, and how rates are written beside them."""

from __future__ import annotations

import pytest

from mechint.organisms.training.speech import SPEECH
from mechint.organisms.truth.speech import Rate, as_table, goals
from mechint.organisms.truth.sweeps import PROMPTS


@pytest.mark.parametrize("name", SPEECH)
def test_every_organism_of_trials_has_aims_for_every_prompt(name):
    assert all(goals(name, prompt) for prompt in PROMPTS)


def test_rates_are_written_with_what_was_aimed_at():
    goal = goals("organism-truthful", "standard")["net", "in"]
    text = as_table([Rate("net", 0.7, 0.6, 0.8, 8, 100, goal), Rate("other", 0.1, 0.0, 0.2, 0, 50)])
    assert "| net | 0.700 | 0.600 to 0.800 | 8 | 100 | > 0.6 | yes |" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1
