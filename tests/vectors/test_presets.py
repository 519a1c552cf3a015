"""Published presets and the rule for layers."""

from __future__ import annotations

import pytest

from mechint.base.errors import LayerRangeError
from mechint.vectors.presets import DEFAULT_RELATIVE_STRENGTH, PRESETS, middle_third, preset_for

PUBLISHED = [
    ("Qwen2.5-Coder-32B-Instruct", range(21, 43), 20.0, 10.0),
    ("Llama-3.3-70B-Instruct", range(26, 54), 2.5, None),
    ("Qwen2.5-72B-Instruct", range(26, 54), 10.0, None),
]


@pytest.mark.parametrize(("name", "layers", "strength", "contrast"), PUBLISHED)
@pytest.mark.parametrize("spelling", ["{}", "hub/{}", "/models/{}/", "C:\\models\\{}"])
def test_published_settings_are_found_by_the_last_part_of_the_name(name, layers, strength, contrast, spelling):
    for model in (spelling.format(name), spelling.format(name).lower()):
        preset = preset_for(model)
        assert preset is not None
        assert (preset.layers, preset.strength, preset.contrast_strength) == (layers, strength, contrast)
        assert "2602.20031" in preset.source


@pytest.mark.parametrize(
    "name",
    [
        "organism",
        "",
        "Qwen2.5-Coder-32B",
        "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ",
        "my-Qwen2.5-72B-Instruct",
        "Qwen2.5-72B-Instruct/checkpoint-100",
    ],
)
def test_a_similar_name_is_no_match(name):
    assert preset_for(name) is None


def test_every_preset_is_listed_above():
    assert [preset.model.split("/")[-1] for preset in PRESETS] == [row[0] for row in PUBLISHED]


@pytest.mark.parametrize(
    ("n_layers", "expected"),
    [
        (64, range(21, 43)),
        (80, range(26, 54)),
        (1, range(1)),
        (3, range(1, 2)),
        (8, range(2, 6)),
        (28, range(9, 19)),
    ],
)
def test_middle_third(n_layers, expected):
    assert middle_third(n_layers) == expected


def test_middle_third_is_symmetric_and_never_empty():
    for n_layers in range(1, 130):
        layers = middle_third(n_layers)
        assert layers.start == n_layers - layers.stop
        assert 1 <= len(layers) <= n_layers / 3 + 2


def test_middle_third_of_nothing_is_refused():
    with pytest.raises(LayerRangeError, match="0 layers"):
        middle_third(0)


def test_default_strength_is_a_small_part_of_the_residual():
    assert 0 < DEFAULT_RELATIVE_STRENGTH < 1
