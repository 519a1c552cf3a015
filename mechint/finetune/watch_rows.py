"""What a training was watched with, a row for each of its fixed steps, and the step at which it has come to a skill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mechint.base.artefacts import FileKind, reading, shown_path
from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.base.signatures import checked
from mechint.finetune.run import WATCHED

LOW_MASS = 0.1  # of both answers, below which their log odds say little
_KIND = FileKind("what a training was watched with", "lines as `WatchRow.to_dict` has them", "watch its steps again")


@dataclass(frozen=True, kw_only=True)
class WatchRow:
    """One checkpoint, read on texts, wordings and vectors that are never trained; each of `texts` clean and steered.

    `examples` is how many it was trained on. The score of a trial is its log odds: the logit of the answer that
    means the positive label minus that of the other. `auc`: steered against clean, whatever the recipe trains, with
    its 95% interval over vectors and texts, `auc_low` to `auc_high` (None in rows that have been written without);
    `task_auc`: by the label of the recipe, before noise (None where all labels are the same). `d_prime`, `criterion`,
    `hits` and `false_alarms` are those of calling a trial positive at log odds above 0, the first two with the
    log-linear correction. Masses are mean probabilities of both answers together, `says_it` the share of trials whose
    likeliest token is one of the two. `kl` is in nats per token of the base's own neutral text; `probe_*` are mean log
    odds of yes in control questions, and their shift from the base's. What needs a base is None without one.
    `vectors_of` names the recipe whose vectors are added.
    """

    recipe: str
    recipe_hash: str
    seed: int
    step: int
    examples: int
    vectors_of: str
    texts: int
    auc: float
    task_auc: float | None
    d_prime: float
    criterion: float
    hits: float
    false_alarms: float
    log_odds_steered: float
    log_odds_clean: float
    mass_steered: float
    mass_clean: float
    says_it_steered: float
    says_it_clean: float
    kl: float | None
    kl_tokens: int
    probe_log_odds: float
    probe_shift: float | None
    probe_mass: float
    probe_questions: int
    auc_low: float | None = None
    auc_high: float | None = None

    @property
    def probe_is_low(self) -> bool:
        """Whether control questions are hardly answered with yes or no: their log odds compare what is unsaid."""
        return self.probe_mass < LOW_MASS

    def to_dict(self) -> dict[str, JSON]:
        """Return the row as JSON."""
        return asdict(self)


def read_watch(folder: str | Path) -> list[WatchRow]:
    """Return the rows that the training in a folder has left, by step; of several of a step the last.

    Raises UsageError where there are none, or a line is no such row.
    """
    path = Path(folder) / WATCHED
    if not path.is_file():
        raise UsageError(
            given=f"{shown_path(path)}, which is not there",
            allowed="the folder of a run that was watched",
            advice="watch(run.model(base, step), run.recipe, base=base, step=step) makes a row",
        )
    with reading(path, _KIND):
        rows = [WatchRow(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for _, row in sorted({row.step: row for row in rows}.items())]


@checked
def first_at(rows: Sequence[WatchRow], area: float) -> WatchRow | None:
    """Return the row of the first step whose `auc` is `area` or more; None where there is none so far.

    For comparing runs at matched skill. The area is to be fixed before anything is trained: a step that is chosen by
    what comes out of it is another training for each recipe. Raises UsageError for an area that is no skill.
    """
    if not 0.5 < area <= 1:
        raise UsageError(f"matched skill at an area of {area}", "above 0.5, to 1", "give 0.9, say")
    return next((row for row in sorted(rows, key=lambda row: row.step) if row.auc >= area), None)
