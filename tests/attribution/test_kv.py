"""Mixed caches: identities, plain Hugging Face caches mixed by hand, gradients against finite differences, windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import Load, conversation, vector

import mechint as mi
from mechint.attribution import kv
from mechint.attribution.kv import CacheSlice, Window
from mechint.attribution.reading import Reading
from mechint.base.errors import LayerRangeError, UsageError
from mechint.chat.conversations import Conversation, Message

BACKENDS = ("bridge", "hooked")
LAYERS = range(1, 3)
PLACE = ["layer_start", "layer_stop", "pos_start", "pos_stop"]


def read(model: mi.Model, strength: float = 2.0, chat: Conversation | None = None, **options: object) -> Reading:
    steer = mi.Injection(vector(model), LAYERS, strength, name="steer")
    return Reading.of(model, chat or conversation(), [mi.CLEAN, steer], **options)


def unmarked_first() -> Conversation:
    messages = conversation().messages
    before = (Message("user", "yes or no?"), Message("assistant", "no"))
    return Conversation("late", (messages[0], *before, *messages[1:]), yes_token=" yes", no_token=" no")


@pytest.fixture
def reading(model: mi.Model) -> Reading:
    return read(model)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["qwen2", "gpt2", "gemma2"])
def test_all_of_it_is_the_other_cache_and_nothing_is_none_of_it(tiny_model: Load, architecture: str, backend: str):
    reading = read(tiny_model(architecture, backend))
    clean, injected = reading.logit_diffs([0, 1]).tolist()
    assert abs(clean - injected) > 1e-2
    slices = [CacheSlice(), (), [CacheSlice(sides=["keys"]), CacheSlice(sides=["values"])], CacheSlice(layers=[0])]
    for direction, start, stop in (("insert", clean, injected), ("remove", injected, clean)):
        logit_diffs = kv.patch(reading, 0, 1, slices, direction=direction).tolist()
        assert logit_diffs == pytest.approx([stop, start, stop, start], abs=2e-5)


SLICES = [
    CacheSlice(layers=[2], positions=range(3, 9)),
    CacheSlice(layers=[2, 3], positions=[5], sides=["values"], heads=[1]),
    CacheSlice(positions=range(4), sides=["keys"]),
    [CacheSlice(layers=[3], positions=[2], heads=[0]), CacheSlice(layers=[2], sides=["keys"], heads=[1])],
    CacheSlice(layers=[3]),
]


def test_equals_hugging_face_with_caches_mixed_by_hand(tiny_model: Load, plain_hf: Callable[..., torch.nn.Module]):
    from transformers import DynamicCache

    model, plain = tiny_model("qwen2"), plain_hf("qwen2")
    reading, steer = read(model), vector(model)
    rendered = reading.rendered
    prefix, rest = torch.tensor([rendered.tokens]).split([rendered.prefix_length, len(reading.positions)], dim=1)
    marked = rendered.marked().nonzero()[:, 0].tolist()
    additions = [reference.Addition(layer, 2.0 * steer.vectors[layer], marked) for layer in LAYERS]
    with torch.no_grad():
        filled = [plain(prefix, use_cache=True).past_key_values]
        with reference.added(plain, additions):
            filled.append(plain(prefix, use_cache=True).past_key_values)
    yes, no = (reading.answers.yes[0], reading.answers.no[0])
    for direction, base, other in (("insert", *filled), ("remove", *filled[::-1])):
        expected = []
        for slices in SLICES:
            mixed = DynamicCache()
            for layer in range(model.n_layers):
                sides = {"keys": base.layers[layer].keys.clone(), "values": base.layers[layer].values.clone()}
                for piece in [slices] if isinstance(slices, CacheSlice) else slices:
                    for side in piece.sides if piece.layers is None or layer in piece.layers else ():
                        source = getattr(other.layers[layer], side)
                        for head in piece.heads or range(source.shape[1]):
                            for position in piece.positions or range(source.shape[2]):
                                sides[side][0, head, position] = source[0, head, position]
                mixed.update(sides["keys"], sides["values"], layer)
            with torch.no_grad():
                logits = plain(rest, past_key_values=mixed).logits[0, -1]
            expected.append(float(logits[yes] - logits[no]))
        assert len({round(value, 3) for value in expected}) == len(SLICES)
        assert kv.patch(reading, 0, 1, SLICES, direction=direction).tolist() == pytest.approx(expected, abs=1e-4)


def test_both_backends_give_the_same_table(tiny_model: Load):
    tables = [
        kv.attribute(read(tiny_model("qwen2", backend)), 0, 1, window=(2, 6), by_side=True, by_head=True)
        for backend in BACKENDS
    ]
    pd.testing.assert_frame_equal(*tables, atol=2e-4)
    gradients = [kv.by_gradient(read(tiny_model("qwen2", backend)), 0, 1) for backend in BACKENDS]
    pd.testing.assert_frame_equal(*gradients, atol=2e-4)


def test_the_number_of_rows_at_once_changes_nothing(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    chosen = [window.cache_slice() for window in kv.windows(read(model), 1, 4)] + SLICES
    expected = kv.patch(read(model), 0, 1, chosen)
    assert torch.allclose(kv.patch(read(model, batch_size=1), 0, 1, chosen), expected, atol=1e-5)
    sizes = []
    real = kv.slices.patched

    def counted(cache: mi.KVCache, base: int, other: int, slices: list[kv.CacheSlices]) -> mi.KVCache:
        sizes.append(len(slices))
        return real(cache, base, other, slices)

    monkeypatch.setattr("mechint.attribution.kv.slices.patched", counted)
    layer = sum(side[0][0].nbytes for side in (read(model).cache.keys, read(model).cache.values))
    monkeypatch.setattr("mechint.attribution.kv.slices.free_memory", lambda _: 10 * 3 * layer)
    assert torch.allclose(kv.patch(read(model), 0, 1, chosen), expected, atol=1e-5)
    assert max(sizes) == 3


def test_layers_that_no_slice_touches_take_no_memory(reading: Reading):
    cache = kv.patched(reading.cache, 0, 1, [CacheSlice(layers=[2], positions=[position]) for position in range(5)])
    assert cache.batch == 5
    for layer in (0, 1, 3):
        assert cache.keys[layer].data_ptr() == reading.cache.keys[layer].data_ptr()
    assert cache.values[2].is_contiguous()
    assert reading.cache.fingerprint() == read(reading.model).cache.fingerprint()


def test_what_stands_before_the_injection_carries_exactly_nothing(model: mi.Model):
    reading = read(model, chat=unmarked_first())
    table = kv.effects(reading, 0, 1, kv.windows(reading, 1, 5), "window")
    first = int(reading.rendered.marked().nonzero()[0])
    early = (table["pos_stop"] <= first) | (table["layer_start"] <= LAYERS[0])
    assert set(table.loc[table["pos_stop"] <= first, "marked"]) == {0.0}
    assert set(table.loc[table["pos_start"] >= first, "marked"]) == {1.0}
    assert (table.loc[early, "effect"] == 0).all()
    assert (table.loc[~early, "effect"] != 0).all()
    assert not kv.differing(reading.cache, 0, 1)["keys"][:, :, :first].any()


@pytest.mark.parametrize("size", [(1, 4), (3, 7), (4, 100), (2, None)])
def test_windows_cover_every_cell_once_and_no_message_border(reading: Reading, size: tuple[int, int | None]):
    windows = kv.windows(reading, *size)
    count = np.zeros((reading.model.n_layers, reading.rendered.prefix_length), dtype=int)
    for window in windows:
        assert window.layer_stop - window.layer_start <= size[0]
        assert window.size == len(kv.cells(window))
        for cell in kv.cells(window):
            count[cell.layer_start, cell.pos_start] += 1
            assert cell.size == 1
    assert (count == 1).all()
    borders = {segment.start for segment in reading.rendered.segments}
    if size[1] is not None:
        assert all(window.pos_stop - window.pos_start <= size[1] for window in windows)
        assert not any(window.pos_start < border < window.pos_stop for window in windows for border in borders)


def test_a_table_goes_from_the_whole_to_the_cells_of_what_matters(reading: Reading):
    table = kv.attribute(reading, 0, 1, window=(1, 6), finer=0.01, most=2, by_side=True)
    shift = float(np.diff(reading.logit_diffs([0, 1]))[0])
    assert table.attrs["logit_diff_shift"] == pytest.approx(shift, abs=1e-5)
    whole = table[(table["level"] == "cache") & (table["side"] == "both")]
    assert whole["fraction"].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
    np.testing.assert_allclose(table["fraction"], table["effect"] / shift, atol=1e-4)
    windows = table[(table["level"] == "window") & (table["side"] == "both")]
    strongest = windows.assign(size=windows["effect"].abs()).groupby(PLACE)["size"].max().nlargest(2)
    cells = table[(table["level"] == "cell") & (table["side"] == "both") & (table["direction"] == "insert")]
    expected = {tuple(vars(cell).values()) for place in strongest.index for cell in kv.cells(Window(*place))}
    assert {tuple(row) for row in cells[PLACE].to_numpy()} == expected
    assert len(cells) == len(expected)
    row = cells.iloc[len(cells) // 2]
    cell = CacheSlice([int(row["layer_start"])], [int(row["pos_start"])])
    clean = reading.logit_diffs([0]).item()
    assert row["effect"] == pytest.approx(kv.patch(reading, 0, 1, [cell]).item() - clean, abs=1e-5)
    assert not (kv.attribute(reading, 0, 1, finer=None)["level"] == "cell").any()


def test_sides_and_heads_are_replaced_alone(reading: Reading):
    window = Window(2, 4, 0, reading.rendered.prefix_length)
    table = kv.effects(reading, 0, 1, [window], "window", by_side=True, by_head=True)
    removed = table[table["direction"] == "remove"].set_index(["side", "head"])["logit_diff"]
    for (side, head), value in removed.items():
        sides = ["keys", "values"] if side == "both" else [side]
        cells = CacheSlice(range(2, 4), None, sides, None if head == -1 else [head])
        assert value == pytest.approx(kv.patch(reading, 0, 1, [cells], direction="remove").item(), abs=1e-5)
    assert removed.nunique() == len(removed) == 9


def test_small_effects_add_up_and_so_does_their_gradient(model: mi.Model):
    """Where the model is as good as linear, slices carry what their gradients say, and together the shift."""
    reading = read(model, strength=0.05)
    every = kv.windows(reading, 1, 5)
    table = kv.effects(reading, 0, 1, every, "window", by_side=True)
    shift = table["shift"].iloc[0]
    for _, rows in table.groupby("direction"):
        assert rows.loc[rows["side"] == "both", "effect"].sum() == pytest.approx(shift, rel=0.05)
        assert rows.loc[rows["side"] != "both", "effect"].sum() == pytest.approx(shift, rel=0.05)
    gradient = kv.by_gradient(reading, 0, 1, at="clean")
    assert gradient.attrs["total"] == pytest.approx(shift, rel=0.05)
    values = table[(table["side"] == "values") & (table["direction"] == "insert")]
    by_value = gradient[gradient["side"] == "values"]
    sums = []
    for row in values.itertuples():
        inside = by_value["position"].between(row.pos_start, row.pos_stop - 1)
        sums.append(by_value.loc[(by_value["layer"] == row.layer_start) & inside, "attribution"].sum())
    np.testing.assert_allclose(values["effect"], sums, atol=0.05 * abs(shift))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("at", ["clean", "injected"])
def test_gradients_are_finite_differences(tiny_model: Load, backend: str, at: str):
    reading = read(tiny_model("qwen2", backend))
    table = kv.by_gradient(reading, 0, 1, at=at)
    base, toward = (0, 1) if at == "clean" else (1, 0)
    step = 0.02
    for side in ("keys", "values"):
        tensors = {name: list(getattr(reading.cache, name)) for name in ("keys", "values")}
        ends = []
        for amount in (step, -step):
            moved = list(tensors[side])
            moved[2] = moved[2][base] + amount * (moved[2][toward] - moved[2][base])
            moved = [tensor[base : base + 1] if layer != 2 else tensor[None] for layer, tensor in enumerate(moved)]
            rest = [tensor[base : base + 1] for tensor in tensors["values" if side == "keys" else "keys"]]
            pair = (moved, rest) if side == "keys" else (rest, moved)
            ends.append(reading.logit_diffs([0], cache=mi.KVCache(*map(tuple, pair))).item())
        slope = (ends[0] - ends[1]) / (2 * step) * (1 if at == "clean" else -1)
        total = table.loc[(table["layer"] == 2) & (table["side"] == side), "attribution"].sum()
        assert total == pytest.approx(slope, rel=0.03, abs=2e-3)


def test_gradients_along_the_path_add_up_to_the_shift(reading: Reading):
    table = kv.by_gradient(reading, 0, 1, steps=24)
    assert table.attrs["total"] == pytest.approx(table["attribution"].sum())
    assert table.attrs["total"] == pytest.approx(table.attrs["logit_diff_shift"], rel=0.02)
    assert kv.by_gradient(reading, 0, 1, at="clean").attrs["total"] != pytest.approx(table.attrs["total"], rel=0.02)
    assert (table.loc[table["layer"] <= LAYERS[0], "attribution"] == 0).all()
    shape = (reading.model.n_layers, 2, 2, reading.rendered.prefix_length)
    assert len(table) == np.prod(shape)
    assert not table.duplicated(["layer", "side", "index", "position"]).any()
    assert table.loc[table["layer"] == 3, "component"].iloc[0] == "L3 keys head 0"
    backwards = kv.by_gradient(reading, 1, 0, steps=24)
    np.testing.assert_allclose(backwards["attribution"], -table["attribution"], atol=1e-5)


def test_windows_taken_together(reading: Reading):
    order = kv.windows(reading, 1, 6)[::-1]
    table = kv.curve(reading, 0, 1, order, [1, 3, len(order)])
    assert table["n_windows"].tolist() == [1, 3, len(order)] * 2
    assert table.loc[table["n_windows"] == len(order), "fraction"].tolist() == pytest.approx([1, 1], abs=1e-4)
    three = table[(table["n_windows"] == 3) & (table["direction"] == "insert")].iloc[0]
    assert three["n_cells"] == sum(window.size for window in order[:3])
    direct = kv.patch(reading, 0, 1, [[window.cache_slice() for window in order[:3]]]).item()
    assert three["logit_diff"] == pytest.approx(direct, abs=1e-5)


def test_the_strongest_are_those_that_were_planted():
    rows = [
        {
            "layer_start": layer,
            "layer_stop": layer + 1,
            "pos_start": 0,
            "pos_stop": 4,
            "side": side,
            "head": -1,
            "direction": direction,
            "effect": effect,
            "shift": 2.0,
        }
        for layer, effects in enumerate([(0.0, 0.0), (0.1, -0.6), (0.5, 0.0), (0.19, 0.1)])
        for direction, effect in zip(("insert", "remove"), effects, strict=True)
        for side in ("both", "keys")
    ]
    table = pd.DataFrame(rows)
    assert [window.layer_start for window in kv.strongest(table, 0.1, 8)] == [1, 2]
    assert [window.layer_start for window in kv.strongest(table, 0.1, 1)] == [1]
    assert [window.layer_start for window in kv.strongest(table, 1e-9, 8)] == [1, 2, 3]
    other = pd.concat([table, table.assign(effect=0.0)])
    assert [window.layer_start for window in kv.strongest(other, 0.1, 8)] == [1, 2]
    assert kv.strongest(table, 1.0, 8) == []


def test_rows_that_are_alike_have_no_shift_and_no_shares(reading: Reading):
    table = kv.attribute(reading, 0, 0, window=(4, 100))
    assert (table["effect"] == 0).all()
    assert table["fraction"].isna().all()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: CacheSlice(layers=[]), UsageError),
        (lambda r: CacheSlice(positions=[-1]), UsageError),
        (lambda r: CacheSlice(sides=[]), UsageError),
        (lambda r: kv.patch(r, 0, 1, [CacheSlice(layers=[99])]), LayerRangeError),
        (lambda r: kv.patch(r, 0, 1, [CacheSlice(positions=[9999])]), UsageError),
        (lambda r: kv.patch(r, 0, 1, [CacheSlice(heads=[2])]), UsageError),
        (lambda r: kv.patch(r, 0, 2, [CacheSlice()]), UsageError),
        (lambda r: kv.patch(r, 0, 1, []), UsageError),
        (lambda r: kv.windows(r, 0), UsageError),
        (lambda r: kv.windows(r, 1, 0), UsageError),
        (lambda r: kv.by_gradient(r, 0, 1, steps=0), UsageError),
        (lambda r: kv.by_gradient(r, 0, 5), UsageError),
    ],
)
def test_bad_input(reading: Reading, call: Callable[[Reading], object], error: type[Exception]):
    with pytest.raises(error):
        call(reading)


def test_an_unfilled_cache_is_refused(model: mi.Model):
    chat = Conversation("plain", conversation().messages[3:], yes_token=" yes", no_token=" no")
    reading = Reading.of(model, chat, mi.CLEAN)
    for call in (lambda: kv.windows(reading, 1), lambda: kv.patch(reading, 0, 0, [CacheSlice()])):
        with pytest.raises(UsageError, match="mark turns"):
            call()


def test_a_quantised_model_is_told_what_to_do_instead(reading: Reading, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: mi.Model) -> None:
        raise UsageError("gradients through a quantised model", "others", "do something else")

    monkeypatch.setattr("mechint.attribution.kv.gradients.check_differentiable", refuse)
    with pytest.raises(UsageError, match=r"mi\.kv\.attribute"):
        kv.by_gradient(reading, 0, 1)
