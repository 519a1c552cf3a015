"""What short trainings on a real model were made from, their receipts, and their losses at both ends, as a table.

python -m mechint.finetune benchmarks/short/*.json --model smollm2 --seeds 0:2 --out RUNS --no-watch
python -m analyses.finetuning --runs RUNS --parts detection --out figures/smollm2
python -m benchmarks.short_chain --runs RUNS
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import mechint as mi
from mechint.base.files import read_json, sha256, write_atomically
from mechint.finetune.run import VERIFIED
from mechint.prompts.fields import as_object

TABLE = Path(__file__).parents[1] / "figures" / "smollm2" / "finetuning" / "runs.csv"


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
        "adapter": sha256((run.adapter() / "adapter_model.safetensors").read_bytes()),
        "receipt": as_object(read_json(run.path / VERIFIED), VERIFIED)["difference"],
        **{
            f"{name}_{end}": float(part[name].mean())
            for end, part in ends.items()
            for name in ("loss", "right", "mass")
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table of all runs that are finished."""
    import pandas as pd

    command = argparse.ArgumentParser(prog="python -m benchmarks.short_chain", description=__doc__)
    command.add_argument("--runs", type=Path, required=True)
    command.add_argument("--out", type=Path, default=TABLE)
    options = command.parse_args(argv)
    begun = [mi.finetune.Run(path.parent) for path in sorted(options.runs.rglob("run.json"))]
    runs = [run for run in begun if run.is_finished]
    if not runs:
        command.error(f"no finished run in {options.runs}: train first, as above")
    records = pd.DataFrame([record_of(run) for run in runs])
    write_atomically(options.out, records.to_csv(index=False, float_format="%.4g"))
    sys.stdout.write(records.drop(columns=["recipe_hash", "data", "identity", "adapter"]).to_string(index=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
