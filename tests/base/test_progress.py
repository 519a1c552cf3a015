"""Bars of library calls: each ends exactly where its total says, whatever it counts, and none is shown unasked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import conversation, vector

import mechint as mi
from mechint.base import progress
from mechint.base.sizes import format_bytes
from mechint.engine import forecast, job
from mechint.engine.explain import cost_of
from mechint.interventions.specifications import Intervention


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


def _sweep(model: mi.Model, progress: bool) -> object:
    named = {"cats": vector(model)}
    return mi.explorer.sweep(model, chats(), named, [range(1, 2)], [0.2, 0.4], progress=progress)


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
    calls: list[tuple[int, int]] = []

    def tell(done: int, tokens: int) -> None:
        calls.append((done, tokens))

    with progress.counted(tell, "things", 2, "thing") as count:
        assert count is tell
    for nothing in (None, False):
        with progress.counted(nothing, "things", 2, "thing") as count:
            assert count is None


class Watching:
    """Progress that is told of the work within passes too."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, int]] = []
        self.works: list[int] = []

    def __call__(self, cells: int, tokens: int) -> None:
        self.passes.append((cells, tokens))

    def work(self, done: int) -> None:
        self.works.append(done)


@pytest.mark.parametrize("layers", [None, range(-1, 4)])
def test_work_is_told_within_passes(model: mi.Model, layers: Sequence[int] | None):
    """In steps much smaller than a pass, which add up to what was foretold."""
    watching, read = Watching(), mi.score if layers is None else mi.logit_lens
    read(model, chats(), steers(model), batch_tokens=60, progress=watching)
    cost = mi.explain(model, chats(), steers(model), layers=layers, batch_tokens=60)
    assert sum(watching.works) == cost.work > cost.blocks
    assert len(watching.works) > model.n_layers * len(watching.passes)
    assert max(watching.works) < cost.work / 10
    assert sum(cells for cells, _ in watching.passes) == cost.cells


def test_a_table_says_before_its_first_pass_what_it_will_take(
    model: mi.Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(forecast, "_WORTH", 0)
    cost = mi.explain(model, chats(), steers(model))
    mi.score(model, chats(), steers(model), progress=True)
    first, *rest = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        rf"table: 6 cells, {cost.distinct_tokens} distinct tokens, about \d+ s, "
        rf"{format_bytes(cost.peak_bytes)} of memory beside the [\d.]+ [MG]B in use",
        first,
    )
    assert rest[-1].startswith("table: 100%, 6/6 cells")
    monkeypatch.undo()
    mi.score(model, chats(), steers(model), progress=True)
    assert "about" not in capsys.readouterr().err, "what is done at once needs no time"


@pytest.mark.parametrize("backend", ["bridge", "hooked"])
def test_the_expected_time_is_the_time_of_the_work(tiny_model, backend: str, monkeypatch: pytest.MonkeyPatch):
    """On a clock by which each block takes a tenth of a second for all of its tokens."""
    model = tiny_model("qwen2", backend)
    monkeypatch.setattr(forecast, "_WORTH", 0)
    now = iter(range(1000))
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(now) / 10)
    planned = job.Job.of(model, [mi.Request(chats(), steers(model))])
    options = job.Options(batch_size=2)
    cost = cost_of(planned, options)
    expected = forecast.forecast([planned, planned], [cost, cost], options)
    n_tokens = max(len(item.tokens) for item in planned.rendered)
    assert expected.seconds == pytest.approx(2 * cost.work * 0.1 / (2 * n_tokens))
    shared = forecast.forecast([planned], [cost], options, workers=4)
    assert shared.seconds == pytest.approx(expected.seconds / 8)
    assert (expected.cells, expected.peak_bytes) == (2 * cost.cells, cost.peak_bytes)


def test_times_are_written_as_people_say_them():
    seconds = [0.4, 89.0, 600.0, 3600.0, 12_000.0, 360_000.0]
    texts = ["0 s", "89 s", "10 min", "60 min", "3 h 20 min", "100 h 0 min"]
    assert [forecast.format_duration(duration) for duration in seconds] == texts


def test_lines_are_written_now_and_then_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress, "_LOGGED", 0.05)
    with progress.cell_bar("lens", work=100, cells=10) as bar:
        for _ in range(10):
            bar.work(10)
            time.sleep(0.02)
        bar(10, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 8, "one in two or three steps"
    shares = [int(re.match(r"lens: (\d+)%.* so far, .* left$", line)[1]) for line in lines]
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_bars_are_written_to_stderr(model: mi.Model, capsys: pytest.CaptureFixture[str]):
    mi.score(model, chats(), steers(model), progress=True)
    output = capsys.readouterr()
    assert not output.out
    assert "100%" in output.err
    assert "6/6 cells" in output.err
