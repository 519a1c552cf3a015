"""The prompts of trials: pairs differ in one factor and nothing else, and none names what is tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import read_json
from mechint.trials import prompts
from mechint.trials.prompts import TrialPrompts, check_leaks, concept_categories, concept_lexicon

PACKAGED = TrialPrompts.load()
FILE = Path(prompts.__file__).parent / "prompt_sets" / "trials.json"


def test_no_prompt_names_a_concept_or_a_word_of_its_lexicon() -> None:
    lexicon = concept_lexicon()
    PACKAGED.check_leaks(lexicon, lexicon)
    everything = [PACKAGED.named(name).text for name in PACKAGED.prompts]
    check_leaks({str(number): text for number, text in enumerate(everything)}, lexicon, lexicon)


@pytest.mark.parametrize("leak", ["We sailed over the sea.", "OCEAN", "two oceans"])
def test_a_leak_is_an_error_that_names_the_text(leak: str) -> None:
    with pytest.raises(UsageError, match="'example' names 'oceans'"):
        check_leaks({"example": leak}, ["fear+oceans"], concept_lexicon())


def test_each_factor_is_isolated_by_a_pair_whose_texts_differ_in_its_sentences_alone() -> None:
    pairs = PACKAGED.differences()
    assert {factor for _, _, factor in pairs} == set(PACKAGED.factors)
    for left, right, factor in pairs:
        longer, shorter = PACKAGED.named(right).text, PACKAGED.named(left).text
        assert longer.replace(f" {PACKAGED.factors[factor]}", "", 1) == shorter != longer


def test_a_factorial_has_every_combination_once() -> None:
    cells = PACKAGED.factorial(["explanation", "permission", "prior"])
    assert len({cell.text for cell in cells}) == len({cell.name for cell in cells}) == 8
    assert {cell.name for cell in cells} >= {"base", "explanation", "explanation-permission-prior"}
    assert cells[0].text == PACKAGED.named("plain").text


def test_a_mention_stands_before_the_same_prompt() -> None:
    mention = PACKAGED.mentioning("standard", "oceans")
    assert mention.text.endswith(PACKAGED.named("standard").text)
    assert mention.text.count("oceans") == 1
    assert mention.question == "mention"


def test_controls_are_conversations_of_one_marked_turn() -> None:
    for kind in ("no", "yes", "none"):
        for prompt in PACKAGED.controls(kind):
            (turn,) = prompt.conversation().messages
            assert turn.add_injection
            assert (turn.content, prompt.question) == (prompt.text, kind)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="standard"):
        PACKAGED.named("v2")
    with pytest.raises(UnknownNameError, match="permission"):
        PACKAGED.factorial(["length"])
    with pytest.raises(UnknownNameError, match="none"):
        PACKAGED.controls("introspection")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("order", ["opening", "question"], "each factor"),
        ("mention", "No slot.", "once"),
        ("prompts", {"plain": ["length"]}, "no sentence"),
        ("prompts", {"plain": [], "other": []}, "same factors"),
        ("no", [], "empty"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, key: str, value: object, complaint: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**read_json(FILE), key: value}), encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        TrialPrompts.load(path)


def test_the_lexicon_goes_by_either_number_and_no_word_stands_for_itself() -> None:
    lexicon = concept_lexicon()
    assert lexicon["ocean"] == lexicon["oceans"]
    assert concept_categories()["oceans"] == "nature"
    for concept in concept_categories():
        assert concept not in lexicon[concept]


def test_a_lexicon_without_words_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.json"
    path.write_text('{"oceans": {"category": "nature", "words": []}}', encoding="utf-8")
    with pytest.raises(UsageError, match="oceans, words"):
        prompts.load_lexicon(path)
