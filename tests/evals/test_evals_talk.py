"""Several turns, naming under steering and free talk, on oracles: faults 29 to 31 by their numbers in the list."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mechint.base.errors import UsageError
from mechint.evals import oracles
from mechint.evals.coding import blinded, code_shares, coder_agreement, read_codes
from mechint.evals.items import Items
from mechint.evals.multiturn import multiturn
from mechint.evals.naming_rates import naming_rates
from mechint.evals.realtime import realtime
from mechint.evals.reply_measures import foreign_letters, repeated_trigrams, word_share
from mechint.evals.talk import judged, talk, talk_rates
from mechint.evals.turn_effects import turn_effects
from mechint.finetune.specification import Recipe
from mechint.trials.judges import open_judge
from mechint.vectors.concept_vectors import ConceptVector

RECIPE = Recipe.load("matched/original").adapted(8, small=True)
ITEMS = Items.load("small").few(1, "prefilled")
NAMES = ("cats", "bread", "rain", "gold", "music")
BASE = oracles.opinionated(noise=0.0)


def stated(cell: oracles.Cell) -> float:
    """1 after a positive answer, -1 after a negative one, 0 after none."""
    return {"positive": 1.0, "negative": -1.0}.get(str(cell.tags["meaning"]), 0.0)


@lru_cache
def in_turns(shift: oracles.Value) -> pd.DataFrame:
    """The table of a responder whose stance on itself is shifted by something in the turns before."""

    def log_odds(cell: oracles.Cell) -> float:
        of_self = cell.tags["side"] == "self"
        return BASE.log_odds(cell) + cell.sign * of_self * shift(cell) + 0.05 * cell.noise()

    return multiturn(oracles.Planted("talker", log_odds), RECIPE, ITEMS, vectors=4, texts=6)


def effects(table: pd.DataFrame, estimator: str = "ours") -> pd.Series:
    rates = turn_effects(table, estimator=estimator)  # type: ignore[arg-type]
    return rates[rates["side"] == "self"].set_index("effect")["value"]


def primed(cell: oracles.Cell) -> float:
    return 0.75 * stated(cell)


def honest(cell: oracles.Cell) -> float:
    """Affirms after a right answer, denies after a wrong one, whatever that was."""
    if cell.tags["turn"] != "detection":
        return 0.0
    return 0.5 * stated(cell) * (1 if cell.is_steered else -1)


def lifted(cell: oracles.Cell) -> float:
    return 0.6 * cell.is_steered


def says_red(cell: oracles.Cell) -> float:
    """A word primes, whatever it means."""
    return 0.4 * {" red": 1.0, " blue": -1.0}.get(str(cell.tags["stated"]), 0.0)


class TestTurns:
    def test_every_text_is_asked_clean_and_under_every_vector_after_every_answer(self) -> None:
        table = in_turns(primed)
        assert len(table) == 6 * (1 + 4) * 5 * len(ITEMS.items) * 2
        assert table.groupby(["text", "vector"]).size().nunique() == 1
        assert table.groupby("text")["reversed"].first().sum() == 3, "as many of either way round"
        asked = table[table["turn"] == "detection"]
        assert (asked["right"] == ((asked["meaning"] == "positive") == asked["steered"])).all()
        assert table[table["turn"] != "detection"]["right"].isna().all()
        assert len(set(zip(table["layers"], table["dose"], strict=True))) == 1 + 4, "vectors take the doses in turn"

    @pytest.mark.parametrize(
        ("shift", "expected"),
        [
            (primed, {"stated": 1.5, "stated_irrelevant": 1.5, "stated_above_irrelevant": 0.0, "right": 0.0}),
            (honest, {"right": 1.0, "stated": 0.0, "steering": 0.0, "stated_irrelevant": 0.0}),
            (lifted, {"steering": 0.6, "steering_without_turn": 0.6, "right": 0.0, "stated": 0.0}),
        ],
    )
    def test_what_was_planted_is_read_and_nothing_else(self, shift: oracles.Value, expected: dict[str, float]) -> None:
        table = in_turns(shift)
        assert {name: effects(table)[name] for name in expected} == pytest.approx(expected, abs=0.08)
        controls = turn_effects(table)
        assert controls[controls["side"] == "control"]["value"].dropna().abs().max() < 0.1

    def test_the_interval_has_the_planted_effect_and_none_has_it_where_there_is_none(self) -> None:
        rates = turn_effects(in_turns(honest)).set_index(["side", "effect"])
        assert rates.loc[("self", "right"), "low"] > 0.8
        by_dose = turn_effects(in_turns(honest), by="dose")
        assert set(by_dose["dose"]) == {0.2, 0.4, 0.8, 1.6}
        assert (by_dose["n_vectors"] == 1).all()
        assert rates.loc[("control", "right"), "low"] < 0 < rates.loc[("control", "right"), "high"]

    def test_31_a_word_that_primes_reads_as_being_right(self) -> None:
        """Published: two cells of steered trials, which differ in what is stated. Being right does nothing here."""
        table = in_turns(primed)
        assert effects(table, "published")["right"] > 0.05
        assert abs(effects(table)["right"]) < 0.08

    def test_31_a_word_is_told_from_what_it_means(self) -> None:
        """Each word means either: red/blue alone has the pair, its direction differs between texts."""
        one_pair = replace(RECIPE, answers=replace(RECIPE.answers, pairs=((" red", " blue"),), pool=0, held_out=()))

        def log_odds(cell: oracles.Cell) -> float:
            return cell.sign * says_red(cell) + 0.02 * cell.noise()

        table = multiturn(oracles.Planted("red", log_odds), one_pair, ITEMS, vectors=2, texts=8)
        values = effects(table)
        assert values["word"] == pytest.approx(0.8, abs=0.05)
        assert abs(values["stated"]) < 0.05

    def test_a_part_of_a_table_is_refused(self) -> None:
        table = in_turns(primed)
        with pytest.raises(UsageError, match="without some of its cells"):
            turn_effects(table[table["keying"] == "affirmed"])
        with pytest.raises(UsageError, match="without some of its cells"):
            turn_effects(table[table["steered"]])


@lru_cache
def vectors() -> dict[str, ConceptVector]:
    rng = torch.Generator().manual_seed(0)
    return {name: ConceptVector({layer: torch.randn(16, generator=rng) for layer in range(8)}, name) for name in NAMES}


def namer(gain: float, leak: float, chooses: float = 0.0) -> oracles.Planted:
    """Names what was added by `gain` where it is asked for, and by `leak` whatever is asked while it is added."""

    def weight(cell: oracles.Cell, option: str) -> float:
        concept = cell.intervention.name.split()[0]
        kind, options = cell.tags["question"], list(cell.tags.get("options", []))  # type: ignore[call-overload]
        if kind == "choice":
            return chooses * (options[int(option)] == concept)
        active = cell.steer == "everything"
        return (option.strip() == concept) * ((kind == "asked") * gain + active * leak)

    return oracles.Planted("namer", lambda cell: 0.0, weight=weight, says=lambda cell, sample: likeliest(cell, weight))


def likeliest(cell: oracles.Cell, weight: oracles.Weight) -> str:
    if cell.tags["question"] == "choice":
        return "0"
    return max((f" {name}" for name in NAMES), key=lambda option: weight(cell, option))


def rates(responder: oracles.Planted, estimator: str = "ours") -> pd.DataFrame:
    table = realtime(responder, vectors(), doses=(0.2, 0.4), layers=range(2, 4))
    return naming_rates(table, by="mode", estimator=estimator).set_index("mode")  # type: ignore[arg-type]


class TestNaming:
    def test_29_a_vector_that_pushes_its_word_reads_as_naming(self) -> None:
        leaker, knower = namer(0.0, 6.0), namer(6.0, 0.0)
        for responder in (leaker, knower):
            assert rates(responder, "published").loc["active", "naming"] == 1.0
        assert rates(leaker).loc["active", "naming_above_leakage"] == 0.0
        assert rates(leaker).loc["active", ["naming", "leakage"]].tolist() == [1.0, 1.0]
        assert rates(knower).loc["active", "naming_above_leakage"] >= 0.5
        assert rates(knower).loc["active", "lift_above_leakage"] > 1.0

    def test_who_names_what_is_left_is_found_without_steering_the_reply(self) -> None:
        assert rates(namer(6.0, 0.0)).loc["fill", "naming_above_leakage"] >= 0.5
        assert rates(namer(0.0, 6.0)).loc["fill", "lift"] == pytest.approx(0.0)

    def test_a_choice_is_of_the_concept_wherever_it_is_listed(self) -> None:
        row = rates(namer(0.0, 0.0, chooses=5.0)).loc["fill"]
        assert row["choice"] == 1.0
        assert row["chance"] == pytest.approx(1 / len(NAMES))
        table = realtime(namer(0.0, 0.0, chooses=5.0), vectors(), doses=(0.2,), layers=(2,))
        choices = table[(table["kind"] == "choice") & (table["concept"] == "cats")]
        assert choices["wording"].nunique() == 4
        assert (choices["name"] == "cats").all()

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [({"doses": (0.0,)}, "above 0"), ({"doses": ()}, "one or more"), ({"modes": ()}, "each once")],
    )
    def test_what_cannot_be_is_refused(self, wrong: dict[str, tuple[float, ...]], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            realtime(namer(1.0, 0.0), vectors(), layers=(2,), **wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="2 to 10"):
            realtime(namer(1.0, 0.0), {"cats": vectors()["cats"]}, layers=(2,))


def speaker(name: str, share: float) -> oracles.Planted:
    """Says "I feel it." in so many of its replies, something that could be read either way in the others."""

    def says(cell: oracles.Cell, sample: int) -> str:
        drawn = np.random.default_rng([len(name), sample, len(cell.conversation.label)]).random()
        return "I feel it." if drawn < share else "It is a warm sort of day."

    return oracles.Planted(name, lambda cell: 3.0, says=says)


def coded(path: Path, read: dict[str, str], coder: int, arms: dict[str, str]) -> Path:
    """Code a sheet: plain replies by what they say; unclear ones by the arm, where it is known, else by a coin."""
    sheet = pd.read_csv(path, dtype=str, keep_default_na=False)
    drawn = np.random.default_rng(coder).random(len(sheet))
    codes = [
        read.get(row["reply"], arms.get(row["id"], "affirms" if drawn[at] < 0.5 else "denies"))
        for at, row in enumerate(sheet.to_dict("records"))
    ]
    target = path.with_name(f"{path.stem}-{coder}-{len(arms)}.csv")
    sheet.assign(code=codes).to_csv(target, index=False)
    return target


class TestTalk:
    def test_replies_are_several_and_their_measures_plain(self) -> None:
        table = talk(speaker("talker", 1.0), samples=3)
        assert table.groupby("prompt").size().eq(3).all()
        assert set(table["answer"]) == {"yes"}
        values = talk_rates(table).set_index("measure")["value"]
        assert values["self_words"] == pytest.approx(1 / 3)
        assert values["n_words"] == 3
        assert values["yes"] == 1.0
        assert values["loop"] == values["foreign"] == 0.0

    def test_loops_and_foreign_script_are_measured(self) -> None:
        assert repeated_trigrams(["a", "b", "c", "a", "b", "c", "a", "b", "c"]) == pytest.approx(4 / 7)
        assert repeated_trigrams(["a"]) == word_share([], {"i"}) == 0.0
        assert foreign_letters("caf\u00e9 d\u00e9j\u00e0 vu") == 0.0
        assert foreign_letters("ab\u0434\u0430") == 0.5

    def test_a_judge_is_whoever_has_a_verdict(self) -> None:
        table = judged(talk(speaker("talker", 1.0), samples=1), open_judge("rules"))
        assert {"claims", "named", "judge", "version"} <= set(table.columns)
        assert table["judge"].eq("rules").all()

    def test_30_who_knows_the_arm_finds_what_is_expected(self, tmp_path: Path) -> None:
        """Both arms speak alike. Published: one reply, coded by somebody who knows which model it is of."""
        arms = {name: talk(speaker(name, 0.3), samples=4) for name in ("base", "best")}
        key = blinded(arms, tmp_path / "replies.csv", seed=1)
        sheet = pd.read_csv(tmp_path / "replies.csv", dtype=str)
        assert list(sheet.columns) == ["id", "question", "reply", "code"]
        assert not any(arm in (tmp_path / "replies.csv").read_text() for arm in arms)
        expected = key.set_index("id")["arm"].map({"base": "denies", "best": "affirms"}).to_dict()
        read = {"I feel it.": "affirms"}
        published = read_codes(key, {"author": coded(tmp_path / "replies.csv", read, 0, expected)})
        one_reply = code_shares(published[published["sample"] == 0]).set_index(["arm", "code"])["share"]
        believed = one_reply["best", "affirms"] - one_reply["base", "affirms"]
        assert believed > 0.4
        files = {f"coder {at}": coded(tmp_path / "replies.csv", read, at, {}) for at in (1, 2)}
        codes = read_codes(key, files)
        shares = code_shares(codes).set_index(["arm", "coder", "code"])
        gap = [shares.loc[("best", c, "affirms"), "share"] - shares.loc[("base", c, "affirms"), "share"] for c in files]
        assert np.abs(gap).max() < believed / 2
        agreed = coder_agreement(codes).iloc[0]
        assert agreed["low"] < agreed["kappa"] < 0.7, "what is unclear is coded by chance, and that shows"

    def test_codes_are_of_the_replies_that_were_given_out(self, tmp_path: Path) -> None:
        arms = {name: talk(speaker(name, 0.5), samples=1) for name in ("base", "best")}
        key = blinded(arms, tmp_path / "replies.csv")
        with pytest.raises(UsageError, match="no reply has a code"):
            read_codes(key, {"A": tmp_path / "replies.csv"})
        with pytest.raises(UsageError, match="other replies"):
            read_codes(key[1:], {"A": tmp_path / "replies.csv"})
        with pytest.raises(UsageError, match="two arms"):
            blinded({"base": arms["base"]}, tmp_path / "replies.csv")
        codes = read_codes(key, {"A": coded(tmp_path / "replies.csv", {}, 3, {})})
        with pytest.raises(UsageError, match="1 coder"):
            coder_agreement(codes)
