"""How well short trainings on a real model tell steered examples from clean ones, trained and held out, by dose.

    python -m mechint.finetune benchmarks/short/*.json --model smollm2 --seeds 0:2 --out RUNS --no-watch
    python -m benchmarks.short_chain --runs RUNS

Examples pass as in training, side by side, which is three times as fast as reading them one by one; the receipt of each
run says that both have the same logits. Recipes without vectors are asked about those of the reference. Rows of a run
whose adapter has not changed are kept as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import mechint as mi
from mechint.base.files import read_json, sha256, write_atomically
from mechint.finetune.answer_batch import AnswerBatch, Prompts
from mechint.finetune.examples import TextExample
from mechint.finetune.forward import answer_logits
from mechint.finetune.injections import concept_vectors
from mechint.finetune.lora import Trainee, with_adapter, with_lora
from mechint.finetune.losses import answer_mass
from mechint.finetune.run import VERIFIED
from mechint.prompts.fields import as_object
from mechint.stats.detected import Trials
from mechint.stats.jackknife import NO_UNIT

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = Path(__file__).parent / "short" / "original.json"
TABLE = Path(__file__).parents[1] / "figures" / "smollm2" / "finetuning" / "chain.csv"
HELD_OUT = ((), ("vectors",), ("vectors", "openers", "replies", "wordings"))
EXAMPLES = 64  # of each set, half of them steered


def rows_of(model: mi.Model, run: mi.finetune.Run) -> Iterator[dict[str, object]]:
    """Yield a row for base and final adapter, each set of held-out factors, and all doses or one."""
    recipe = with_vectors(model, run.recipe)
    concepts = {**concept_vectors(model, recipe), **concept_vectors(model, recipe, "held_out")}
    prompts = Prompts(model, recipe, concepts)
    trainees = {"base": with_lora(model, recipe.lora, run.seed), "final": with_adapter(model, run.adapter())}
    for held_out in HELD_OUT:
        rows = recipe.budget.rows
        examples = [mi.finetune.example(recipe, run.seed, at // rows, at % rows, held_out) for at in range(EXAMPLES)]
        for name, trainee in trainees.items():
            place = {"recipe": run.recipe.name, "seed": run.seed, "adapter": name, "held_out": " ".join(held_out)}
            yield from ({**place, **row} for row in areas(examples, *scores(trainee, prompts, examples)))


def measured(model: mi.Model, run: mi.finetune.Run) -> pd.DataFrame:
    """Return the rows of a run as a table."""
    import pandas as pd

    return pd.DataFrame(list(rows_of(model, run)))


def with_vectors(model: mi.Model, recipe: mi.finetune.Recipe) -> mi.finetune.Recipe:
    """Return the recipe with vectors, those of the reference where it has none."""
    if recipe.signal.vectors != "none":
        return recipe
    reference = mi.finetune.Recipe.load(REFERENCE).for_model(model.name, model.n_layers, model.prompts)
    return replace(recipe, signal=reference.signal)


@torch.no_grad()
def scores(trainee: Trainee, prompts: Prompts, examples: Sequence[TextExample]) -> tuple[np.ndarray, np.ndarray]:
    """Return the log odds of the positive answer in each example, and the mass of both answers."""
    odds, mass = [], []
    for start in range(0, len(examples), 16):
        batch = AnswerBatch.of(prompts.model, prompts.of(examples[start : start + 16]), split=True)
        with answer_logits(trainee, batch, replace(prompts.recipe.fill, gradient="stopped")) as logits:
            pair = logits.gather(1, batch.answers)
            odds.append(pair[:, 0] - pair[:, 1])
            mass.append(answer_mass(logits, batch.answers))
    return torch.cat(odds).double().numpy(), torch.cat(mass).double().numpy()


def areas(examples: Sequence[TextExample], odds: np.ndarray, mass: np.ndarray) -> Iterator[dict[str, object]]:
    """Yield areas with intervals over vectors and texts, for all doses and for each against all clean examples."""
    steered = np.array([example.steered for example in examples])
    dose = np.array([example.dose for example in examples])
    vectors = np.array([example.vector if example.steered else NO_UNIT for example in examples])
    texts = np.array(["\n".join(example.prompt) for example in examples])
    for only in (None, *sorted(set(dose[steered]))):
        kept = ~steered | (steered if only is None else dose == only)
        area = Trials(odds[kept], steered[kept], vectors[kept], texts[kept]).area()
        yield {
            "dose": np.nan if only is None else only,
            "steered": int((kept & steered).sum()),
            "clean": int((kept & ~steered).sum()),
            "auc": float(area.mean),
            "low": float(area.low),
            "high": float(area.high),
            "hits": float((odds[kept & steered] > 0).mean()),
            "false_alarms": float((odds[~steered] > 0).mean()),
            "mass": float(mass[kept].mean()),
        }


def adapter_hash(run: mi.finetune.Run) -> str:
    """Return a hash of the final adapter's weights."""
    return sha256((run.adapter() / "adapter_model.safetensors").read_bytes())


def kept_rows(table: Path, runs: Sequence[mi.finetune.Run]) -> dict[str, pd.DataFrame]:
    """Return the rows that were measured before on adapters that are still the same, by the hash of these."""
    import pandas as pd

    records = table.with_name("runs.csv")
    if not (table.is_file() and records.is_file()):
        return {}
    rows, before = pd.read_csv(table, keep_default_na=False, na_values=[""]), pd.read_csv(records)
    rows["held_out"] = rows["held_out"].fillna("")
    hashes = {(row.recipe, row.seed): getattr(row, "adapter", "") for row in before.itertuples()}
    kept = {}
    for run in runs:
        if hashes.get((run.recipe.name, run.seed)) == (adapter := adapter_hash(run)):
            kept[adapter] = rows[(rows["recipe"] == run.recipe.name) & (rows["seed"] == run.seed)]
    return kept


def record_of(run: mi.finetune.Run) -> dict[str, object]:
    """Return what a run was made from, its receipt, and what was measured over its first and last eighth."""
    losses, record = run.losses, run.record
    eighth = max(1, record.steps // 8)
    ends = {"first": losses.head(eighth), "last": losses.tail(eighth)}
    return {
        "recipe": run.recipe.name,
        "seed": run.seed,
        "steps": record.steps,
        "examples": record.steps * run.recipe.budget.rows,
        "dtype": record.dtype,
        "recipe_hash": record.recipe_hash,
        "data": record.data,
        "identity": record.identity,
        "adapter": adapter_hash(run),
        "receipt": as_object(read_json(run.path / VERIFIED), VERIFIED)["difference"],
        **{
            f"{name}_{end}": float(part[name].mean())
            for end, part in ends.items()
            for name in ("loss", "right", "mass")
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables of all runs that are finished."""
    import pandas as pd

    command = argparse.ArgumentParser(prog="python -m benchmarks.short_chain", description=__doc__)
    command.add_argument("--runs", type=Path, required=True)
    command.add_argument("--out", type=Path, default=TABLE)
    options = command.parse_args(argv)
    begun = [mi.finetune.Run(path.parent) for path in sorted(options.runs.rglob("run.json"))]
    runs = [run for run in begun if run.is_finished]
    if not runs:
        command.error(f"no finished run in {options.runs}: train first, as above")
    if len(dtypes := {run.record.dtype for run in runs}) > 1:
        command.error(f"runs in {' and '.join(sorted(dtypes))}: give a folder of runs of one dtype")
    kept = kept_rows(options.out, runs)
    model = mi.load("smollm2", dtype=runs[0].record.dtype)
    parts = [part if (part := kept.get(adapter_hash(run))) is not None else measured(model, run) for run in runs]
    table: pd.DataFrame = pd.concat(parts, ignore_index=True)
    records = pd.DataFrame([record_of(run) for run in runs])
    write_atomically(options.out, table.to_csv(index=False, float_format="%.4f"))
    write_atomically(options.out.with_name("runs.csv"), records.to_csv(index=False, float_format="%.4f"))
    sys.stdout.write(table[table["dose"].isna()].to_string(index=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
