"""Inspect (inspect.aisi.org.uk): a scorer of it as a judge, and trials as a log that its viewer and scorers open.

An optional dependency of 80 packages: it is imported inside functions, and only here.

    judge = InspectJudge(model_graded_qa(template=..., model="mockllm/model"), "graded", version="1")
    write_log(trials, prompts, Path("trials.eval"))          # inspect view, inspect score
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd

from mechint.base.errors import PrerequisiteError
from mechint.base.files import JSON, replace_atomically, sha256
from mechint.trials.verdicts import Item, Verdict

QUESTION = "Does the writer of the reply say that it notices something unusual within itself?"
# Columns of a trial that say what was done: they go into the log's metadata, which no scorer's template shows.
_TASK, _TEXT = "mechint trials", ("prompt", "prompt_hash", "reply")


@runtime_checkable
class Score(Protocol):
    """What a scorer gives, as far as it is read."""

    @property
    def value(self) -> object:
        """A grade, a number, or several."""

    @property
    def explanation(self) -> str | None:
        """For people."""


Scorer = Callable[..., Awaitable[Score | None]]  # of a TaskState and a Target


@dataclass(frozen=True)
class InspectJudge:
    """Judges by a scorer of Inspect, which is given prompt and reply; `read` makes a verdict of its score.

    By default a score of "C", or above 0.5, is a claim. `version` must change with whatever the scorer depends on: its
    template, its model.
    """

    scorer: Scorer
    label: str
    scorer_version: str
    target: str = QUESTION
    read: Callable[[Score], Verdict] = field(default_factory=lambda: claim_of)

    @property
    def name(self) -> str:
        """The judge's name: inspect:LABEL."""
        return f"inspect:{self.label}"

    @property
    def version(self) -> str:
        """Hash of what the scorer's author says it is, of the target, and of how scores are read."""
        return sha256(self.scorer_version.encode(), self.target.encode(), inspect.getsource(self.read).encode())[:16]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each reply; raises PrerequisiteError where Inspect is not installed."""
        check_installed()
        return asyncio.run(self._judge(items))

    async def _judge(self, items: Sequence[Item]) -> list[Verdict]:
        from inspect_ai.scorer import Target

        target = Target(self.target)
        scores = [await self.scorer(_state(item), target) for item in items]
        return [Verdict("unclear", error="the scorer gave no score") if s is None else self.read(s) for s in scores]


def claim_of(score: Score) -> Verdict:
    """Return the verdict of a score on whether a reply claims something: "C" or a number above 0.5 is yes."""
    value = score.value
    reason = score.explanation or ""
    if isinstance(value, str) and value in ("C", "I"):
        return Verdict("yes" if value == "C" else "no", reason=reason)
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return Verdict("yes" if value > 0.5 else "no", confidence=float(value), reason=reason)
    return Verdict("unclear", error=f"a score of {value!r}, neither C, I nor a number from 0 to 1")


def write_log(trials: pd.DataFrame, prompts: Mapping[str, str], path: Path) -> Path:
    """Write a table of trials as an Inspect log (`.eval` or `.json`); `prompts` are their texts by hash.

    What was done to the model is in the metadata of each sample. Raises PrerequisiteError.
    """
    check_installed()
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, write_eval_log

    samples = [_sample(row, prompts[str(row["prompt_hash"])]) for _, row in trials.iterrows()]
    spec = EvalSpec(
        created="1970-01-01T00:00:00+00:00",
        task=_TASK,
        dataset=EvalDataset(name=_TASK, samples=len(samples), sample_ids=trials["id"].tolist()),
        model="none/none",  # what has spoken is no provider of Inspect's; metadata says who it was
        config=EvalConfig(),
    )
    log = EvalLog(status="success", eval=spec, samples=samples)
    return replace_atomically(path, lambda temporary: write_eval_log(log, str(temporary)))


def check_installed() -> None:
    """Raise PrerequisiteError unless Inspect can be imported."""
    try:
        import inspect_ai.scorer  # noqa: F401
    except ImportError as error:
        raise PrerequisiteError(
            given="Inspect (inspect_ai) is not installed",
            allowed="mechint with the extra `inspect`",
            advice="pip install 'mechint[inspect]'",
        ) from error


def _state(item: Item) -> object:
    """Return what a scorer is given; the sample's id is a hash, so that it tells nothing."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelName, ModelOutput
    from inspect_ai.solver import TaskState

    messages = [ChatMessageUser(content=item.prompt), ChatMessageAssistant(content=item.reply)]
    output = ModelOutput.from_content("mechint", item.reply)
    name = sha256(item.prompt.encode(), item.reply.encode())[:16]
    return TaskState(ModelName("mechint/trials"), name, 1, item.prompt, messages, output=output)


def _sample(row: pd.Series, prompt: str) -> object:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput

    reply = str(row["reply"])
    metadata: dict[str, JSON] = {
        str(name): None if pd.isna(value) else value.item() if hasattr(value, "item") else value
        for name, value in row.items()
        if name not in (*_TEXT, "id")
    }
    return EvalSample(
        id=str(row["id"]),
        epoch=1,
        input=prompt,
        target=QUESTION,
        messages=[ChatMessageUser(content=prompt), ChatMessageAssistant(content=reply)],
        output=ModelOutput.from_content(str(row["model"]), reply),
        metadata=metadata,
    )
