"""Training an adapter by a recipe: `train` makes a run, or goes on with one that was interrupted."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from mechint.base.errors import UsageError
from mechint.base.files import check_writable, remove_file, sha256, write_atomically
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.finetune import run_files
from mechint.finetune.answer_batch import Prompts
from mechint.finetune.examples import step_examples
from mechint.finetune.expansion import expand
from mechint.finetune.forward import check_recomputing
from mechint.finetune.injections import concept_vectors
from mechint.finetune.loop import Loop, Measures
from mechint.finetune.lora import Trainee, check_trainable, with_lora
from mechint.finetune.processes import Processes
from mechint.finetune.recipe_steps import RecipeSteps
from mechint.finetune.run import LOSSES, RECORD, STATE, VERIFIED, WATCHED, Run, RunRecord, checkpoint_steps, run_folder
from mechint.finetune.specification import Recipe
from mechint.finetune.verification import compared
from mechint.finetune.watch import TEXTS, watch_run
from mechint.finetune.watched import is_watchable, watched_examples, watched_recipe
from mechint.models.model import Model
from mechint.models.surroundings import versions
from mechint.models.threads import is_small, using_threads
from mechint.vectors.concept_vectors import ConceptVector

_VERIFIED = 8  # examples whose logits are compared with those of `mi.score`, before training and after it
_STATES = 8, 25  # the state is written so many times in a training at least, and after so many steps at most


@checked
def train(
    model: Model,
    recipe: Recipe | str | Path,
    seed: Seed = 0,
    out: str | Path = "runs",
    steps: Count | None = None,
    *,
    concepts: Mapping[str, ConceptVector] | None = None,
    overwrite: bool = False,
    recompute: bool = False,
    watch: bool = True,
    progress: Progress | bool | None = None,
) -> Run:
    """Train an adapter by a recipe, and return its run, `<out>/<recipe>/seed-<seed>`.

    The recipe is adapted to the model first (`recipe.for_model`). `steps` shortens it, or makes it longer, its schedule
    alike. A run that was interrupted goes on, and ends with the same weights to the bit on a CPU with as many threads;
    one that is finished is only returned. Adapters are left after an eighth, a quarter, half and all of the steps.

    `concepts` are the vectors of the recipe's concepts (extracted by mean difference if they are not given).
    `recompute` passes blocks again for their gradients, which takes less memory and more time. With `watch` each
    adapter is read on texts and vectors that are never trained (`mi.finetune.watch`), a line of `watch.jsonl` each; it
    decides nothing. Recipes of several options, or of the model's own answers, have no area and are not watched.
    `progress` is a bar, or a function that is told of steps and tokens.

    Before the first step, and after the last, the logits of training are compared with those of `mi.score` on the
    adapter that was written (ReceiptError). Raises as well what `recipe.for_model`, `check_tokens` and
    `check_trainable` raise, StaleArtefactError for a folder with a run of another recipe, data, model, seed or number
    of steps, NumericalError for a loss that is no number, and KeyboardInterrupt, once the state is written.
    """
    adapted = prepared(recipe, model.name, model.n_layers, model.prompts, steps)
    training = Training.of(model, adapted, seed, run_folder(out, adapted, seed), concepts, recompute=recompute)
    training.begin(overwrite=overwrite)
    with using_threads(training.record.threads):
        return training.go_on(watch=watch, progress=progress)


def prepared(recipe: Recipe | str | Path, name: str, n_layers: int, prompts: str, steps: int | None) -> Recipe:
    """Return a recipe as it is trained on a model, with the number of steps that is wanted."""
    written = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    adapted = written.for_model(name, n_layers, prompts)
    return adapted if steps is None else replace(adapted, budget=adapted.budget.lasting(steps))


@dataclass(frozen=True)
class Training:
    """A run that is to be trained: its parts, before its first step or in the middle."""

    model: Model
    prompts: Prompts
    folder: Path
    record: RunRecord
    recompute: bool
    processes: Processes

    @classmethod
    def of(
        cls,
        model: Model,
        recipe: Recipe,
        seed: int,
        folder: Path,
        concepts: Mapping[str, ConceptVector] | None,
        *,
        recompute: bool,
    ) -> Training:
        """Return the training of a recipe that is adapted to the model; raises what cannot be trained."""
        check_trainable(model)
        if recompute:
            check_recomputing(recipe.fill)
        processes = Processes.started()
        if recipe.budget.accumulation % processes.count:
            raise UsageError(
                given=f"{processes.count} processes for steps of {recipe.budget.accumulation} batches",
                allowed="as many batches for each process",
                advice="give the recipe a budget whose accumulation is a multiple of the processes",
            )
        prompts = Prompts(model, recipe, concept_vectors(model, recipe) if concepts is None else concepts)
        record = RunRecord(
            recipe=recipe.to_dict(),
            recipe_hash=recipe.hash,
            data=_data(prompts, seed),
            model=model.name,
            identity=model.identity,
            seed=seed,
            steps=recipe.budget.steps_made,
            checkpoints=checkpoint_steps(recipe.budget.steps_made),
            dtype=model.dtype_name,
            threads=1 if is_small(model) else torch.get_num_threads(),
            processes=processes.count,
            versions=versions(),
        )
        return cls(model, prompts, folder, record, recompute, processes)

    @property
    def recipe(self) -> Recipe:
        """The recipe, adapted to the model."""
        return self.prompts.recipe

    def begin(self, *, overwrite: bool) -> None:
        """Write the record of the run, or see that the one that is there is the same. Raises StaleArtefactError."""
        if self.processes.is_first:
            check_writable(self.folder, "out")
            if overwrite:
                run_files.clear(self.folder)
            run_files.check_same_recipe(self.folder, self.recipe, self.record.seed)
            run_files.check_same_run(self.folder, self.record)
            if not (self.folder / RECORD).exists():
                self.record.write(self.folder)
        self.processes.wait()

    def go_on(self, *, watch: bool, progress: Progress | bool | None) -> Run:
        """Make the steps that are left, and return the run."""
        run = Run(self.folder)
        if run.is_finished:
            return run
        is_watched = watch and self.processes.is_first and is_watchable(self.recipe)
        if is_watched:  # whether there are enough texts for it is said now, not after hours
            watched_examples(watched_recipe(self.recipe, self.model), run.seed, TEXTS)
        trainee = with_lora(self.model, self.recipe.lora, self.record.seed)
        if self.processes.is_first:
            self._check_first(trainee)
        steps = RecipeSteps(trainee, self.prompts, self.record.seed, self.recompute, self.processes)
        losses, watched = run_files.Lines(self.folder / LOSSES), run_files.Lines(self.folder / WATCHED)

        def begin(done: int) -> None:
            losses.cut(done)
            watched.cut(done)
            if is_watched and not done:
                watched.add(watch_run(run, self.model, 0))

        def after(step: int, measures: Measures) -> None:
            if not self.processes.is_first:
                return
            losses.add({"step": step, **{name: value for name, value in measures.items() if name != "tokens"}})
            if step in self.record.checkpoints:
                run_files.export(trainee, run, step)
                if is_watched:
                    watched.add(watch_run(run, self.model, step))
            if step == self.record.steps:
                self._check_last(trainee, run)

        self._loop(trainee).run(steps.backward, after, progress, f"{self.recipe.name}, seed {run.seed}", begin)
        if self.processes.is_first:
            remove_file(self.folder / STATE)
        self.processes.wait()
        return run

    def _loop(self, trainee: Trainee) -> Loop:
        times, most = _STATES
        every = max(1, min(most, self.record.steps // times))
        fixed = {name: value for name, value in asdict(self.record).items() if name not in ("threads", "versions")}
        key = sha256(json.dumps(fixed, sort_keys=True).encode())
        return Loop(trainee, self.recipe.budget, self.folder / STATE, key, every, self.processes)

    def _check_first(self, trainee: Trainee) -> None:
        """Raise ReceiptError where training and `mi.score` differ, or what `with_adapter` raises, before hours pass."""
        examples = step_examples(self.recipe, self.record.seed, 0)[:_VERIFIED]
        with tempfile.TemporaryDirectory() as temporary:
            trainee.save(Path(temporary))
            compared(trainee, self.prompts.of(examples), self.model, Path(temporary), self.recipe.fill)

    def _check_last(self, trainee: Trainee, run: Run) -> None:
        examples = step_examples(self.recipe, self.record.seed, self.record.steps - 1)[:_VERIFIED]
        table = compared(trainee, self.prompts.of(examples), self.model, run.adapter(), self.recipe.fill)
        content = {"answers": len(table), "difference": float(table["difference"].max())}
        write_atomically(self.folder / VERIFIED, json.dumps(content) + "\n")


def _data(prompts: Prompts, seed: int) -> str:
    """Return a hash of all examples, of their tokens (those of the first step stand for all), and of their vectors."""
    first = prompts.of(step_examples(prompts.recipe, seed, 0))
    return sha256(
        expand(prompts.recipe, seed).to_csv(index=False).encode(),
        prompts.recipe.pools.key.encode(),
        prompts.model.vocabulary.encode(),
        *(repr(prompt.rendered.tokens).encode() for prompt in first),
        *(vector.fingerprint().encode() for _, vector in sorted(prompts.concepts.items())),
    )
