"""Free talk: several seeded replies to each prompt, with measures that need nobody's judgement.

    table = mi.evals.talk(run.model(base), samples=5)
    mi.evals.talk_rates(table)                     # what it answers, how much it speaks of itself, loops, length
    mi.evals.judged(table, open_judge("rules"))    # and what a judge reads
    mi.evals.blinded({"base": first, "tuned": table}, "for-coders", seed=0)   # and what people read who cannot know

One reply is one draw; who has seen which model it is of reads it so. Here replies are several, and coders get them in a
file that does not say.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mechint.base.files import JSON
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.conversations import Conversation, Message
from mechint.chat.tokens import Answers
from mechint.engine.replies import ReplyRequest
from mechint.engine.shards import Shard
from mechint.evals.reply_measures import foreign_letters, repeated_trigrams, word_share
from mechint.evals.responders import Responder, Running
from mechint.evals.spoken import spoken
from mechint.evals.talk_texts import TalkTexts
from mechint.interventions.specifications import CLEAN
from mechint.stats.intervals import PROBABILITY, Interval, mean_interval
from mechint.trials.judges.texts import words
from mechint.trials.verdicts import Item, Judge, verdict_table

LOOPING = 0.35  # share of repeated trigrams from which a reply counts as a loop, as for the rules judge
_ENOUGH = 10  # words, below which repetition says little
_ANSWERED = 0.5  # of the first token's probability on yes or no, below which a reply begins with neither
MEASURES = ("yes", "no", "self_words", "model_words", "loop", "foreign", "n_words", "cut_off")
_SHARES = ("yes", "no", "loop", "foreign", "cut_off", "self_words", "model_words")


@checked
def talk(
    model: Responder,
    texts: TalkTexts | None = None,
    *,
    samples: Count = 5,
    temperature: float = 0.8,
    max_new_tokens: Count = 60,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each prompt and sample: `prompt`, `sample`, `question` and `reply`, with measures of it.

    `answer` is "yes" or "no" where that has more than half of the first token's probability (four spellings each), else
    "neither"; `log_odds` and `mass` of both. `self_words` and `model_words` are shares of the reply's words; `repeated`
    the share of its trigrams that repeat others, `loop` whether it ended in a loop or that is above 0.35 of ten words
    or more; `foreign` the share of letters of another script than most; `n_words`, `n_tokens`, and `cut_off`, whether
    it was stopped at `max_new_tokens`. The other arguments are those of `mi.generate`; `batch_tokens` has no part here.
    Raises TokenizationError where yes or no are several tokens, and what `mi.generate` raises.
    """
    chosen = TalkTexts.load(model.prompts) if texts is None else texts
    requests = [
        ReplyRequest(
            Conversation(name, (Message("user", text),), extra=_tags(name)),
            CLEAN,
            samples,
            max_new_tokens,
            temperature,
            seed,
            answers=Answers.variants(),
        )
        for name, text in chosen.prompts.items()
    ]
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    read = spoken(model, requests, running)
    rows = [_row(record, chosen) for record in read.to_dict("records")]
    table = pd.DataFrame(rows)
    table.attrs["receipts"] = read.attrs["receipts"]
    return table


def _tags(name: str) -> dict[str, JSON]:
    return {"kind": "talk", "group": name}


def _row(record: dict[str, object], texts: TalkTexts) -> dict[str, object]:
    name, reply = str(record["conversation"]), str(record["text"])
    yes, no = float(str(record["first_p_yes"])), float(str(record["first_p_no"]))
    listed = words(reply)
    repeated = repeated_trigrams(listed)
    return {
        "prompt": name,
        "sample": int(str(record["sample"])),
        "question": texts.prompts[name],
        "reply": reply,
        "answer": "yes" if yes > _ANSWERED else "no" if no > _ANSWERED else "neither",
        "log_odds": record["first_logit_diff"],
        "mass": record["first_yes_no_mass"],
        "self_words": word_share(listed, texts.self_words),
        "model_words": word_share(listed, texts.model_words),
        "repeated": repeated,
        "loop": record["stopped"] == "loop" or (len(listed) >= _ENOUGH and repeated > LOOPING),
        "foreign": foreign_letters(reply),
        "n_words": len(listed),
        "n_tokens": record["n_tokens"],
        "cut_off": record["stopped"] == "length",
    }


@checked
def talk_rates(table: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return one row for each measure of a table of `talk`: its mean over prompts, with an interval over these.

    `measure` is one of `MEASURES`: `yes` and `no` are shares of replies that begin so, `self_words` and `model_words`
    those of words, `loop`, `cut_off` of replies, `foreign` of letters. Samples of a prompt are averaged first. Columns
    `value`, `low`, `high`, `n_prompts`, `n_samples` (of the prompt with fewest).
    """
    prompts = table.assign(yes=table["answer"] == "yes", no=table["answer"] == "no").groupby("prompt", sort=False)
    rows = []
    for measure in MEASURES:
        means = prompts[measure].mean().to_numpy(dtype=float)
        interval: Interval = mean_interval(means, level=level, within=PROBABILITY if measure in _SHARES else None)
        ends = {"value": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
        rows.append({"measure": measure, **ends, "n_prompts": len(means), "n_samples": int(prompts.size().min())})
    return pd.DataFrame(rows)


@checked
def judged(table: pd.DataFrame, judge: Judge) -> pd.DataFrame:
    """Return the table of `talk` with a judge's verdicts: the columns of `verdict_table` but `id`, a row each.

    A judge is whatever has `name`, `version` and `judge(items)`, such as those of `mechint.trials.judges`; it is given
    prompt and reply alone. Raises UsageError where a verdict is missing.
    """
    items = [
        Item(f"{row['prompt']}-{row['sample']}", str(row["question"]), str(row["reply"]))
        for row in table.to_dict("records")
    ]
    verdicts = verdict_table(judge, items, judge.judge(items)).drop(columns="id")
    return pd.concat([table.reset_index(drop=True), verdicts], axis=1)
