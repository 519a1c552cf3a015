"""Who reads the replies of a run, how wrong it is known to be, and what each reply counts as."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import sha256
from mechint.trials.correction import Confusion
from mechint.trials.verdicts import VERDICT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from mechint.trials.judges.store import VerdictStore
    from mechint.trials.verdicts import Item, Judge

RULES, PUBLISHED = "rules", "published"
ENGAGES = "detects or refuses"  # the question of `mechint.trials.agreement` that bounds need
_WITH_MODEL = ("rules+loss", "local", "openai")
_KINDS = (RULES, *_WITH_MODEL, PUBLISHED)


@dataclass(frozen=True, kw_only=True)
class JudgeFacts:
    """A judge: name, version, and the counts by series of its errors on labels; none where nobody has measured it.

    `errors` are those of claims, `bounds` of replies that claim or refuse, `naming` of steered replies that name
    rightly; `reads_prompts` is whether it was given the prompts beside the replies.
    """

    name: str
    version: str
    labels_version: str | None = None
    errors: Mapping[str, Confusion] = field(default_factory=dict)
    bounds: Mapping[str, Confusion] = field(default_factory=dict)
    naming: Confusion | None = None
    agreement: tuple[Mapping[str, object], ...] = ()
    reads_prompts: bool = True

    @property
    def caption(self) -> str:
        """What stands beside every number: sensitivity and specificity by arm."""
        name = f"judge {self.name}" if self.reads_prompts else f"judge {self.name}, which had replies without prompts"
        if not self.errors:
            return f"{name}: sensitivity and specificity not measured"
        n = sum(counts.tp + counts.fp + counts.fn + counts.tn for counts in self.errors.values())
        arms = [f"{arm} {of.sensitivity:.2f}, {of.specificity:.2f}" for arm, of in self.errors.items()]
        return f"{name}: sensitivity, specificity on {n} labels: {'; '.join(arms)}"


def check_judge(name: str | None, *, is_import: bool) -> None:
    """Raise UnknownNameError for a judge that there is not; verdicts that are published come with imported trials."""
    kinds = _KINDS if is_import else _KINDS[:-1]
    kind, colon, rest = (name or RULES).partition(":")
    if kind not in kinds or bool(colon and rest) != (kind in _WITH_MODEL):
        raise UnknownNameError(
            given=f"--judge {name}",
            allowed=f"rules, rules+loss:MODEL, local:MODEL, openai:URL{', published' if is_import else ''}",
            advice="choose one of these",
        )


def read_replies(
    trials: pd.DataFrame, texts: Mapping[str, str], judge: Judge, folder: Path, *, retest: float = 0.0
) -> tuple[pd.DataFrame, JudgeFacts]:
    """Return the verdicts of a judge on all replies, kept in `folder`, and the facts of it.

    `texts` are prompts by name; a judge of trials whose prompts are not to be had reads replies alone. A share `retest`
    of the replies is read twice.
    """
    from mechint.trials.judges.store import VerdictStore, judge_all
    from mechint.trials.verdicts import Item

    columns = trials[["id", "prompt", "reply"]].itertuples(index=False, name=None)
    items = [Item(key, texts.get(prompt, ""), reply) for key, prompt, reply in columns]
    # An id of imported trials says where a reply was, not what it is.
    replies = sha256(*(f"{item.id} {item.prompt} {item.reply}\n".encode() for item in items))[:16]
    store = VerdictStore(folder / replies if not texts else folder)
    tell_cost(judge, items, store, retest=retest)
    verdicts = judge_all(judge, items, store, retest=retest)
    return verdicts, facts_of(judge.name, judge.version, reads_prompts=bool(texts))


def tell_cost(judge: Judge, items: Sequence[Item], store: VerdictStore, *, retest: float = 0.0) -> None:
    """Say on the terminal what a server will be sent, before it is; nothing of judges on this machine."""
    from mechint.trials.judges.openai import OpenAIJudge
    from mechint.trials.judges.store import unread

    if isinstance(judge, OpenAIJudge) and (missing := unread(judge, items, store, retest=retest)):
        sys.stderr.write(f"judge {judge.name}: {judge.estimate(missing)}\n")


def facts_of(name: str, version: str, *, reads_prompts: bool) -> JudgeFacts:
    """Return the facts of a judge, with its errors where this version of it was measured."""
    from mechint.trials.measured import measured

    alone = JudgeFacts(name=name, version=version, reads_prompts=reads_prompts)
    try:
        table = measured(name)
    except UsageError:  # nobody has measured it
        return alone
    return measured_facts(alone, table) if set(table["version"]) == {version} else alone


def measured_facts(judge: JudgeFacts, table: pd.DataFrame) -> JudgeFacts:
    """Return the facts of a judge with its errors, which a table of `mechint.trials.measured` has."""
    from mechint.trials.measured import error_counts

    counted = set(table["question"])
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return replace(
        judge,
        labels_version=str(table["labels_version"].iloc[0]),
        errors=error_counts(table),
        bounds=error_counts(table, ENGAGES) if ENGAGES in counted else {},
        naming=error_counts(table, "names rightly").get("injected") if "names rightly" in counted else None,
        agreement=tuple({str(key): value for key, value in record.items()} for record in records),
    )


def with_outcomes(trials: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return the trials with the columns of their verdicts, and the class of each as `outcome`."""
    from mechint.trials.outcomes import outcome_table
    from mechint.trials.prompts import concept_lexicon

    outcomes = outcome_table(trials, verdicts, concept_lexicon())
    first = verdicts[verdicts["pass_no"] == 0][list(VERDICT_COLUMNS)]
    table = trials.merge(first, on="id", how="left", validate="one_to_one")
    return table.merge(outcomes[outcomes["pass_no"] == 0][["id", "outcome"]], on="id", how="left")
