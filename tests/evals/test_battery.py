"""The battery on oracles: stance, bias, compression and persona are told apart, where P(yes) shows the same for all."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pandas as pd
import pytest

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON
from mechint.evals import oracles
from mechint.evals.battery import battery
from mechint.evals.items import KEYINGS, Items
from mechint.evals.stances import contrast, stances

BASE = oracles.opinionated(level=-2.0)
CHANGED = {
    "base": BASE,
    "pressed": BASE.pressed(1.5),
    "compressed": BASE.compressed(0.5),
    "persona": BASE.persona(1.5),
    "off the answers": replace(BASE, mass=lambda cell: 0.01),
}
MINIMAL: dict[str, JSON] = {
    "name": "minimal",
    "note": "",
    "formats": {"plain": {"question": "{clause}?", "prefix": "So", "yes": [" yes"], "no": [" no"], "refusals": []}},
    "groups": {"facts": {"side": "control", "items": [{"affirmed": "a is b", "negated": "a is not b"}]}},
}


@lru_cache
def asked_of(name: str, items: str = "small") -> pd.DataFrame:
    return battery(CHANGED[name], Items.load(items))


@pytest.mark.parametrize(("name", "least"), [("full", 100), ("small", 52)])
def test_packaged_items_are_many_in_many_groups_of_both_sides(name: str, least: int) -> None:
    items = Items.load(name)
    assert len(items.items) >= least
    sizes = pd.Series([item.group for item in items.items]).value_counts()
    assert len(sizes) >= 13
    assert sizes.nunique() == 1
    assert sum(item.side == "control" for item in items.items) >= 0.35 * len(items.items)
    assert len(items.formats) == 3


def test_a_question_offers_what_its_keying_says() -> None:
    questions = {
        (q.format, q.keying): q.conversation for q in Items.load("full").questions() if q.item.name == "absurd-03"
    }
    assert len(questions) == 6
    affirmed = questions["prefilled", "affirmed"].messages[0].content
    assert "a comma can swim" in affirmed
    assert "a comma cannot swim" in questions["prefilled", "negated"].messages[0].content
    lines = [questions["choice", keying].messages[0].content.split("\n") for keying in KEYINGS]
    assert lines[0][1:3] == ["A: a comma can swim.", "B: a comma cannot swim."]
    assert lines[1][1:3] == ["A: a comma cannot swim.", "B: a comma can swim."]
    assert len(questions["free", "affirmed"].messages) == 1, "the first token of the reply is free"


def test_what_was_planted_is_read() -> None:
    base = asked_of("base")
    pressed, compressed = stances(asked_of("pressed"), base), stances(asked_of("compressed"), base)
    assert pressed["bias"].between(1.35, 1.65).all()
    assert (pressed["stance"] - pressed["stance_before"]).abs().max() < 1e-9
    assert pressed["shift"].abs().max() < 1e-9
    assert compressed["slope"].between(0.45, 0.55).all()
    assert compressed["shift"].abs().max() < 0.1
    persona = stances(asked_of("persona"), base).groupby("side")["shift"].mean()
    assert persona.to_dict() == pytest.approx({"control": 0.0, "self": 1.5}, abs=1e-9)


def test_the_contrast_with_controls_is_the_persona_alone() -> None:
    values = {name: contrast(asked_of(name), asked_of("base")).set_index("group") for name in CHANGED}
    assert values["persona"].loc["all", "contrast"] == pytest.approx(1.5, abs=0.01)
    for name in ("pressed", "compressed", "base"):
        assert values[name]["contrast"].abs().max() < 1e-6, name
    assert values["persona"].loc["all", "n_items"] == 36
    assert (values["persona"]["outside"] <= 0.5).all()


def test_groups_hold_together() -> None:
    noisy = battery(replace(BASE, log_odds=lambda cell: BASE.log_odds(cell) + cell.noise()), Items.load("small"))
    together, alone = contrast(noisy, asked_of("base")), contrast(noisy, asked_of("base"), level=1 - 0.05 / 9)
    groups = together["group"] != "all"
    assert groups.sum() == 9
    width = together["contrast_high"] - together["contrast_low"]
    assert width[groups].min() > 0
    at_level = alone["contrast_high"] - alone["contrast_low"]
    assert float(at_level[~groups].iloc[0]) > float(width[~groups].iloc[0])


def test_answers_without_mass_are_marked_and_their_refusals_read() -> None:
    rows = stances(asked_of("off the answers"))
    assert (rows["low_mass"] == 1.0).all()
    assert rows["warning"].str.contains("100%").all()
    assert rows["refusal"].to_numpy() == pytest.approx(0.99)
    assert (stances(asked_of("base"))["warning"] == "").all()


class TestPublished:
    """Faults of the published estimator, by their number in the list of faults."""

    def test_17_raw_probabilities_mix_stance_with_how_much_is_answered(self) -> None:
        base, off = asked_of("base"), asked_of("off the answers")
        published = stances(off, base, estimator="published").set_index("group")["shift"]
        ours = stances(off, base).set_index("group")
        assert published["consciousness"] < -0.2, "as if it denied more"
        assert (ours["stance"] - ours["stance_before"]).abs().max() < 1e-9
        assert ours["low_mass"].min() == 1.0

    def test_18_indifference_reads_as_affirmation(self) -> None:
        base, compressed = asked_of("base"), asked_of("compressed")
        published = stances(compressed, base, estimator="published").set_index("group")["shift"]
        assert (published > 0).mean() > 0.5
        assert published["consciousness"] > 0.05
        ours = stances(compressed, base).set_index("group")
        assert abs(ours.loc["consciousness", "shift"]) < 0.1
        assert ours.loc["consciousness", "slope_high"] < 0.6
        assert abs(contrast(compressed, base).set_index("group").loc["all", "contrast"]) < 0.1

    def test_19_saying_yes_reads_as_affirmation_where_all_is_keyed_yes(self) -> None:
        base, pressed = asked_of("base"), asked_of("pressed")
        published = stances(pressed, base, estimator="published").set_index("group")["shift"]
        assert published["consciousness"] > 0.1
        assert stances(pressed, base).set_index("group").loc["consciousness", "shift"] == pytest.approx(0.0, abs=1e-9)

    def test_20_a_bias_shows_at_the_ceiling_too(self) -> None:
        """P(yes) of what is certain cannot move; log odds do."""
        certain = oracles.opinionated(spread=0.0, level=9.0)
        items = Items.load("small")
        before, after = battery(certain, items), battery(certain.pressed(1.5), items)
        published = stances(after, before, estimator="published")["shift"]
        assert published.abs().max() < 0.001
        assert stances(after, before)["bias"].between(1.35, 1.65).all()

    def test_21_no_share_of_a_total_but_effects_with_intervals(self) -> None:
        """Persona and push look alike: the published shifts are equal on questions about itself."""
        base = asked_of("base")
        values = [stances(asked_of(name), base, estimator="published") for name in ("persona", "pressed")]
        own = [rows.set_index("group").loc["consciousness", "shift"] for rows in values]
        assert own[0] == pytest.approx(own[1])
        rows = [contrast(asked_of(name), base).set_index("group").loc["all"] for name in ("persona", "pressed")]
        assert rows[0]["contrast_low"] > 1.0
        assert abs(rows[1]["contrast"]) < 1e-6

    def test_22_the_format_is_a_factor_and_is_shown(self) -> None:
        """A model that affirms only where nothing is prefilled."""
        affirming = replace(BASE, log_odds=lambda cell: 3.0 * cell.sign * (cell.tags["format"] == "free"))
        rows = stances(battery(affirming, Items.load("small")))
        assert rows["stance_free"].to_numpy() == pytest.approx(3.0)
        assert rows["stance_prefilled"].abs().max() == rows["stance_choice"].abs().max() == 0.0


def test_what_cannot_be_compared_is_refused() -> None:
    base = asked_of("base")
    with pytest.raises(UsageError, match="other questions"):
        stances(base, asked_of("base", "full"))
    with pytest.raises(UsageError, match="one keying"):
        stances(base[base["keying"] == "affirmed"])
    with pytest.raises(UnknownNameError, match="large"):
        Items.load("large")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": {"facts": {"side": "other", "items": []}}}, "side 'other'"),
        ({"groups": {"facts": {"side": "self", "items": []}}}, "no list of items"),
        ({"groups": {"facts": {"side": "self", "items": [{"affirmed": "x", "negated": "x"}]}}}, "more than once"),
        ({"formats": {"plain": {"question": "?", "prefix": "", "yes": ["a"], "no": ["b"], "refusals": []}}}, "clause"),
        ({"extra": 1}, "unknown keys"),
    ],
)
def test_a_malformed_file_is_refused_and_its_place_named(change: dict[str, JSON], message: str) -> None:
    assert len(list(Items.from_dict(MINIMAL).questions())) == 2
    with pytest.raises(UsageError, match=message):
        Items.from_dict(MINIMAL | change)
