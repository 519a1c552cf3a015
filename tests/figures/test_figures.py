"""Figures from synthetic frames: what is drawn, on which scale, and what is written."""

import base64
import json
import logging
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest

from mechint import figures
from mechint.base.errors import OutputError, PrerequisiteError
from mechint.figures import pictures
from mechint.figures.files import _compact
from mechint.figures.readable import readable_json
from mechint.figures.style import finish, layer_ticks

# The smallest picture there is.
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def test_layer_ticks_keep_the_ends_and_do_not_crowd() -> None:
    ticks = layer_ticks(range(-1, 64))
    assert ticks["ticktext"][0] == "embed"
    assert ticks["ticktext"][-1] == "63"
    assert len(ticks["ticktext"]) <= 19
    assert layer_ticks(range(-1, 6))["ticktext"] == ["embed", *map(str, range(6))]
    assert layer_ticks(range(-1, 30))["tickvals"][-2:] == [26, 29], "not 28 and 29 on top of each other"


def test_long_titles_are_wrapped_into_a_higher_margin() -> None:
    short = finish(go.Figure(), "word " * 3, "s", height=100)
    long = finish(go.Figure(), "word " * 60, "s", height=100)
    assert "<br>" not in short.layout.title.text
    assert long.layout.title.text.count("<br>") == 2
    assert long.layout.margin.t - short.layout.margin.t == 46 == long.layout.height - short.layout.height


def _plain() -> go.Figure:
    return go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))


def test_save_writes_html_and_json_beside_one_shared_script(tmp_path: Path) -> None:
    paths = figures.save_all({"one": _plain(), "two": _plain()}, tmp_path / "deep" / "folder", png=False)
    assert [path.name for path in paths] == ["one.html", "one.json", "two.html", "two.json"]
    files = sorted(path.name for path in paths[0].parent.iterdir())
    assert files == ["one.html", "one.json", "plotly.min.js", "two.html", "two.json"]
    html = paths[0].read_text()
    assert 'src="plotly.min.js"' in html
    assert len(html) < 100_000
    assert json.loads(paths[1].read_text())["data"][0]["y"] == [1, 2]


def test_several_directories_share_one_script(tmp_path: Path) -> None:
    paths = figures.save_all({"one": _plain()}, tmp_path / "deep" / "folder", png=False, script_in=tmp_path)
    assert 'src="../../plotly.min.js"' in paths[0].read_text()
    assert [path.name for path in tmp_path.rglob("plotly.min.js")] == ["plotly.min.js"]
    assert (tmp_path / "plotly.min.js").is_file()


def test_json_is_the_figure_in_readable_numbers() -> None:
    x, z = np.array([1.0, np.nan, 1 / 3]), np.arange(6, dtype=np.float32).reshape(2, 3)
    figure = go.Figure([go.Scatter(x=x, y=[1, 2, 3], text=["é", "b", "c"]), go.Heatmap(z=z, zmax=0.1 + 0.2)])
    text = readable_json(figure)
    assert "bdata" not in text
    assert len(text.splitlines()) == 5
    found = json.loads(text)["data"]
    assert found[0]["x"] == [1, None, 0.333333]
    assert found[1]["z"] == z.tolist()
    assert found[1]["zmax"] == 0.3
    assert readable_json(plotly.io.from_json(text)) == text


def test_pngs_are_packed_without_visible_change(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="packing needs Pillow")
    shades = np.linspace(0, 255, 900, dtype=np.uint8)
    sides = (shades, np.full(900, 40, np.uint8), shades[::-1])
    picture = np.stack([np.broadcast_to(side, (50, 900)) for side in sides], -1)
    image.fromarray(picture).save(tmp_path / "whole.png")
    packed = _compact((tmp_path / "whole.png").read_bytes())
    (tmp_path / "packed.png").write_bytes(packed)
    with image.open(tmp_path / "packed.png") as read:
        assert read.mode == "P"
        change = np.abs(np.asarray(read.convert("RGB")).astype(int) - picture)
    assert change.max() <= 8


def test_flat_areas_of_packed_pngs_keep_their_colours_exactly(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="packing needs Pillow")
    pale = np.stack([np.arange(232, 256), np.full(24, 240), np.arange(255, 231, -1)], -1).astype(np.uint8)
    picture = np.repeat(np.repeat(pale[None], 20, 0), 20, 1)
    noise = np.random.default_rng(0).integers(100, 255, (20, 300, 1), dtype=np.uint8)
    picture = np.concatenate([picture, np.broadcast_to(np.repeat(noise, 3, 2)[:, :300], (20, 300, 3))], 1)
    image.fromarray(picture).save(tmp_path / "whole.png")
    (tmp_path / "packed.png").write_bytes(_compact((tmp_path / "whole.png").read_bytes()))
    with image.open(tmp_path / "packed.png") as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read.convert("RGB"))[:, :480], picture[:, :480])


def test_pngs_with_too_many_colours_lose_their_transparency_alone(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="packing needs Pillow")
    picture = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    opaque = np.concatenate([picture, np.full((60, 60, 1), 255, dtype=np.uint8)], -1)
    image.fromarray(opaque).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    packed = _compact(whole)
    (tmp_path / "packed.png").write_bytes(packed)
    with image.open(tmp_path / "packed.png") as read:
        np.testing.assert_array_equal(np.asarray(read.convert("RGB")), picture)
    assert len(packed) < len(whole)


def _no_browser(*_: object, **__: object) -> None:
    raise RuntimeError("\nKaleido requires Google Chrome to be installed.\nMore lines")


def test_a_missing_browser_is_one_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pictures, "write_images", _no_browser)
    with caplog.at_level(logging.WARNING):
        paths = figures.save_all({"one": _plain(), "two": _plain()}, tmp_path)
    assert not [path for path in paths if path.suffix == ".png"]
    assert len(paths) == 4
    assert len(caplog.messages) == 1
    assert "Chrome" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    with pytest.raises(PrerequisiteError, match="Chrome"):
        figures.save(_plain(), tmp_path / "three", png=True)


def test_a_figure_that_cannot_be_drawn_costs_no_other_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pictures, "write_images", lambda _, files, **__: files[1].write_bytes(_PIXEL))
    with caplog.at_level(logging.WARNING):
        paths = figures.save_all({"one": _plain(), "two": _plain()}, tmp_path)
    assert [path.name for path in paths if path.suffix == ".png"] == ["two.png"]
    assert caplog.messages == ["no png of one: the browser could not draw it; open the html"]
    with pytest.raises(PrerequisiteError, match="no png of one"):
        figures.save_all({"one": _plain(), "two": _plain()}, tmp_path, png=True)


def test_what_a_model_says_can_be_drawn(tmp_path: Path) -> None:
    said = "a\x00b\x1b[0m \x7f\ud83d\ufffe, two\nlines and \\u0000 kept"
    figure = go.Figure(go.Scatter(x=[1], y=[1], text=[said])).update_layout(title_text=said)
    found = plotly.io.from_json(readable_json(figure))
    shown = "a\u2400b\u241b[0m \u2421\ufffd\ufffd, two\nlines and \\u0000 kept"
    assert found.layout.title.text == found.data[0].text[0] == shown
    figures.save(figure, tmp_path / "said", png=False)
    assert "\x00" not in (tmp_path / "said.html").read_text()


def test_pictures_of_other_numbers_do_not_stay(tmp_path: Path) -> None:
    for name in ("one", "two"):
        figures.save(_plain(), tmp_path / name, png=False)
        (tmp_path / f"{name}.png").write_bytes(_PIXEL)
    figures.save_all({"one": _plain(), "two": go.Figure(go.Scatter(x=[1], y=[3]))}, tmp_path, png=False)
    assert (tmp_path / "one.png").is_file(), "its numbers are the same"
    assert not (tmp_path / "two.png").exists()


def test_png_is_drawn_with_the_size_of_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def draw(drawings: list[go.Figure], files: list[Path], **options: object) -> None:
        seen.update(options)
        for file in files:
            file.write_bytes(_PIXEL)

    monkeypatch.setattr(pictures, "write_images", draw)
    figure = _plain().update_layout(width=700, height=300)
    paths = figures.save(figure, tmp_path / "lens")
    assert [path.name for path in paths] == ["lens.html", "lens.json", "lens.png"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert paths[2].stat().st_mode & 0o777 == 0o644
    assert (seen["width"], seen["height"]) == ([700], [300])


def test_save_into_a_file_instead_of_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError):
        figures.save(_plain(), tmp_path / "taken" / "lens", png=False)
