"""Designs of trials: read from JSON as they are written, and refused where they contradict themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechint.base.errors import LayerRangeError, UsageError
from mechint.trials.design import Controls, TrialDesign

N_LAYERS = 4
SMALL = {"concepts": ["oceans", "fear+oceans"], "layers": ["1:3"], "strengths": [0.1, 0.2]}


def test_a_file_holds_all_that_a_design_says(tmp_path: Path) -> None:
    design = TrialDesign.from_dict({**SMALL, "controls": {"clean": 7}, "steer": ["reply", "from:Do you"]})
    path = tmp_path / "design.json"
    path.write_text(json.dumps(design.to_dict()))
    assert TrialDesign.load(path) == design
    assert TrialDesign.load(path).key == design.key
    assert design.controls == Controls(clean=7)
    assert design.names == ("oceans", "fear")


def test_whatever_is_changed_changes_the_key() -> None:
    design = TrialDesign.from_dict(SMALL)
    changes = ({"seed": 1}, {"strengths": [0.1]}, {"controls": {"clean": 1}}, {"reply_start": "Yes,"})
    assert len({design.key, *(TrialDesign.from_dict({**SMALL, **change}).key for change in changes)}) == 5


def test_places_are_all_combinations() -> None:
    design = TrialDesign.from_dict({**SMALL, "layers": ["0", "0:2"], "steer": ["reply", "prefill"]})
    places = design.places(N_LAYERS)
    assert len(places) == 8
    assert [place.layers_text for place in places[:4]] == ["0", "0", "0:2", "0:2"]
    assert places[2].depth(3) == pytest.approx(0.25)


def test_a_depth_is_a_block() -> None:
    data = {**SMALL, "layers": [], "depths": [0.0, 1.0]}
    assert [place.layers for place in TrialDesign.from_dict(data).places(N_LAYERS)][::2] == [(0,), (N_LAYERS - 1,)]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"concepts": []}, "no concepts"),
        ({"concepts": ["oceans", "oceans"]}, "one of them twice"),
        ({"depths": [0.5]}, "both layers and depths"),
        ({"layers": []}, "neither layers nor depths"),
        ({"strengths": [0.1, 0]}, "strength 0"),
        ({"strengths": ["weak"]}, "strengths.0"),
        ({"samples": 0}, "samples=0"),
        ({"seed": -1}, "seed=-1"),
        ({"controls": {"clean": -1}}, "controls, clean=-1"),
        ({"controls": {"random": 2, "yes": 1, "nonsense": 1}}, "controls.nonsense"),
        ({"dose": 1}, "dose"),
        ({"temperature": 0}, "all the same"),
        ({"layers": [], "depths": [1.5]}, "depth 1.5"),
    ],
)
def test_a_design_that_contradicts_itself_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        TrialDesign.from_dict({**SMALL, **change})


@pytest.mark.parametrize("layers", ["2:2", "1:99", "a", "-1", "1:2:3", "0.5"])
def test_layers_that_a_model_lacks_are_refused(layers: str) -> None:
    with pytest.raises(LayerRangeError, match="layers"):
        TrialDesign.from_dict({**SMALL, "layers": [layers]}).places(N_LAYERS)


def test_two_texts_of_the_same_layers_are_one_place_twice() -> None:
    with pytest.raises(UsageError, match="one of them twice"):
        TrialDesign.from_dict({**SMALL, "layers": ["1", "1:2"]}).places(N_LAYERS)
