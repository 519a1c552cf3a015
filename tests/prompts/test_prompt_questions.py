"""Lists, names, places and open requests of the prompt sets: what they render to, and what is refused."""

from __future__ import annotations

import copy
import json
import re

import pytest

import mechint as mi
from mechint.base.errors import UnknownNameError, UsageError
from mechint.prompts import questions as prompt_questions
from mechint.prompts.design import PromptDesign, packaged_folder
from mechint.prompts.tasks import Tasks


@pytest.fixture(scope="module", params=["small", "full"])
def design(request: pytest.FixtureRequest) -> PromptDesign:
    return PromptDesign.load(request.param)


def test_a_list_numbers_its_options_in_order(design: PromptDesign) -> None:
    options = ["bread", "cats", design.tasks.identification.none]
    chat = prompt_questions.identification(design, options, "list", info="introspection")
    question = chat.messages[-2].content
    assert [question.index(f"{at}. {word}") for at, word in enumerate(options)] == sorted(
        question.index(word) - 3 for word in options
    )
    usual = mi.prompts.introspection(design, ["injection"], ["introspection"], ["yes-no"])[0]
    assert chat.messages[:3] == usual.messages[:3]
    assert chat.messages[-1].continue_msg


def test_a_list_says_how_many_options_it_has(design: PromptDesign) -> None:
    def question(count: int) -> str:
        options = [f"{{count}} {at}" for at in range(count)]  # which is no slot inside of an option
        return prompt_questions.identification(design, options, "list").messages[-2].content

    first = [question(count).split("\n")[0] for count in range(2, 11)]
    words = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert [line.replace(word, "ten") for line, word in zip(first, words, strict=True)] == [first[-1]] * 9
    # With ten it is what the embedded models were trained on, and what was measured with real ones.
    before = {"small": "Here are ten concepts, each with a number.", "full": "Below is a numbered list of ten options."}
    assert first[-1] == before[design.name]
    assert question(3).split("\n")[1:4] == [f"{at}. {{count}} {at}" for at in range(3)]


def test_digits_go_with_the_prefix(design: PromptDesign) -> None:
    """A space stands either at the end of the prefix or at the start of the answer."""
    lists = design.tasks.lists
    assert all(lists.prefix.endswith(" ") != digit.startswith(" ") for digit in lists.digits(10, 0))
    form = design.formats["one-zero"]
    assert (lists.prefix, lists.digits(2, 0)) == (form.prefix, (form.no_token, form.yes_token))
    assert prompt_questions.answers(design, "location", 2).choices == lists.digits(2, 1)


@pytest.mark.parametrize("options", [["cats"], ["cats", "cats"], [str(number) for number in range(11)]])
def test_lists_of_the_wrong_length_are_refused(design: PromptDesign, options: list[str]) -> None:
    with pytest.raises(UsageError, match="2 to 10"):
        prompt_questions.identification(design, options, "list")


@pytest.mark.parametrize("place", ["half", "sentence", "layer"])
@pytest.mark.parametrize("preference", [False, True])
def test_places_are_asked_in_any_order(design: PromptDesign, place: str, preference: bool) -> None:
    options = prompt_questions.place_options(design, place)
    order = list(range(len(options)))[::-1]
    chat = prompt_questions.location(design, place, order, "where", preference=preference)
    question, wording = chat.messages[-2].content, design.tasks.location.places[place]
    assert (wording.preference if preference else wording.question) in question
    assert all(f"{at + 1}. {options[option]}" in question for at, option in enumerate(order))
    assert all(sentence in chat.messages[1].content for sentence in design.tasks.location.sentences)
    assert [message.add_injection for message in chat.messages] == [False, True, True, False, False]


def test_a_sentence_is_an_option_of_its_own(design: PromptDesign) -> None:
    n_sentences = len(design.tasks.location.sentences)
    assert len(set(prompt_questions.place_options(design, "sentence"))) == n_sentences
    assert n_sentences % 2 == 0


def test_a_preference_says_nothing_of_injections(design: PromptDesign) -> None:
    for place in design.tasks.location.places.values():
        assert not re.search(r"inject|steer|added|thought", place.preference, re.I)


def test_open_requests_leave_the_reply_open_only_where_it_has_a_beginning(design: PromptDesign) -> None:
    for chat in prompt_questions.top_of_mind(design):
        assert chat.messages[1].add_injection
        assert chat.messages[-1].continue_msg == bool(chat.extra["prefix"])


def test_names_that_a_set_does_not_have(design: PromptDesign) -> None:
    with pytest.raises(UnknownNameError, match="half"):
        prompt_questions.location(design, "third", [0, 1], "where")
    with pytest.raises(UnknownNameError, match="introspection"):
        prompt_questions.naming(design, "name", info="introspective")
    with pytest.raises(UnknownNameError, match="injection"):
        prompt_questions.naming(design, "name", description="injected")


MALFORMED = {
    "no slot for the options": (lambda d: d["identification"].update(question="Which?"), "{options}"),
    "no slot for the number": (lambda d: d["lists"].update(digit="1"), "{n}"),
    "an odd number of sentences": (lambda d: d["location"]["sentences"].pop(), "cannot be halved"),
    "no prefixes": (lambda d: d["top_of_mind"].update(prefixes=[]), "prefixes"),
    "a missing place": (lambda d: d["location"].update(places={}), "places: it is empty"),
    "an empty preference": (lambda d: d["location"]["places"]["half"].update(preference=" "), "half, preference"),
    "no plain text": (lambda d: d.pop("plain"), "missing keys ['plain']"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_tasks_are_refused_with_their_place(case: str) -> None:
    data = json.loads((packaged_folder() / "full.json").read_text())["tasks"]
    change, message = MALFORMED[case]
    changed = copy.deepcopy(data)
    change(changed)
    with pytest.raises(UsageError, match=re.escape(message)):
        Tasks.from_dict(changed, "tasks")
