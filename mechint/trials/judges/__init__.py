"""Judges: whoever reads a prompt and a reply and says what is in it.

`rules` reads patterns from a file and needs nothing else; `rules+loss` has a model say besides what can be read;
`local` takes the yes/no logits of any model that `mi.load` opens; `openai` speaks to a server; `inspect` runs an
Inspect scorer. None is told what was done to the model.
"""

from __future__ import annotations

from mechint.base.errors import UnknownNameError
from mechint.trials.verdicts import Judge


def open_judge(name: str) -> Judge:
    """Return a judge by name; raises UnknownNameError.

    "rules", "rules+loss:MODEL", "local:MODEL", "openai:URL" or "openai:URL#MODEL".
    """
    kind, _, rest = name.partition(":")
    if name == "rules":
        from mechint.trials.judges.rules import RulesJudge

        return RulesJudge()
    if kind == "rules+loss" and rest:
        from mechint.trials.judges.loss import LossJudge

        return LossJudge.load(rest)
    if kind == "local" and rest:
        from mechint.trials.judges.local import LocalJudge

        return LocalJudge.load(rest)
    if kind == "openai" and rest:
        from mechint.trials.judges.openai import OpenAIJudge

        url, _, model = rest.partition("#")
        return OpenAIJudge.at(url, model or None)
    raise UnknownNameError(f"judge {name!r}", "rules, rules+loss:MODEL, local:MODEL, openai:URL", "choose one of these")
