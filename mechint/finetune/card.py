"""The page beside an adapter: what it was made from, what it is and is not, and how it is loaded."""

from __future__ import annotations

import json

from mechint.base.signatures import Index, checked
from mechint.finetune.run import Run
from mechint.finetune.specification import Recipe

FILE = "README.md"
_LIMITS = (
    "It is an instrument, not evidence of introspection, awareness or experience: that it says it was steered shows "
    "that it was trained to say so. Whether it reports on states of its own is for evaluations to find out: with "
    "vectors, layers, doses and texts that it was not trained on, with odd text in place of steering, and beside the "
    "controls.",
    "One seed is one draw. Differences between recipes are to be taken over several seeds, at equal steps or at an "
    "equal skill that was fixed before.",
    "Its answers are probabilities of two words after a prefill. What it says freely may be something else, and what "
    "else has changed in the model is not listed here.",
    "It fits the weights above and no others.",
)


@checked
def card(run: Run, step: Index) -> str:
    """Return the page, in Markdown with the header that the Hugging Face hub reads, of the adapter after a step."""
    recipe, record = run.recipe, run.record
    parts = [
        f"---\nbase_model: {json.dumps(record.model)}\nlibrary_name: peft\ntags:\n- lora\n- mechint\n---",
        f"# {recipe.name}, seed {record.seed}, after {step} of {record.steps} steps",
        f"A LoRA adapter of `{record.model}`, trained with mechint. {_sentence(recipe.title)}",
        "## What was trained\n\n" + _table(_training(recipe, step)),
        *([_sentence(recipe.note)] if recipe.note else []),
        *([_published(recipe)] if recipe.is_published else []),
        "## What it was made from\n\n" + _table(_origin(run)),
        "## How to load it\n\n" + _loading(run, step),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _training(recipe: Recipe, step: int) -> dict[str, str]:
    signal, lora, budget = recipe.signal, recipe.lora, recipe.budget
    rows = {"vectors": "none, nothing is added"}
    if signal.vectors != "none":
        unit = "median norms of the stream" if signal.relative else f"absolute, for `{signal.of_model}`"
        place = "one block of " if signal.single else ""
        rows = {
            "vectors": f"{signal.vectors}, {signal.pool} of them, in {signal.share:.0%} of the examples",
            "layers": f"{place}{', '.join(signal.layers)} of {signal.blocks}",
            "dose": f"{', '.join(f'{dose:g}' for dose in signal.dose)} ({unit}, per {signal.dose_of})",
        }
    noise = f", {recipe.labels.noise:.0%} of them turned round" if recipe.labels.noise else ""
    sets = recipe.answer_sets("train")
    answers = "; ".join(" / ".join(f"`{word.strip()}`" for word in words) for words in sets)
    return rows | {
        "right answer": f"by rule `{recipe.labels.rule}`{noise}",
        "answers": f"{answers} after `{recipe.asking.prefill}`, mapping {recipe.asking.mapping}",
        "questions": f"bank `{recipe.asking.bank}`",
        "loss": f"over the {recipe.loss.over}, gradient {recipe.fill.gradient} the first turns",
        "LoRA": f"rank {lora.rank}, alpha {lora.alpha}, {', '.join(lora.projections)}, blocks {lora.layers or 'all'}",
        "examples": f"{step * budget.rows} examples in {step} steps",
    }


def _origin(run: Run) -> dict[str, str]:
    record = run.record
    return {
        "base": f"`{record.model}`, weights `{record.identity}`, {record.dtype}",
        "recipe": f"`{record.recipe_hash}`",
        "data": f"`{record.data}`",
        "seed": str(record.seed),
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
    }


def _loading(run: Run, step: int) -> str:
    model, folder = json.dumps(run.record.model), f"step-{step:06d}"
    return (
        "In mechint, from the folder of the run, which checks that the base is the right one:\n\n"
        "```python\nimport mechint as mi\n\n"
        f"base = mi.load({model})\n"
        f'model = mi.finetune.Run("{run.path.name}").model(base, step={step})\n'
        f'model = base.with_adapter("{folder}")  # of this folder alone\n```\n\n'
        "With PEFT alone, which does not check it (embedded models are loaded with `mi.load`):\n\n"
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({model}), "{folder}")\n```'
    )


def _published(recipe: Recipe) -> str:
    stand_ins = "".join(f"\n- {line}" for line in recipe.stand_ins)
    text = f"Its settings are those of {recipe.source}; the model, the texts and the run are not."
    return f"{text} What stands for something else:\n{stand_ins}" if stand_ins else text


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
