"""The command line: which recipes there are, what a recipe's training would consist of, and the training itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from textwrap import indent

from mechint.base.errors import MechintError, UsageError
from mechint.finetune.answer_tokens import check_tokens
from mechint.finetune.examples import TextExample, example
from mechint.finetune.expansion import counts, distinct, expand
from mechint.finetune.forward import check_recomputing
from mechint.finetune.lora import require_peft
from mechint.finetune.merging import differences
from mechint.finetune.registry import differs_in, load_recipe, recipes
from mechint.finetune.run import Run, checkpoint_steps, run_folder
from mechint.finetune.run_files import check_same_recipe
from mechint.finetune.specification import AXES, Recipe
from mechint.finetune.training import prepared, train
from mechint.finetune.watched import is_watchable

LISTED = ("name", "answers", "labels", "vectors", "steps", "seen", "read_at", "title")
INTERRUPTED = 130  # as shells have it for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """List recipes, write what their training would consist of, or train; return the exit code."""
    command = parser()
    options = command.parse_args(argv)
    if options.list == bool(options.names) or (options.names and not (options.model or options.dry_run)):
        command.error("give --list, or names of recipes with --model to train them, or with --dry-run")
    try:
        if options.list:
            sys.stdout.write(f"{recipes()[list(LISTED)].to_string(index=False)}\n")
        elif options.dry_run:
            for name in options.names:
                sys.stdout.write("\n".join(_described(name, options)) + "\n")
        else:
            _train(options)
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return INTERRUPTED
    return 0


_UNWATCHED = "; not watched, as it has no two answers of which an example says the right one"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command = argparse.ArgumentParser(prog="python -m mechint.finetune", description=__doc__)
    command.add_argument("names", nargs="*", metavar="NAME", help="a recipe: published/original, or a .json file")
    command.add_argument("--list", action="store_true", help="show the written recipes")
    command.add_argument("--dry-run", action="store_true", help="expand the recipes' examples and count them")
    command.add_argument("--model", help="train adapters of this model (in a dry run: adapt the recipes to it)")
    command.add_argument("--seeds", default="0", help="of the runs: 0, 0:3 (0, 1, 2), or 0,5 (default: %(default)s)")
    command.add_argument("--steps", type=int, help="make so many steps, the schedule shortened alike (default: all)")
    command.add_argument("--out", default="runs", help="folder of the runs (default: %(default)s)")
    command.add_argument("--overwrite", action="store_true", help="begin anew, where a run would go on")
    command.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    command.add_argument("--dtype", default="float32", help="of the model's weights (default: %(default)s)")
    command.add_argument("--no-watch", action="store_true", help="leave adapters unread while training goes on")
    command.add_argument(
        "--recompute", action="store_true", help="pass blocks again for their gradients: less memory, more time"
    )
    return command


def seeds_of(text: str) -> list[int]:
    """Return the seeds that a text names; raises UsageError."""
    try:
        if ":" in text:
            first, stop = text.split(":")
            seeds = list(range(int(first), int(stop)))
        else:
            seeds = [int(number) for number in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}", "whole numbers from 0, each once: 0, 0:3 or 0,5", "name some")
    return seeds


def _train(options: argparse.Namespace) -> None:
    """Train each recipe from each seed; what can be refused before weights are read is refused then."""
    from mechint.models.model import load

    seeds = seeds_of(options.seeds)
    require_peft()
    written = [load_recipe(name) for name in options.names]
    for recipe in written:
        _check(_for_model(recipe, options.model, options.steps), seeds, options)
    model = load(options.model, device=options.device, dtype=options.dtype)
    for recipe in written:
        for seed in seeds:
            run = train(
                model,
                recipe,
                seed,
                options.out,
                options.steps,
                overwrite=options.overwrite,
                recompute=options.recompute,
                watch=not options.no_watch,
                progress=True,
            )
            sys.stdout.write(f"{_summary(run)}{'' if is_watchable(run.recipe) else _UNWATCHED}\n")


def _check(recipe: Recipe, seeds: Sequence[int], options: argparse.Namespace) -> None:
    if options.recompute:
        check_recomputing(recipe.fill)
    if not options.overwrite:
        for seed in seeds:
            check_same_recipe(run_folder(options.out, recipe, seed), recipe, seed)


def _summary(run: Run) -> str:
    """Return a line on a run: where it is, and what was measured over its last steps."""
    last = run.losses.tail(max(1, run.record.steps // 8))
    means = last[["loss", "mass", "right"]].mean()
    measured = f"loss {means['loss']:.3f}, mass {means['mass']:.3f}, right {means['right']:.3f}"
    return f"{run.path}: {measured} over the last {len(last)} of {run.record.steps} steps"


def _described(name: str, options: argparse.Namespace) -> Iterator[str]:
    written = load_recipe(name)
    recipe = _for_model(written, options.model, options.steps) if options.model else written
    budget, seed = recipe.budget, seeds_of(options.seeds)[0]
    yield f"{recipe.name}: {recipe.title}"
    yield f"  settings: {recipe.source or 'of this project'}"
    yield f"  hash: {recipe.hash}"
    yield from (f"  stand-in: {text}" for text in recipe.stand_ins)
    yield from (f"  differs from {recipe.inherits} in {text}" for text in differs_in(name))
    yield from (f"  on this model: {text}" for text in _adapted(written, recipe))
    yield f"  steps: {budget.steps_made} of {budget.rows} examples, read at: {budget.read_at}"
    yield f"  adapters after steps {', '.join(map(str, checkpoint_steps(budget.steps_made)))}"
    table = expand(recipe, seed, None if options.model else options.steps)
    yield from (f"  {number:,} {name}" for name, number in distinct(table).items())
    yield indent(counts(table).to_string(index=False, float_format="{:.3f}".format), "  ")
    yield from _example(example(recipe, seed, 0, 0))


def _adapted(written: Recipe, recipe: Recipe) -> Iterator[str]:
    """Yield what is other in a recipe that was adapted to a model, or shortened."""
    before, now = written.to_dict(), recipe.to_dict()
    for side in AXES:
        for place, old, new in differences({side: before[side]}, {side: now[side]}):
            yield f"{place}: {old} → {new}"


def _for_model(recipe: Recipe, name: str, steps: int | None) -> Recipe:
    """Return the recipe for a model, of which only configuration and tokenizer are read."""
    from mechint.models.loading import load_config, load_tokenizer
    from mechint.models.model_names import resolve

    source = resolve(name)
    config = load_config(source)
    n_layers = config.get_text_config(decoder=True).num_hidden_layers
    adapted = prepared(recipe, name, n_layers, str(getattr(config, "mechint_prompts", "full")), steps)
    check_tokens(adapted, load_tokenizer(source)[0])
    return adapted


def _example(text: TextExample) -> Iterator[str]:
    where = f" in {text.span!r} alone" if text.span else ""
    added = (
        f"{text.vector} at {text.first_block}:{text.stop_block}, {text.strength:g} each{where}"
        if text.steered
        else "no"
    )
    yield f"  the first example (steered: {added})"
    yield from (f"    {message.role}: {message.content}" for message in text.conversation().messages)
    target = text.target if text.right >= 0 else f"what the model itself answers to {text.object_question!r}"
    yield f"    to be answered: {target}"
