"""Bad input to the command line: one clear message, exit code 2, and no heavy import where no model is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import conversation

import mechint as mi
from analyses import logit_lens
from analyses.kit import cli
from mechint.base.errors import MechintError, UsageError, VectorWarning
from mechint.chat.conversations import save_conversations

ROOT = Path(__file__).resolve().parents[2]
_RUN = """
import contextlib, io, json, sys
from analyses import logit_lens
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = logit_lens.main(json.loads(line))
        except SystemExit as stop:
            code = stop.code
    heavy = [name for name in ("torch", "transformers", "transformer_lens", "pandas", "plotly") if name in sys.modules]
    print(json.dumps([code, heavy, out.getvalue(), err.getvalue()]), flush=True)
"""
Run = Callable[[list[str]], tuple[int, list[str], str, str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """What runs command lines in one new process: the exit code, heavy modules that are there by then, and output."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _RUN], cwd=ROOT, text=True, **pipes) as process:

        def once(arguments: list[str]) -> tuple[int, list[str], str, str]:
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        yield once


@pytest.fixture
def files(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """Paths that the bad inputs below are made from."""
    (tmp_path / "broken.json").write_text('{"label": "a",\n "messages": [}\n')
    (tmp_path / "empty").mkdir()
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "cats.gguf").write_bytes(b"not a vector")
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text('{"num_hidden_layers": 8, "mechint_prompts": "small"}')
    save_conversations([replace(conversation("a"), yes_token="")], tmp_path / "silent.json")
    save_conversations([conversation("control-1")], tmp_path / "controls.json")
    return {"model": tiny_checkpoint("qwen2"), "tmp": tmp_path}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", "5:2"], ["5:2", "reversed", "21:43"]),
        (["--model", "{model}", "--layers", "3:99"], ["--layers 3:99", "0:4"]),
        (["--model", "{tmp}/nowhere"], ["nowhere", "no such directory", "organism"]),
        (["--model", "{tmp}/empty"], ["config.json"]),
        (
            ["--model", "{model}", "--vectors", "{tmp}/vectors", "--concepts", "bread"],
            ["unknown concept", "bread", "cats"],
        ),
        (["--model", "{tmp}/small", "--concepts", "cats,unicorns"], ["unknown concept", "unicorns", "bread"]),
        (["--model", "{model}", "--vectors", "{tmp}/empty"], ["no vector files"]),
        (["--model", "{model}", "--vectors", "{tmp}/nowhere"], ["no such file"]),
        (["--model", "{model}", "--conversations", "{tmp}/broken.json"], ["broken.json", "line 2", "broken JSON"]),
        (["--model", "{model}", "--conversations", "{tmp}/nowhere.json"], ["nowhere.json", "no such file"]),
        (["--model", "{model}", "--conversations", "{tmp}/controls.json"], ["only control questions"]),
        (["--model", "{model}", "--conversations", "{tmp}/silent.json"], ["no answer tokens in a", "yes_token"]),
        (["--model", "{model}", "--out", "{tmp}/broken.json"], ["--out", "broken.json", "cannot be written"]),
        (["--model", "{model}", "--info", "nonsense"], ["nonsense", "lorem-ipsum"]),
        (["--model", "{model}", "--description", "nonsense"], ["nonsense", "finetuning"]),
        (["--model", "{model}", "--format", "nonsense"], ["nonsense", "yes-no"]),
        (["--model", "{model}", "--layer-sweep", "--window", "9"], ["--window 9", "4 layers"]),
        (["--model", "{model}", "--window", "2"], ["--window", "--layer-sweep"]),
        (
            ["--conversations", "{tmp}/controls.json", "--model", "{model}", "--info", "none"],
            ["--info", "--conversations"],
        ),
        (["--strength", "2", "--relative-strength", "1"], ["--relative-strength", "not allowed with"]),
        (["--strength", "nan"], ["--strength", "finite"]),
        (["--concepts", "a,,b"], ["--concepts", "a,b,c"]),
        (["--concepts", "a,a"], ["--concepts", "different"]),
        (["--limit", "0"], ["--limit", "1 or more"]),
        (["--batch-size", "x"], ["--batch-size", "whole number"]),
        (["--metric", "p_maybe"], ["--metric", "logit_diff"]),
        (["--backend", "vllm"], ["--backend", "bridge"]),
        (["--layerz", "3"], ["--layerz"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_one_message_and_code_2_without_a_heavy_import(
    arguments: list[str], words: list[str], files: dict[str, Path], run: Run
) -> None:
    options = [argument.format(**files) for argument in arguments]
    if "--out" not in options:
        options += ["--out", str(files["tmp"] / "out")]
    code, heavy, output, message = run(options)
    assert (code, heavy, output) == (2, [], ""), message
    assert message.count("error: ") == 1
    assert "Traceback" not in message
    for word in words:
        assert word in message


def test_help_needs_no_heavy_import(run: Run) -> None:
    code, heavy, output, _ = run(["--help"])
    assert (code, heavy) == (0, [])
    for option in ("--model", "--layers", "--relative-strength", "--layer-sweep", "--vectors", "--out"):
        assert option in output


def test_nothing_is_loaded_or_written_before_the_checks(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mechint.models.model.load", lambda *_, **__: pytest.fail("the model was loaded"))
    out = files["tmp"] / "out"
    assert logit_lens.main(["--model", str(files["model"]), "--info", "nonsense", "--out", str(out)]) == 2
    vectors = ["--vectors", str(files["tmp"] / "vectors"), "--out", str(out)]
    assert logit_lens.main(["--model", str(files["model"]), *vectors]) == 2
    assert "cats.gguf" in capsys.readouterr().err
    assert not list(out.rglob("*.html"))


def _argv(files: dict[str, Path], **changes: str) -> list[str]:
    asked = conversation("question")
    save_conversations([asked], files["tmp"] / "asked.json")
    vector = mi.ConceptVector({layer: torch.ones(32) for layer in range(4)}, "ones", 4)
    vector.save(files["tmp"] / "ones.safetensors")
    options = {
        "model": str(files["model"]),
        "conversations": str(files["tmp"] / "asked.json"),
        "vectors": str(files["tmp"] / "ones.safetensors"),
        "strength": "1",
        "out": str(files["tmp"] / "out"),
        **changes,
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def test_a_vector_of_another_model_is_refused(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    argv = _argv(files)
    mi.ConceptVector({layer: torch.ones(16) for layer in range(4)}, "small", 4).save(files["tmp"] / "ones.safetensors")
    assert logit_lens.main(argv) == 2
    message = capsys.readouterr().err
    assert "d_model=16, n_layers=4" in message
    assert "this model has 32, 4" in message


def test_an_answer_of_several_tokens_is_refused(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    argv = _argv(files)
    data = json.loads((files["tmp"] / "asked.json").read_text())
    data[0]["yes_token"] = " maybe"
    (files["tmp"] / "asked.json").write_text(json.dumps(data))
    assert logit_lens.main(argv) == 2
    assert "' maybe' is" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_refused(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert logit_lens.main(_argv(files, device="xpu:77")) == 2
    assert "xpu:77" in capsys.readouterr().err


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_memory_that_runs_out_suggests_a_smaller_batch(
    problem: BaseException, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr("mechint.engine.job.Job.rows", fail)
    assert logit_lens.main(_argv(files)) == 2
    assert "--batch-tokens" in capsys.readouterr().err


@pytest.mark.parametrize("amount", ["lots", "-4GB", "0", "4 potatoes"])
def test_amounts_of_memory_that_are_none(
    amount: str, files: dict[str, Path], no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        logit_lens.main([*_argv(files), f"--max-memory={amount}"])
    assert stopped.value.code == 2
    assert "512MB" in capsys.readouterr().err


def test_less_memory_than_the_model_takes(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert logit_lens.main([*_argv(files), "--max-memory", "20MB"]) == 2
    assert "at most 20 MB of memory, of which the model" in capsys.readouterr().err


def test_other_errors_are_not_swallowed() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        cli.guarded(fail)


@pytest.mark.parametrize(
    ("problem", "code"), [(UsageError("given", "allowed", "advice"), 2), (KeyboardInterrupt(), cli.INTERRUPTED)]
)
def test_exit_codes(problem: MechintError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise problem

    assert cli.guarded(fail) == code
    assert len(capsys.readouterr().err.strip().splitlines()) <= 3


def test_own_warnings_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    usual = warnings.formatwarning

    def warn() -> None:
        sys.stderr.write(warnings.formatwarning(VectorWarning("block 0 is gone"), VectorWarning, "file.py", 3, "code"))
        sys.stderr.write(warnings.formatwarning("old name", FutureWarning, "file.py", 3, "code"))

    assert cli.guarded(warn) == 0
    assert capsys.readouterr().err == "warning: block 0 is gone\nfile.py:3: FutureWarning: old name\n  code\n"
    assert warnings.formatwarning is usual
