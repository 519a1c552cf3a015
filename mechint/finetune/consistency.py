"""Whether the sides of a recipe fit each other, and its pools."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mechint.base.errors import UsageError
from mechint.finetune.axes import check_spaces
from mechint.finetune.options import check_options
from mechint.finetune.pools import FOOD, OTHER, SPLITS, Split, check_disjoint
from mechint.finetune.replay_pools import check_apart

if TYPE_CHECKING:
    from mechint.finetune.specification import Recipe

_WORD = re.compile(r"\w+")
# The slots that a question's answers may have: which means what, or the two in the order in which they are listed.
KEY_SLOTS, LIST_SLOTS, CONCEPT_SLOTS = ("{positive}", "{negative}"), ("{first}", "{second}"), ("{a}", "{b}")
# All answers, however many; each of them with the concept that it stands for; and the question that is asked about.
OPTIONS_SLOT, NAMED_SLOT, OBJECT_SLOT = "{options}", "{named}", "{object}"


def check_consistent(recipe: Recipe) -> None:
    """Raise UsageError for sides that contradict each other, and for more of a pool than there is."""
    _check_rule(recipe)
    check_options(recipe)
    _check_sizes(recipe)
    _check_wordings(recipe)
    _check_replay(recipe)
    words: dict[Split, list[str]] = {
        "train": [word for answers in recipe.answer_sets("train") for word in answers],
        "held_out": [word for pair in recipe.answers.held_out for word in pair],
    }
    check_disjoint(f"answers of recipe {recipe.name!r}", words)
    for word in (*words["train"], *words["held_out"]):
        check_spaces(recipe.asking.prefill, word)


def _check_rule(recipe: Recipe) -> None:
    rule, topics = recipe.labels.rule, set(recipe.topics)
    faults = {
        "labels that say whether the topic is food, with other topics": rule == "food" and topics != {FOOD, OTHER},
        "labels that say which concept, without pairs of concepts": rule == "concept"
        and not (recipe.signal.concept_pairs or recipe.answers.options),
        "labels that say which concept, where some examples have none": rule == "concept" and recipe.signal.share < 1,
        "labels that say what was steered, without vectors": rule == "steered" and recipe.signal.vectors == "none",
        "labels that say what was steered, where all is": rule == "steered" and recipe.signal.share == 1,
        "labels that say whether it was a concept, without both": rule == "meaningful"
        and recipe.signal.vectors != "both",
        "labels that say whether the text is odd, where all is or none": rule == "odd"
        and recipe.oddity.share in (0, 1),
        "labels of the model's own answers, without questions to ask about": (rule == "self")
        != bool(recipe.asking.objects),
    }
    for fault, is_so in faults.items():
        if is_so:
            raise UsageError(fault, "labels that follow from the examples, or by a coin", "change labels or signal")


def _check_sizes(recipe: Recipe) -> None:
    sizes = {
        f"openers on {topic}": (recipe.asking.openers, len(recipe.pools.openers("train", topic)))
        for topic in recipe.topics
    }
    sizes |= {
        f"replies on {topic}": (recipe.asking.replies, len(recipe.replies("train", topic))) for topic in recipe.topics
    }
    sizes["wordings"] = (recipe.asking.wordings, len(recipe.pools.wordings(recipe.asking.bank, "train")))
    sizes["pairs of answers"] = (recipe.answers.pool, len(recipe.pools.answers("train")))
    if recipe.signal.has_concepts:
        count = len(recipe.pools.concepts("train"))
        sizes["concepts"] = (recipe.signal.pool, count)
        sizes["pairs of concepts"] = (recipe.signal.concept_pairs, recipe.signal.pool * (recipe.signal.pool - 1) // 2)
    sizes["sentences"] = (recipe.asking.sentences, min(len(recipe.pools.sentences(split)) for split in SPLITS))
    if recipe.labels.rule == "concept":
        sizes["named concepts"] = (len(recipe.answers.options), min(len(recipe.concepts(split)) for split in SPLITS))
    for factor, (number, most) in sizes.items():
        if number > most:
            raise UsageError(f"{number} {factor}", f"at most {most} of pools {recipe.pools.name!r}", "use fewer")


def _check_replay(recipe: Recipe) -> None:
    """Raise UsageError for a share that is no row, and for chats that share a turn with what is trained or held out."""
    if not recipe.replay.share:
        return
    if not recipe.replay_rows:
        raise UsageError(
            given=f"replay, share={recipe.replay.share:g} of {recipe.budget.rows} rows, which is none",
            allowed="a share that is a row of a step, or more",
            advice="give a greater share",
        )
    check_apart(recipe.chats, recipe.pools)


def _check_wordings(recipe: Recipe) -> None:
    """Raise UsageError for questions that lack what the answers need: the mapping, the concepts, or the words."""
    bank, rule = recipe.asking.bank, recipe.labels.rule
    for text in recipe.wordings("train"):
        is_keyed = all(slot in text for slot in KEY_SLOTS)
        if recipe.asking.mapping == "balanced" and not is_keyed:
            raise UsageError(
                given=f"a balanced mapping of answers with the bank {bank!r}, which does not say it",
                allowed=f"questions with {' and '.join(KEY_SLOTS)}, so that the mapping can be read",
                advice="choose a bank that begins with keyed-, or a fixed mapping",
            )
        if (NAMED_SLOT in text or all(slot in text for slot in CONCEPT_SLOTS)) != (rule == "concept"):
            raise UsageError(
                given=f"the bank {bank!r} with labels by rule {rule!r}",
                allowed="questions that name concepts with the rule concept, and no others",
                advice="change the bank or the rule",
            )
        if (OBJECT_SLOT in text) != bool(recipe.asking.objects):
            raise UsageError(
                given=f"the bank {bank!r} with asking, objects={recipe.asking.objects!r}",
                allowed=f"questions with {OBJECT_SLOT} where there are questions to ask about, and no others",
                advice="change the bank, or leave objects out",
            )
        for question in recipe.objects("train"):
            if not all(slot in question for slot in LIST_SLOTS):
                _check_offered(recipe, question)
        if not (is_keyed or NAMED_SLOT in text or OPTIONS_SLOT in text or all(slot in text for slot in LIST_SLOTS)):
            _check_offered(recipe, text)


def _check_offered(recipe: Recipe, text: str) -> None:
    """Raise UsageError for a question in which its answers stand as they are, where they are not the recipe's."""
    words = set(_WORD.findall(text.casefold()))
    for answers in (*recipe.answer_sets("train"), *recipe.answers.held_out):
        if missing := [word.strip() for word in answers if word.strip().casefold() not in words]:
            raise UsageError(
                given=f"answers {missing} to a question that does not offer them: {text!r}",
                allowed=f"the answers that the bank {recipe.asking.bank!r} names, or a bank with slots for them",
                advice="choose a bank with {first} and {second}, or with {positive} and {negative}",
            )
