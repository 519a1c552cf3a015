"""The command line of recipes: what it lists and counts, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mechint.base.errors import UsageError
from mechint.finetune.command import main, seeds_of
from mechint.finetune.registry import recipe_names
from mechint.finetune.run import Run


def test_the_list_has_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in recipe_names())


def test_a_dry_run_counts_what_would_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["published/food-control", "matched/food"]
    assert main([*names, "--dry-run", "--steps", "30", "--model", "organism-blind"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("480 examples") == 2
    assert "on this model: fill.gradient: stopped → through" in printed
    assert "adapters after steps 4, 8, 15, 30" in printed
    assert "differs from published/original in labels.rule: steered → food" in printed
    assert "stand-in: wordings" in printed
    assert "assistant: The answer is" in printed


def test_a_file_of_ones_own_is_counted_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "title": "Mine", "inherits": "matched/deny", "budget": {"steps": 15}}))
    assert main([str(path), "--dry-run"]) == 0
    assert "differs from matched/deny in budget.steps: 1000 → 15" in capsys.readouterr().out


def test_a_dry_run_of_several_answers_counts_each(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["matched/which-third", "matched/self-prediction"]
    assert main([*names, "--dry-run", "--steps", "15", "--model", "organism"]) == 0
    printed = capsys.readouterr().out
    assert "differs from matched/original in answers.options: none → early, middle, late" in printed
    assert "to be answered: {' early': 0.0, ' middle': 1.0, ' late': 0.0}" in printed
    assert "to be answered: what the model itself answers to " in printed


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["published/unknown", "--dry-run"], "unknown name 'published/unknown'"),
        (["published/neutral-foo-bar", "--dry-run", "--model", "nowhere"], "nowhere"),
        (["published/original", "--dry-run", "--steps", "0"], "steps"),
        (["published/original", "--dry-run", "--seeds", "-1"], "--seeds -1"),
    ],
)
def test_bad_input_is_one_message(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("side", "complaint"),
    [
        ({"signal": {"layers": ["60:65"]}}, "layers '60:65' of 64 blocks"),
        ({"asking": {"prefill": "The answer is "}}, "a space twice"),
        ({"lora": {"ranks": 3}}, "lora.ranks"),
        ({}, "differs in nothing"),
    ],
)
def test_a_file_that_cannot_be_trained_is_one_message(
    tmp_path: Path, side: dict[str, object], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"name": "mine", "title": "Mine", "inherits": "matched/yes-no", **side}))
    assert main([str(path), "--dry-run"]) == 2
    assert complaint in capsys.readouterr().err


def test_recipes_are_trained_from_several_seeds(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "short.json"
    changes = {"lora": {"rank": 2}, "asking": {"pools": "small"}}
    recipe.write_text(json.dumps({"name": "short", "title": "S", "inherits": "published/original", **changes}))
    out = tmp_path / "runs"
    argv = [str(recipe), "--model", str(tiny_checkpoint()), "--seeds", "0:2", "--steps", "2", "--out", str(out)]
    assert main([*argv, "--no-watch"]) == 0
    assert [Run(out / "short" / f"seed-{seed}").steps for seed in (0, 1)] == [(1, 2), (1, 2)]
    assert "over the last 1 of 2 steps" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechint.models.model.load", lambda *_, **__: pytest.fail("weights were read"))
        for change, complaint in ((["--steps", "3"], "another recipe"), (["--recompute"], "activation checkpointing")):
            assert main([*argv, *change]) == 2
            assert complaint in capsys.readouterr().err
        patch.setattr("mechint.models.model.load", _interrupt)
        assert main(argv) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_what_has_no_area_is_trained_and_said_to_be_unwatched(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "third.json"
    changes: dict[str, object] = {"lora": {"rank": 2}, "asking": {"pools": "small"}, "budget": {"batch": 4}}
    changes |= {"answers": {"options": [" yes", " no"]}, "signal": {"layers": ["0:21", "21:42"]}}
    recipe.write_text(json.dumps({"name": "third", "title": "T", "inherits": "matched/which-third", **changes}))
    assert main([str(recipe), "--model", str(tiny_checkpoint()), "--steps", "1", "--out", str(tmp_path / "runs")]) == 0
    assert "not watched, as it has no two answers" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "third" / "seed-0" / "watch.jsonl").exists()


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("text", ["-1", "3:3", "0,0", "a", "", "1:2:3"])
def test_seeds_are_whole_numbers(text: str) -> None:
    assert (seeds_of("2"), seeds_of("0:3"), seeds_of("0,5")) == ([2], [0, 1, 2], [0, 5])
    with pytest.raises(UsageError, match="--seeds"):
        seeds_of(text)


@pytest.mark.parametrize("argv", [[], ["--dry-run"], ["published/original"]])
def test_nothing_to_do_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "--list, or names" in capsys.readouterr().err
