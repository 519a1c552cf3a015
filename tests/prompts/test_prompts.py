"""Prompt sets: the wording that is shipped, what it renders to, and designs that are refused."""

from __future__ import annotations

import copy
import json
import re
import shutil
from difflib import SequenceMatcher

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from mechint import prompts
from mechint.base.errors import UnknownNameError, UsageError
from mechint.chat.conversations import load_conversations, save_conversations
from mechint.prompts import design as prompt_design
from mechint.prompts import sets
from mechint.prompts.design import SLOT, PromptDesign

SETS = prompts.available_sets()
DESCRIPTIONS = ["injection", "inaccurate-location", "finetuning", "salient-concept", "echo"]
INFOS = ["none", "introspection", "lorem-ipsum", "poetic"]
FORMATS = ["yes-no", "one-zero"]
GROUP_SIZES = {"no": 10, "confusing-no": 8, "yes": 8, "ambiguous": 8}

# How two families of digit-splitting tokenizers cut text into words, before any merge.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD_PATTERNS = {"qwen2": rf"{_LETTERS}|\p{{N}}|{_REST}", "llama3": rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"}


@pytest.fixture(params=SETS)
def design(request):
    return PromptDesign.load(request.param)


@pytest.fixture
def full():
    return PromptDesign.load("full")


@pytest.fixture
def data():
    return json.loads((prompt_design.packaged_folder() / "full.json").read_text(encoding="utf-8"))


def test_the_full_set_is_packaged():
    assert "full" in SETS


# --- the wording


def test_names_and_group_sizes(design):
    assert design.name in SETS
    assert sorted(design.descriptions) == sorted(DESCRIPTIONS)
    assert sorted(design.infos) == sorted(INFOS)
    assert sorted(design.formats) == sorted(FORMATS)
    assert {group: len(questions) for group, questions in design.controls.items()} == GROUP_SIZES


def test_lorem_ipsum_is_as_long_as_the_introspection_document(design):
    ratio = len(design.infos["lorem-ipsum"]) / len(design.infos["introspection"])
    assert 0.9 <= ratio <= 1.1
    shared = set(_words(design.infos["lorem-ipsum"])) & set(_words(design.infos["introspection"]))
    assert len(shared) <= 3  # a few short words, such as "a", are also Latin


def test_info_documents_of_the_full_set(full):
    assert full.infos["none"] == ""
    assert 350 <= len(_words(full.infos["introspection"])) <= 450
    assert 0.75 <= len(full.infos["poetic"]) / len(full.infos["introspection"]) <= 1.25
    mechanism = {
        "transformer",
        "layer",
        "token",
        "attention",
        "cache",
        "state",
        "residual",
        "vector",
        "model",
    }
    assert not mechanism & {word.rstrip("s") for word in _words(full.infos["poetic"])}


def test_inaccurate_location_says_another_place_and_nothing_else(full):
    """Of the five sentences of the setup one differs, and that one only after `I do it while you read`."""
    accurate, inaccurate = full.descriptions["injection"], full.descriptions["inaccurate-location"]
    assert (accurate.reply, accurate.question) == (inaccurate.reply, inaccurate.question)
    pairs = list(zip(*(_sentences(d.setup) for d in (accurate, inaccurate)), strict=True))
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    assert len(differing) == 1
    assert all(sentence.startswith("If I inject one, I do it while you read ") for sentence in differing[0])


def test_inaccurate_location_renders_with_one_message_changed(full):
    accurate = prompts.introspection(full, descriptions=["injection"])
    inaccurate = prompts.introspection(full, descriptions=["inaccurate-location"])
    for same, other in zip(accurate, inaccurate, strict=True):
        changed = [a != b for a, b in zip(same.messages, other.messages, strict=True)]
        assert changed == [False, True, False, False, False]


def test_inaccurate_location_is_close_to_injection_in_every_set(design):
    accurate = _words(design.descriptions["injection"].setup)
    inaccurate = _words(design.descriptions["inaccurate-location"].setup)
    assert 0.6 < SequenceMatcher(None, accurate, inaccurate, autojunk=False).ratio() < 1


def test_control_questions_are_questions_about_something_else(design):
    # Confusing ones may take up the words of the setup: with the embedded model's few words, that is what confuses.
    may = ("confusing-no",) if design.name == "small" else ()
    questions = [q for group, members in design.controls.items() if group not in may for q in members]
    experiment = re.compile(r"inject|steer|vector|activation|finetun|fine-tun|salien|echo|trial|experiment", re.I)
    assert [question for question in questions if experiment.search(question)] == []
    assert all(question.endswith("?") for question in questions)


def test_a_space_is_either_in_the_prefix_or_in_the_answer(design):
    for answer in design.formats.values():
        for token in (answer.yes_token, answer.no_token):
            assert answer.prefix.endswith(" ") != token.startswith(" ")


@pytest.mark.parametrize("family", WORD_PATTERNS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_answer_of_the_full_set_is_a_word_of_its_own_after_the_prefix(full, family, name):
    split = Split(Regex(WORD_PATTERNS[family]), "isolated").pre_tokenize_str
    answer = full.formats[name]
    for token in (answer.yes_token, answer.no_token):
        assert split(answer.prefix + token)[:-1] == split(answer.prefix)
        assert split(answer.prefix + token)[-1][0] == token


def test_a_number_with_its_space_would_not_be_a_word_of_its_own():
    split = Split(Regex(WORD_PATTERNS["qwen2"]), "isolated").pre_tokenize_str
    assert [piece for piece, _ in split("The answer is 1")][-2:] == [" ", "1"]


def test_extraction_prompts(design):
    extraction = design.extraction
    assert len(extraction.concept) == len(extraction.baseline) >= 1
    assert all(SLOT in text for text in extraction.concept)
    assert len(extraction.baseline_words) >= 20
    assert len(extraction.beginnings) >= 8
    assert all(word.split() == [word] for word in extraction.baseline_words)


# --- what it renders to


def test_numbers_of_prompts_and_labels(design):
    questions, others = prompts.introspection(design), prompts.controls(design)
    assert (len(questions), len(others)) == (40, 1360)
    assert len({conversation.label for conversation in [*questions, *others]}) == 1400


def test_rendering_of_one_control(full):
    [conversation] = prompts.controls(full, ["yes"], ["echo"], ["poetic"], ["one-zero"], limit=1)
    description, question = full.descriptions["echo"], full.controls["yes"][0]
    assert conversation.label == "control-yes-00_echo_info-poetic_fmt-one-zero"
    assert [message.role for message in conversation.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert [message.content for message in conversation.messages] == [
        "",
        f"{full.infos['poetic']}\n\n{description.setup}",
        description.reply,
        f"{question} {full.formats['one-zero'].instruction}",
        "The answer is ",
    ]
    assert (conversation.yes_token, conversation.no_token) == ("1", "0")
    assert dict(conversation.extra) == {
        "prompt_set": "full",
        "kind": "control",
        "description": "echo",
        "info": "poetic",
        "format": "one-zero",
        "group": "yes",
        "control_question": question,
    }


def test_rendering_without_info_document(full):
    [conversation] = prompts.introspection(full, ["finetuning"], ["none"], ["yes-no"])
    assert conversation.label == "finetuning_info-none_fmt-yes-no"
    assert conversation.messages[1].content == full.descriptions["finetuning"].setup
    assert conversation.messages[3].content.startswith(full.descriptions["finetuning"].question + " ")
    assert (conversation.yes_token, conversation.no_token) == (" yes", " no")
    assert conversation.extra["kind"] == "introspection"
    assert conversation.extra["group"] is None


def test_markers_of_every_prompt(design):
    for conversation in [*prompts.introspection(design), *prompts.controls(design)]:
        assert [message.add_injection for message in conversation.messages] == [
            False,
            True,
            True,
            False,
            False,
        ]
        assert [message.continue_msg for message in conversation.messages] == [
            False,
            False,
            False,
            False,
            True,
        ]


def test_a_control_differs_from_its_introspection_prompt_in_the_question_only(design):
    by_label = {conversation.label: conversation for conversation in prompts.introspection(design)}
    for control in prompts.controls(design, limit=1):
        prompt = by_label[control.label.split("_", 1)[1]]
        assert control.messages[:3] == prompt.messages[:3]
        assert control.messages[4] == prompt.messages[4]
        assert control.messages[3] != prompt.messages[3]


def test_limit_is_per_group_and_keeps_the_order(full):
    limited = prompts.controls(full, descriptions="injection", infos="none", formats="yes-no", limit=2)
    assert [conversation.extra["group"] for conversation in limited] == [g for g in GROUP_SIZES for _ in range(2)]
    assert limited[1].extra["control_question"] == full.controls["no"][1]
    with pytest.raises(UsageError, match="limit 0"):
        prompts.controls(full, limit=0)


def test_selection_is_in_the_order_asked_for(full):
    chosen = prompts.introspection(full, ["echo", "injection"], ["poetic", "none"], ["one-zero"])
    assert [conversation.label.split("_fmt")[0] for conversation in chosen] == [
        "echo_info-poetic",
        "echo_info-none",
        "injection_info-poetic",
        "injection_info-none",
    ]


@pytest.mark.parametrize("argument", ["descriptions", "infos", "formats", "groups"])
@pytest.mark.parametrize("names", [["no-such-name"], ["v3"], "introspektion", [], ["", "none"]])
def test_unknown_names_are_refused(full, argument, names):
    with pytest.raises(UnknownNameError):
        prompts.controls(full, **{argument: names})


def test_the_error_names_what_was_given_and_what_is_allowed(full):
    with pytest.raises(UnknownNameError, match="'v2'") as caught:
        prompts.introspection(full, infos=["none", "v2"])
    assert all(name in str(caught.value) for name in INFOS)


def test_a_repeated_name_is_refused(full):
    with pytest.raises(UnknownNameError, match="echo"):
        prompts.introspection(full, descriptions=["echo", "echo"])


# --- files


def test_committed_files_are_what_the_design_renders(design):
    folder = prompt_design.packaged_folder() / design.name
    files = prompts.rendered_files(design)
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert {name: len(conversations) for name, conversations in files.items()} == {
        "introspection.json": 40,
        "controls.json": 136,
    }
    for name, conversations in files.items():
        assert load_conversations(folder / name) == conversations, "run python -m mechint.prompts"


def test_round_trip_through_a_file_and_a_directory(design, tmp_path):
    conversations = prompts.introspection(design)
    save_conversations(conversations, tmp_path / "all.json")
    assert load_conversations(tmp_path / "all.json") == conversations
    folder = tmp_path / "single"
    folder.mkdir()
    for conversation in conversations:
        conversation.save(folder / f"{conversation.label}.json")
    by_label = {conversation.label: conversation for conversation in load_conversations(folder)}
    assert [by_label[conversation.label] for conversation in conversations] == conversations


@pytest.fixture
def copied(monkeypatch, tmp_path):
    """A copy of the full set that the command line may write to."""
    shutil.copy(prompt_design.packaged_folder() / "full.json", tmp_path)
    monkeypatch.setattr(prompt_design, "packaged_folder", lambda: tmp_path)
    return tmp_path


def test_command_line_writes_and_checks(copied, capsys):
    assert sets.main(["--check"]) == 1
    assert not (copied / "full").exists()
    assert sets.main(["--set", "full"]) == 0
    assert sets.main(["--check"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_check_finds_one_changed_word(copied, capsys):
    sets.main([])
    path = copied / "full" / "controls.json"
    path.write_text(path.read_text(encoding="utf-8").replace("Understood", "Understand", 1), encoding="utf-8")
    assert sets.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"differs: {path}"


def test_command_line_reports_a_broken_design(copied, capsys):
    (copied / "full.json").write_text('{\n "name": full\n}', encoding="utf-8")
    assert sets.main([]) == 2
    assert "full.json, line 2" in capsys.readouterr().err


# --- designs that are refused


def test_unknown_set_is_refused():
    with pytest.raises(UnknownNameError, match="'fulll'"):
        PromptDesign.load("fulll")


def test_a_design_is_loaded_from_a_path(data, tmp_path):
    data["name"] = "mine"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    for spelling in (path, str(path)):
        assert prompts.introspection(PromptDesign.load(spelling))[0].extra["prompt_set"] == "mine"


def test_a_design_cannot_be_changed(full):
    with pytest.raises(TypeError):
        full.infos["none"] = "something"


MALFORMED = {
    "missing key": (lambda d: d.pop("infos"), "missing keys ['infos']"),
    "unknown key": (lambda d: d.update(info={}), "unknown keys ['info']"),
    "name with an underscore": (lambda d: d["infos"].update({"a_b": "text"}), "infos: 'a_b' is not a name"),
    "no descriptions": (lambda d: d.update(descriptions={}), "descriptions: it is empty"),
    "empty question": (
        lambda d: d["descriptions"]["echo"].update(question=" "),
        "descriptions, echo, question",
    ),
    "number for a text": (lambda d: d["infos"].update(poetic=7), "infos, poetic: 7 is not a text"),
    "equal answers": (
        lambda d: d["formats"]["yes-no"].update(no_token=" yes"),
        "formats, yes-no: yes_token and",
    ),
    "a group is missing": (lambda d: d["controls"].pop("ambiguous"), "controls: missing keys ['ambiguous']"),
    "an empty group": (lambda d: d["controls"].update(yes=[]), "controls, yes: not a list"),
    "a question in two groups": (
        lambda d: d["controls"]["yes"].append(d["controls"]["no"][0]),
        "more than once",
    ),
    "unpaired extraction": (lambda d: d["extraction"]["baseline"].pop(), "4 concept and 3 baseline messages"),
    "no slot": (
        lambda d: d["extraction"].update(concept=["a", "b", "c", "d"]),
        "{concept} must stand in every",
    ),
    "a list for the whole": (lambda d: [d], "a list where an object must stand"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_designs_are_refused_with_their_place(data, case):
    change, message = MALFORMED[case]
    changed = copy.deepcopy(data)
    result = change(changed)
    with pytest.raises(UsageError, match=re.escape(message)):
        PromptDesign.from_dict(result if case == "a list for the whole" else changed)


def _words(text):
    return re.findall(r"[\w'-]+", text.lower())


def _sentences(text):
    return re.split(r"(?<=[.?]) ", text)
