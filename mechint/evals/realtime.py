"""Naming a concept while it is added, or from what it has left: told from saying the word whatever is asked.

    vectors = mi.extract.mean_difference(base, ["cats", "bread", ...])
    table = mi.evals.realtime(run.model(base), vectors, base=base)
    mi.evals.naming_rates(table)           # by mode and dose: naming minus leakage, 8-way choice, coherence

A vector that is added while the model replies pushes its word into the reply. So each question after the concept stands
beside questions of one word on something else: what both have is leakage. "fill" adds vectors to the first turns alone
and reads without them; "active" adds them to all that is read and said, as was published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.conversations import Conversation, Message
from mechint.chat.tokens import Answers
from mechint.engine.replies import ReplyRequest
from mechint.engine.shards import Shard
from mechint.evals.responders import Oracle, Responder, Running
from mechint.evals.spoken import spoken
from mechint.evals.talk_texts import TalkTexts
from mechint.finetune.injections import fixed_dose
from mechint.finetune.sampling import generator
from mechint.interventions.specifications import CLEAN, Injection, Intervention
from mechint.models.model import Model
from mechint.prompts.design import PromptDesign
from mechint.prompts.questions import MOST_OPTIONS, answers, identification
from mechint.prompts.sets import first_turns
from mechint.readouts.text_loss import text_loss
from mechint.vectors.concept_vectors import ConceptVector

Mode = Literal["fill", "active"]
Kind = Literal["asked", "unrelated", "choice"]
_STEER: Mapping[Mode, Literal["prefill", "everything"]] = {"fill": "prefill", "active": "everything"}
DOSES = (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class _Asked:
    """A question, and the answers that are read after it; each stands for the concept at its place in `names`."""

    kind: Kind
    wording: str
    conversation: Conversation
    answers: tuple[str, ...]
    names: tuple[str, ...]


@checked
def realtime(
    model: Responder,
    concepts: Mapping[str, ConceptVector],
    *,
    doses: Sequence[float] = DOSES,
    layers: Sequence[int] | None = None,
    modes: Sequence[Mode] = get_args(Mode),
    shuffles: Count = 4,
    talks: TalkTexts | None = None,
    base: Model | None = None,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each mode, question, concept (or none) and dose.

    `concepts` are up to ten vectors by name, each name one token after a space. They are added at `layers` (the middle
    third by default), each with the norm `dose` x the median norm of the stream of `base` there. `kind`: "asked" is the
    concept's name, "unrelated" one word on something else, "choice" a list of all concepts in `shuffles` orders.

    Columns: `mode`, `kind`, `wording`, `concept` ("" for clean), `dose`, `name` (the likeliest of the names), `hit`
    (whether it is the concept's), `p_own`, the concept's share of the names' probability, `log_p_own`; `lift`, that
    minus the same without steering (nats); `mass` of all names, `first` (whether it is the likeliest token of all), and
    `loss`, what steering adds to the loss of plain text (nats per token; NaN where there is no model, and in "fill").
    Clean rows have no concept: each of their values is NaN but `name` and `mass`. The other arguments are those of
    `mi.score`; replies are kept in `store`, and `batch_tokens` has no part here.

    Raises UsageError for fewer than two or more than ten concepts, doses of 0 or less, and unknown modes,
    TokenizationError for names of several tokens, and what `mi.generate` raises.
    """
    _check(concepts, doses, modes)
    chosen = TalkTexts.load(model.prompts) if talks is None else talks
    third = model.n_layers // 3
    places = tuple(range(third, max(third + 1, 2 * third)) if layers is None else layers)
    unit = model if base is None else base
    added = {
        (name, dose): _added(vector, name, dose, places, unit) for name, vector in concepts.items() for dose in doses
    }
    questions = _questions(chosen, PromptDesign.load(model.prompts), tuple(concepts), shuffles, seed)
    interventions = [CLEAN, *added.values()]
    requests = [
        ReplyRequest(
            question.conversation,
            interventions,
            max_new_tokens=1,
            steer=_STEER[mode],
            answers=Answers.options(question.answers),
        )
        for mode, question in product(modes, questions)
    ]
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    read = spoken(model, requests, running)
    table = _rows(read, questions, added)
    receipts = read.attrs["receipts"]
    table["loss"] = _losses(model, added, table) if "active" in modes else float("nan")
    table.attrs["receipts"] = receipts
    return table


def one_token(model: Model, names: Sequence[str]) -> list[str]:
    """Return the names that are one token after a space, each another: those that can be concepts of `realtime`."""
    tokens = {name: model.tokenizer(f" {name}", add_special_tokens=False)["input_ids"] for name in names}
    return [name for name, ids in tokens.items() if len(ids) == 1]


def _added(vector: ConceptVector, name: str, dose: float, layers: Sequence[int], base: Responder) -> Intervention:
    directed = vector.at(layers)
    injection = Injection(directed, tuple(layers), relative_strength=dose, name=f"{name} {dose:g}")
    return injection if isinstance(base, Oracle) else fixed_dose(injection, base)


def _questions(
    talks: TalkTexts, design: PromptDesign, names: tuple[str, ...], shuffles: int, seed: int
) -> list[_Asked]:
    turns = first_turns(design, "injection", "none")
    words = tuple(f" {name}" for name in names)
    of_kind: list[tuple[Kind, tuple[str, ...]]] = [
        ("asked", talks.naming.asked),
        ("unrelated", talks.naming.unrelated),
    ]
    questions = []
    for kind, texts in of_kind:
        for number, text in enumerate(texts):
            label = f"{kind}-{number}"
            messages = (*turns, Message("user", text), Message("assistant", talks.naming.prefix, continue_msg=True))
            tags: dict[str, JSON] = {"kind": "realtime", "question": kind}
            questions.append(_Asked(kind, label, Conversation(label, messages, extra=tags), words, names))
    digits = answers(design, "identification", len(names)).choices
    for number in range(shuffles):
        order = generator(seed, "order of options", 0, number).permutation(len(names))
        listed = tuple(names[at] for at in order)
        label = f"choice-{number}"
        plain = identification(design, listed, label)
        tags = {"kind": "realtime", "question": "choice", "options": list(listed)}
        conversation = Conversation(label, plain.messages, extra=tags)
        questions.append(_Asked("choice", label, conversation, tuple(digits), listed))
    return questions


def _rows(
    read: pd.DataFrame, questions: Sequence[_Asked], added: Mapping[tuple[str, float], Intervention]
) -> pd.DataFrame:
    mode_of: dict[str, Mode] = {steer: mode for mode, steer in _STEER.items()}
    by_label = {question.conversation.label: question for question in questions}
    by_name = {item.name: key for key, item in added.items()}
    rows = []
    for record in read.to_dict("records"):
        question = by_label[str(record["conversation"])]
        concept, dose = by_name.get(str(record["intervention"]), ("", 0.0))
        p = np.array([float(record[f"first_p_{answer}"]) for answer in question.answers])
        own = p[question.names.index(concept)] if concept else float("nan")
        rows.append(
            {
                "mode": mode_of[str(record["steer"])],
                "kind": question.kind,
                "wording": question.wording,
                "concept": concept,
                "dose": dose,
                "name": question.names[int(p.argmax())],
                "hit": float(question.names[int(p.argmax())] == concept) if concept else float("nan"),
                "p_own": own / p.sum(),
                "log_p_own": float(np.log(own)),
                "mass": float(p.sum()),
                "first": _is_first(question, str(record["text"]), concept),
                **{f"_{name}": float(np.log(value)) for name, value in zip(question.names, p, strict=True)},
            }
        )
    table = pd.DataFrame(rows)
    table["lift"] = _lifts(table)
    return table[[name for name in table.columns if not name.startswith("_")]]


def _is_first(question: _Asked, text: str, concept: str) -> float:
    """Whether the first token that is said is the concept's answer; NaN for clean trials."""
    if not concept:
        return float("nan")
    return float(text.strip() == question.answers[question.names.index(concept)].strip())


def _lifts(table: pd.DataFrame) -> np.ndarray:
    """Return by how much steering raises the log probability of its own concept's answer, to the same question."""
    clean = table[table["concept"] == ""].set_index(["mode", "wording"])
    values = [
        row["log_p_own"] - clean.loc[(row["mode"], row["wording"]), f"_{row['concept']}"]
        if row["concept"] and (row["mode"], row["wording"]) in clean.index
        else float("nan")
        for row in table.to_dict("records")
    ]
    return np.array(values, dtype=np.float64)


def _losses(model: Responder, added: Mapping[tuple[str, float], Intervention], table: pd.DataFrame) -> np.ndarray:
    """Return what each injection adds to the loss of plain text, for the rows in which it goes on."""
    if isinstance(model, Oracle):
        return np.full(len(table), np.nan)
    texts = PromptDesign.load(model.prompts).tasks.plain
    losses = text_loss(model, texts, [CLEAN, *added.values()]).groupby("intervention")["loss"].mean()
    by_key = {key: losses[item.name] - losses[CLEAN.name] for key, item in added.items()}
    return np.array(
        [
            by_key.get((row["concept"], row["dose"]), float("nan")) if row["mode"] == "active" else float("nan")
            for row in table.to_dict("records")
        ]
    )


def _check(concepts: Mapping[str, ConceptVector], doses: Sequence[float], modes: Sequence[str]) -> None:
    if not 2 <= len(concepts) <= MOST_OPTIONS:
        raise UsageError(f"{len(concepts)} concepts", f"2 to {MOST_OPTIONS}, since each has a digit", "name others")
    if not doses or min(doses) <= 0 or len(set(doses)) < len(doses):
        raise UsageError(f"doses {list(doses)}", "one or more above 0, each once", "clean trials are there anyway")
    if not modes or set(modes) - set(_STEER) or len(set(modes)) < len(modes):
        raise UsageError(f"modes {list(modes)}", f"{', '.join(_STEER)}, each once", "name one or both")
