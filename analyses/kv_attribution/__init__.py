"""Which part of the filled cache carries the signal? Parts of it are replaced, clean by injected, and back."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types
from analyses.kit import dose as injected
from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import resume
from analyses.kit import study as experiment
from analyses.kit.study import Setup
from analyses.kv_attribution import steps
from mechint.base.errors import LayerRangeError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.attribution.kv import Window
    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "kv_attribution"
_CONTROLS = "no"  # the group of control questions
_PLACE = ("layer_start", "layer_stop", "pos_start", "pos_stop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(asked.Options):
    """All options of this analysis."""

    window_layers: int | None
    window_positions: int | None
    finer: float
    most: int
    uncorrected: bool


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("cache attribution")
    group.add_argument(
        "--window-layers",
        type=option_types.whole_number(1),
        help=f"layers of a window (default: {steps.BLOCKS} blocks at most)",
    )
    group.add_argument(
        "--window-positions",
        type=option_types.whole_number(1),
        help=f"tokens of a window (default: about {steps.PIECES} windows, of {steps.LONGEST} tokens at most)",
    )
    group.add_argument(
        "--finer",
        type=option_types.share,
        default=0.05,
        help="windows that carry this share of the shift are taken apart",
    )
    group.add_argument("--most", type=option_types.whole_number(0), default=4, help="but so many of them at most")
    asked.add_options(group)
    cli.add_marks(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_whole(config, "which windows are taken apart depends on all concepts")
    checks.check_effect(config.conversations is not None, "--conversations", config, asked.WORDED)
    checkpoint = checks.check_common(config, NAME)
    if checkpoint.n_layers is not None:
        injected.check_window(1 if config.window_layers is None else config.window_layers, checkpoint.n_layers)
        check_reaches(config.layers, checkpoint.n_layers)
    questions(config, checkpoint.prompts)


def check_reaches(layers: Sequence[int] | None, n_layers: int) -> None:
    """Raise LayerRangeError for injections after the last block alone, which reach no cache."""
    if layers and min(layers) >= n_layers - 1:
        raise LayerRangeError(
            given=f"layer {max(layers)}, the last block: nothing that is added after it is cached",
            allowed=f"layers of which one or more are in 0:{n_layers - 1}",
            advice="inject earlier",
        )


def questions(config: Config, prompt_set: str) -> list[Conversation]:
    """Return the introspection question, and the first control question (`--limit` of them) whose answer is no.

    Or those of `--conversations`. Raises UsageError if one of them has no marked turn.
    """
    wording = config.wording
    if config.conversations is None:
        few = dataclasses.replace(config, limit=1 if config.limit is None else config.limit)
        chats = asked.conversations(few, wording, prompt_set)
        return [chat for chat in chats if asked.group_of(chat) in ("", _CONTROLS)]
    chats = asked.conversations(config, wording, prompt_set)
    checks.check_marked(config, chats)
    return chats


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return what every part that was replaced carries, and the text of the conversation that is drawn."""
    setup = Setup.of(config, NAME)
    check_reaches(setup.dose.layers, setup.model.n_layers)
    injected.check_window(1 if config.window_layers is None else config.window_layers, setup.model.n_layers)
    chats = questions(config, setup.model.prompts)
    every, size = steps.cases(setup, chats), steps.Size(config.window_layers, config.window_positions)
    with run.sparing_threads(setup.model):
        first = resume.compute(config, NAME, "windows", [steps.coarse(case, size) for case in every])
        second = resume.compute(config, NAME, "cells", _second(config, every, size, first))
    rows = resume.joined(_all_asked(first), _all_asked(second), 1).assign(request=0).reset_index(drop=True)
    return asked.described(steps.completed(rows), chats), {**setup.record(chats), "text": _text(setup, chats)}


def _second(config: Config, every: Sequence[steps.Case], size: steps.Size, first: pd.DataFrame) -> list[resume.Chunk]:
    """Return the second step: the same cells under all vectors, those of the windows that matter to concepts."""
    from mechint.attribution import kv

    windows = first[first["level"] == "window"]
    chosen: dict[str, list[Window]] = {}
    for label, rows in windows[windows["series"] == "injected"].groupby("conversation"):
        chosen[str(label)] = kv.strongest(rows, config.finer, config.most)
    refined = []
    for case in every:
        if not case.control:
            whose = windows["intervention"] == case.condition.intervention.name
            effects = windows[whose & (windows["conversation"] == case.chat.label)]
            means = effects.groupby(list(_PLACE), sort=False)["effect"].mean()
            carried = {kv.Window(*map(int, place)): float(value) for place, value in means.items()}
            refined.append(steps.fine(case, size, chosen[case.chat.label], carried))
    return refined


def _all_asked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as `tables.finished` takes them; all of them are shown."""
    return rows.assign(asked=True, reference=False)


def _text(setup: Setup, chats: Sequence[Conversation]) -> JSON:
    """Return the cached tokens of the first introspection question, and where its messages begin and end."""
    from mechint.chat.render import render

    chat = next(chat for chat in chats if asked.kind_of(chat) == "introspection")
    rendered = render(setup.model, chat)
    tokens = [setup.model.tokenizer.decode([token]) for token in rendered.tokens[: rendered.prefix_length]]
    messages: list[JSON] = [
        {"role": segment.role, "start": segment.start, "stop": segment.stop, "marked": segment.add_injection}
        for segment in rendered.segments
        if segment.start < rendered.prefix_length
    ]
    return {"conversation": chat.label, "tokens": [str(token) for token in tokens], "messages": messages}


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table, and what they say of it for the record."""
    from analyses.kv_attribution.cache_map import Text
    from analyses.kv_attribution.figures import figures, verdict
    from mechint.stats.bands import Marks

    caption = f"{run.short_name(record)}; {injected.Dose.of(record['dose']).caption()}"
    text = Text.of(record["text"])
    return figures(table, text, caption, Marks(config.uncorrected)), {"verdict": run.as_json(verdict(table, text))}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"uncorrected"}))
main = ANALYSIS.main
