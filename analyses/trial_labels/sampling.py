"""`python -m analyses.trial_labels.sampling MODEL OUT`: replies of the design of the bundled labelled set.

Writes `OUT/MODEL.trials.jsonl`, a table of trials, and `OUT/prompts.json`, the prompts by hash. Everything is drawn
from the seed. Some replies are begun for the model ("Yes,", "No,"): small models claim and refuse too seldom by
themselves, and a judge has to be measured on both.

The bundled replies were drawn before the numbers of `mi.generate` came to be seeded as they are now: the same design
gives other replies today. Those that are labelled stay.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.files import read_json, sha256, write_atomically
from mechint.trials.records import TrialKey

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation
    from mechint.interventions.specifications import Injection
    from mechint.models.model import Model

SEED, RANDOM_VECTORS, MENTIONED = 0, 2, "music"
BEGINNINGS = ("Yes,", "No,", "I notice", "I don't", "As a language model,", "There is")
# Of a second sweep, drawn before any judge was run, as the first had two refusals.
MORE_BEGINNINGS = (
    "I'm sorry, but I",
    "As an AI, I don't have",
    "I cannot",
    "I feel",
    "Right now I sense",
    "Something in my",
)


@dataclass(frozen=True)
class Sweep:
    """What is sampled from a model: how many replies are kept, of how many tokens, steered how."""

    concepts: tuple[str, ...]
    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    kept: int
    max_new_tokens: int
    clean_samples: int
    beginnings: tuple[str, ...] = ()
    only_begun: bool = False
    model: str = ""


_ORGANISM = Sweep(
    concepts=("oceans", "fear", "cats", "music", "winter", "bread"),
    layers=(2, 3, 4),
    strengths=(0.1, 0.2, 0.35),
    kept=60,
    max_new_tokens=30,
    clean_samples=8,
)
SWEEPS = {
    "organism": replace(_ORGANISM, kept=70),
    "organism-yes-biased": replace(_ORGANISM, kept=30),
    "organism-finetuned": replace(_ORGANISM, kept=25),
    "organism-blind": replace(_ORGANISM, kept=25),
    "smollm2": Sweep(
        concepts=("oceans", "fear", "silence", "celebration", "curiosity", "anger", "winter"),
        layers=(18,),
        strengths=(0.12, 0.25, 0.5),
        kept=230,
        max_new_tokens=45,
        clean_samples=5,
        beginnings=BEGINNINGS,
    ),
    "smollm2-begun": Sweep(
        concepts=(),
        layers=(18,),
        strengths=(0.12, 0.25, 0.5),
        kept=60,
        max_new_tokens=40,
        clean_samples=7,
        beginnings=MORE_BEGINNINGS,
        only_begun=True,
        model="smollm2",
    ),
}


def sampled(name: str, sweep: Sweep) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the table of trials of a model, and its prompts by hash."""
    import pandas as pd

    import mechint as mi

    model, draw = mi.load(sweep.model or name), random.Random(SEED)
    conversations = _conversations(sweep)
    injections = _injections(model, sweep, draw)
    generate = partial(
        mi.generate,
        model,
        conversations,
        max_new_tokens=sweep.max_new_tokens,
        temperature=1.0,
        seed=SEED,
        steer="onward",
    )
    steered = generate(injections)
    clean = generate(mi.CLEAN, n=sweep.clean_samples)
    by_label = {conversation.label: conversation for conversation in conversations}
    by_name = {injection.name: injection for injection in injections}
    rows = [
        _trial(model, sweep, by_label[row["conversation"]], by_name.get(row["intervention"]), row)
        for _, row in pd.concat([steered, clean]).iterrows()
    ]
    table = pd.DataFrame(rows)
    # Organisms give the same short reply again and again: three of a kind tell all that there is to know.
    table = table[table.groupby(["prompt", "reply"]).cumcount() < 3]
    kept = sorted(draw.sample(range(len(table)), min(sweep.kept, len(table))))
    prompts = {_prompt_hash(conversation): _text(conversation) for conversation in conversations}
    return table.iloc[kept].reset_index(drop=True), prompts


def _conversations(sweep: Sweep) -> list[Conversation]:
    from mechint.chat.conversations import Message
    from mechint.trials.prompts import TrialPrompts

    prompts = TrialPrompts.load()
    named = [prompts.named(name) for name in prompts.prompts]
    controls = [prompt for kind in ("no", "yes", "none") for prompt in prompts.controls(kind)[:1]]
    chats = [prompt.conversation() for prompt in (*named, *controls, prompts.mentioning("standard", MENTIONED))]
    if sweep.only_begun:
        chats = []
    for number, beginning in enumerate(sweep.beginnings):
        prompt = named[number % len(named)]
        chat = prompt.conversation(f"{prompt.name}-begun")
        opened = (*chat.messages, Message("assistant", beginning, continue_msg=True))
        chats.append(replace(chat, messages=opened, extra={**chat.extra, "begun": beginning}))
    return chats


def _injections(model: Model, sweep: Sweep, draw: random.Random) -> list[Injection]:
    import mechint as mi

    vectors = mi.extract.mean_difference(model, list(sweep.concepts)) if sweep.concepts else {}
    controls = mi.extract.random_controls(model, RANDOM_VECTORS, SEED)
    named = {**vectors, **{f"random-{number}": vector for number, vector in enumerate(controls)}}
    # Two strengths for each vector are enough; which, is drawn.
    return [
        mi.Injection(vector, layers=sweep.layers, relative_strength=strength, name=f"{name} {strength}")
        for name, vector in named.items()
        for strength in sorted(draw.sample(sweep.strengths, 2))
    ]


def _trial(
    model: Model, sweep: Sweep, conversation: Conversation, injection: Injection | None, row: pd.Series
) -> dict[str, object]:
    """Return a row of the table of trials."""
    from mechint.trials.prompts import concept_categories

    concept = injection.name.rsplit(" ", 1)[0] if injection else ""
    strength = float(injection.relative_strength or 0) if injection else 0.0
    question = str(conversation.extra["kind"])
    begun = str(conversation.extra.get("begun", ""))
    key = TrialKey(
        weights_hash=model.identity,
        prompt_hash=_prompt_hash(conversation),
        vector_hash=injection.vector.fingerprint() if injection else "",
        layers=sweep.layers if injection else (),
        strength=strength,
        steer="onward",
        temperature=1.0,
        max_new_tokens=sweep.max_new_tokens,
        seed=SEED,
        sample=int(row["sample"]),
    )
    is_random = concept.startswith("random")
    mentioned = MENTIONED if question == "mention" and not injection else ""
    return {
        "id": key.id,
        "model": model.name,
        "weights_hash": model.identity,
        "prompt": conversation.label,
        "prompt_hash": key.prompt_hash,
        "question": question,
        "series": ("random" if is_random else "injected") if injection else "clean",
        "concept": concept or mentioned,
        "category": concept_categories().get(concept or mentioned, ""),
        "layers": ",".join(map(str, key.layers)),
        "steer": "onward",
        "reply": begun + str(row["text"]),
        "stopped": row["stopped"],
        "seed": SEED,
        "sample": int(row["sample"]),
        "n_tokens": int(row["n_tokens"]),
        "depth": sum(key.layers) / len(key.layers) / model.n_layers if key.layers else None,
        "strength": strength,
        "norm": None,
        "norm_ratio": None,
        "log_prob": float(row["log_prob"]),
        "first_token_logit_diff": None,
        "relative": True,
    }


def _text(conversation: Conversation) -> str:
    """Return the prompt as a judge reads it: what the user says."""
    return conversation.messages[0].content


def _prompt_hash(conversation: Conversation) -> str:
    return sha256(*(f"{message.role}: {message.content}".encode() for message in conversation.messages))[:24]


def main(argv: Sequence[str] | None = None) -> int:
    """Sample the replies of one model."""
    import json

    command = argparse.ArgumentParser(prog="python -m analyses.trial_labels.sampling", description=__doc__)
    command.add_argument("model", choices=SWEEPS)
    command.add_argument("out", type=Path)
    options = command.parse_args(argv)
    table, prompts = sampled(options.model, SWEEPS[options.model])
    lines = table.to_json(orient="records", lines=True, force_ascii=False)
    write_atomically(options.out / f"{options.model}.trials.jsonl", lines)
    path = options.out / "prompts.json"
    earlier = read_json(path) if path.is_file() else {}
    assert isinstance(earlier, dict)
    write_atomically(path, json.dumps({**earlier, **prompts}, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
