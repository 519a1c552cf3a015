"""Bars of library calls: each ends exactly where its total says, whatever it counts, and none is shown unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from conftest import conversation, vector

import mechint as mi
from mechint import progress
from mechint.interventions import Intervention


class Bar:
    """Stands for tqdm's bar and keeps what it is told."""

    made: list[Bar]

    def __init__(self, items: Iterable[str] = (), *, total: int | None = None, desc: str = "", **_: object) -> None:
        self.items = list(items)
        self.total, self.desc, self.done = len(self.items) if total is None else total, desc, 0
        self.made.append(self)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[str]:
        for item in self.items:
            yield item
            self.update(1)

    def update(self, by: int) -> None:
        self.done += by

    def set_postfix_str(self, _: str, *, refresh: bool) -> None: ...

    @staticmethod
    def write(line: str, *, file: object) -> None: ...


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    monkeypatch.setattr(Bar, "made", [], raising=False)
    monkeypatch.setattr(progress, "tqdm", Bar)
    return Bar.made


def chats() -> list[mi.Conversation]:
    return [conversation("one"), conversation("two", "is the sea a cat?"), conversation("three", reply="the sea")]


def steers(model: mi.Model) -> list[Intervention]:
    return [mi.CLEAN, mi.Injection(vector(model), range(1, 3), 2.0, name="steer")]


def _sweep(model: mi.Model, shown: bool) -> object:
    named = {"cats": vector(model)}
    return mi.explorer.sweep(model, chats(), named, [range(1, 2)], [0.2, 0.4], progress=shown)


def _requests(model: mi.Model) -> list[mi.Request]:
    return [mi.Request(chats(), steers(model)), mi.Request(chats()[:1], mi.CLEAN, layers=range(2))]


CALLS: dict[str, Callable[[mi.Model, bool], object]] = {
    "score": lambda model, shown: mi.score(model, chats(), steers(model), batch_tokens=30, progress=shown),
    "logit_lens": lambda model, shown: mi.logit_lens(model, chats(), steers(model), progress=shown),
    "tables": lambda model, shown: mi.tables(model, _requests(model), progress=shown),
    "names": lambda model, shown: mi.name_log_probs(model, chats(), ["the sea"], steers(model), progress=shown),
    "generate": lambda model, shown: mi.generate(model, chats(), mi.CLEAN, max_new_tokens=2, progress=shown),
    "loss": lambda model, shown: mi.text_loss(model, ["the sea", "a cat"], steers(model), batch_size=3, progress=shown),
    "pairs": lambda model, shown: mi.extract.paired_pca(model, ["cats", "bread"], progress=shown),
    "means": lambda model, shown: mi.extract.mean_difference(model, ["cats", "bread"], progress=shown),
    "sweep": _sweep,
    "cache": lambda model, shown: mi.kv.attribute(
        mi.Reading.of(model, chats()[0], steers(model), progress=shown), 0, 1, window=(2, 8)
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_bar_ends_at_its_total(model: mi.Model, call: str, bars: list[Bar]):
    CALLS[call](model, True)
    assert bars
    assert all(bar.done == bar.total > 0 for bar in bars)


@pytest.mark.parametrize("call", CALLS)
def test_no_bar_unless_asked(model: mi.Model, call: str, bars: list[Bar]):
    CALLS[call](model, False)
    assert not bars


def test_filling_counts_conversations(model: mi.Model, bars: list[Bar], tmp_path: Path):
    mi.fill(model, chats(), tmp_path, progress=True)
    assert [(bar.total, bar.done) for bar in bars] == [(3, 3)]
    mi.fill(model, chats(), tmp_path)
    assert len(bars) == 1


def test_measured_features_count_their_sets(family: dict[str, mi.Model], bars: list[Bar]):
    model = family["organism"]
    prompts = mi.prompts.PromptDesign.load("small")
    (question,) = mi.prompts.introspection(prompts, descriptions=["injection"], formats=["yes-no"], infos=["none"])
    states = mi.sae.read(model, question, steers(model), progress=True)
    table = mi.sae.attribute(states, 0, 1, method="patching")
    features = int((table["kind"] == "feature").sum())
    assert [(bar.total, bar.done) for bar in bars] == [(features + 1, features + 1)]  # and all others together


def test_cells_that_are_stored_are_not_waited_for(model: mi.Model, bars: list[Bar], tmp_path: Path):
    mi.score(model, chats()[:2], steers(model), store=tmp_path)
    mi.score(model, chats(), steers(model), store=tmp_path, progress=True)
    assert bars[0].done == bars[0].total
    mi.score(model, chats(), steers(model), store=tmp_path, progress=True)
    assert bars[1].done == bars[1].total == 0


def test_a_function_is_told_itself():
    told: list[tuple[int, int]] = []

    def tell(done: int, tokens: int) -> None:
        told.append((done, tokens))

    with progress.counted(tell, "things", 2, "thing") as shown:
        assert shown is tell
    for nothing in (None, False):
        with progress.counted(nothing, "things", 2, "thing") as shown:
            assert shown is None


def test_bars_are_written_to_stderr(model: mi.Model, capsys: pytest.CaptureFixture[str]):
    mi.score(model, chats(), steers(model), progress=True)
    told = capsys.readouterr()
    assert not told.out
    assert "100%" in told.err
    assert "6/6 cells" in told.err
