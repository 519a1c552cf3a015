"""Choosing threads: the fastest of those that were tried by turns, within a limit, never against the user's wish."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from conftest import Load

import mechint as mi
from analyses.kit.record import noted_threads, sparing_threads
from mechint.models import threads
from mechint.models.threads import ThreadChoice, choose_threads, fastest, thread_counts, using_threads


class FakePass:
    """A pass that takes as long as it is said to, by a clock of its own, and remembers its numbers of threads."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: dict[int, float], first: float = 0.0) -> None:
        self.seconds, self.first, self.counts, self.now = seconds, first, list[int](), 0.0
        patch.setattr(threads.time, "perf_counter", lambda: self.now)

    def __call__(self, count: int) -> float:
        self.counts.append(count)
        taken = self.seconds[count] + (self.first if self.counts.count(count) == 1 else 0.0)
        self.now += taken
        return taken


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two threads, as torch takes them by itself on two cores, and no model is small; nothing is timed."""
    monkeypatch.setattr(threads, "_SMALL", 0)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    current = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: current[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda count: current.__setitem__(0, count))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return monkeypatch


def test_each_number_has_its_turn_in_each_round_and_the_first_round_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = FakePass(monkeypatch, {1: 0.02, 2: 0.01}, first=0.1)
    assert fastest(run, [1, 2], 10.0) == pytest.approx({1: 0.02, 2: 0.01})
    assert run.counts == [1, 2] * 6


def test_the_median_is_taken_so_that_one_disturbance_chooses_nothing() -> None:
    taken = iter([0.0, 0.0, 0.01, 0.02, 0.9, 0.02, 0.01, 0.02, 0.01, 0.02, 0.01, 0.02])
    assert fastest(lambda _: next(taken), [1, 2], 10.0) == pytest.approx({1: 0.01, 2: 0.02})


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.09, 0.3, 2.0])
@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 4, 8, 16]])
def test_it_ends_within_its_limit_and_one_pass(
    seconds: float, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FakePass(monkeypatch, dict.fromkeys(counts, seconds))
    fastest(run, counts, 0.6)
    assert run.now <= 0.6 + seconds


def test_more_threads_that_are_very_slow_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As beside other programs: there is no second round, and the first one says enough."""
    assert fastest(FakePass(monkeypatch, {1: 0.03, 2: 2.0}), [1, 2], 0.6) == {1: 0.03, 2: 2.0}
    assert fastest(FakePass(monkeypatch, {1: 0.03, 2: 2.0, 4: 0.01}), [1, 2, 4], 0.6) == {1: 0.03, 2: 2.0}


def test_a_single_number_that_takes_all_the_time_says_nothing(model: mi.Model, two_threads: pytest.MonkeyPatch) -> None:
    run = FakePass(two_threads, {1: 5.0, 2: 5.0})
    two_threads.setattr(threads, "_timed_pass", lambda _: run)
    assert choose_threads(model) == ThreadChoice(2, 2, "a pass takes too long to be measured")


def test_a_long_pass_is_ended_and_worked_out_from_its_blocks(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [0.0, 0.001, 0.0, 0.001]  # two passes of a block, of a millisecond: thirty of them make a pass
    times = iter([*quick, *(tick / 10 for tick in range(100))])
    monkeypatch.setattr(threads.time, "perf_counter", lambda: next(times))
    run = threads._timed_pass(model)
    assert run(1) == pytest.approx(30 * 0.1)


def test_numbers_that_are_tried() -> None:
    assert [thread_counts(available) for available in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(("taken", "chosen"), [({1: 0.01, 2: 0.06}, 1), ({1: 0.02, 2: 0.011}, 2)])
def test_the_fastest_is_chosen_and_torch_left_as_it_was(
    taken: dict[int, float], chosen: int, model: mi.Model, two_threads: pytest.MonkeyPatch
) -> None:
    run = FakePass(two_threads, taken)
    two_threads.setattr(threads, "_timed_pass", lambda _: run)
    choice = choose_threads(model)
    assert (choice.threads, choice.available, choice.reason) == (chosen, 2, "measured")
    assert choice.ratio == pytest.approx(taken[2] / taken[chosen])
    assert torch.get_num_threads() == 2


def test_a_pass_is_run_with_the_threads_that_it_is_timed_with(model: mi.Model, two_threads: pytest.MonkeyPatch) -> None:
    """The real pass, on a clock that only counts how often it is looked at."""
    used: list[int] = []
    ticks = iter(range(10_000))
    blocks = type(model.blocks.begin(torch.tensor([[1]]), torch.tensor([0])))
    real = blocks.block

    def block(self, *args, **options):
        used.append(torch.get_num_threads())
        return real(self, *args, **options)

    two_threads.setattr(blocks, "block", block)
    two_threads.setattr(threads.time, "perf_counter", lambda: next(ticks) / 100)
    run = threads._timed_pass(model)
    used.clear()
    assert run(2) == pytest.approx(0.03), "three blocks"
    assert set(used) == {2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_who_has_set_a_variable_is_respected(name: str, model: mi.Model, two_threads: pytest.MonkeyPatch) -> None:
    two_threads.setattr(threads, "_timed_pass", lambda _: pytest.fail("nothing is to be measured"))
    two_threads.setenv(name, "2")
    assert choose_threads(model) == ThreadChoice(2, 2, f"{name} is set")


def test_who_has_set_torch_is_respected(model: mi.Model, two_threads: pytest.MonkeyPatch) -> None:
    two_threads.setattr(threads, "_timed_pass", lambda _: pytest.fail("nothing is to be measured"))
    two_threads.setattr(os, "cpu_count", lambda: 16)
    two_threads.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    torch.set_num_threads(3)
    assert choose_threads(model) == ThreadChoice(3, 3, "set in torch")
    torch.set_num_threads(1)
    assert choose_threads(model).threads == 1


@pytest.mark.parametrize("variable", [None, "OMP_NUM_THREADS"])
def test_a_small_model_has_one_thread_whatever_the_machine_does(
    variable: str | None, family: Mapping[str, mi.Model], two_threads: pytest.MonkeyPatch
) -> None:
    """Or the figures of a demo would be others on a machine that is at work."""
    two_threads.setattr(threads, "_SMALL", 1e6)
    two_threads.setattr(threads, "_timed_pass", lambda _: pytest.fail("nothing is to be measured"))
    if variable is not None:
        two_threads.setenv(variable, "2")
    assert choose_threads(family["organism"]) == ThreadChoice(1, 2, "the model is small")


def test_a_model_of_usual_size_is_not_small() -> None:
    smallest = SimpleNamespace(d_model=576, backend=SimpleNamespace(d_mlp=1536))  # SmolLM2-135M
    assert threads._operations(smallest) > 5 * threads._SMALL


def test_threads_are_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    used = list[int]()

    def fail() -> None:
        with using_threads(before + 1):
            used.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [*used, torch.get_num_threads()] == [before + 1, before]


def test_a_model_is_measured_once(tiny_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    vars(model).pop("threads", None)
    choice = model.threads
    monkeypatch.setattr("mechint.models.model.choose_threads", lambda _: pytest.fail("measured again"))
    assert model.threads is choice


def test_a_run_notes_what_was_chosen_and_measured(tiny_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen2")
    choice = ThreadChoice(3, 8, "measured", {3: 0.02, 8: 0.05})
    monkeypatch.setitem(vars(model), "threads", choice)
    before = torch.get_num_threads()
    with noted_threads() as choices, sparing_threads(model):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    assert choices == {model.name: choice.to_dict()}
    assert choice.to_dict()["all_threads_take"] == 2.5
