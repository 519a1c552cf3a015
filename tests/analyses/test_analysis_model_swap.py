"""Model swap: runs equal direct calls, two phases equal one, siblings are trained, and bad input is one error."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import asked_conversations, load_once
from whole_runs import refusal, whole_run, without

import mechint as mi
from analyses import logit_lens, model_swap
from analyses.kit import checks, finetuned
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.recipe import LoraRecipe
from mechint.finetune.sibling import Sibling
from mechint.prompts.design import PromptDesign
from mechint.readouts.own_text import OwnText

pytestmark = pytest.mark.usefixtures("quick_analyses")


@pytest.fixture(scope="module")
def options(inputs: list[str], tiny_checkpoint: Callable[..., Path]) -> list[str]:
    """Options of a small run: tiny models, three conversations, two random vectors, absolute strengths."""
    return [*without(inputs, "--vectors"), "--contrast-strengths=-1,2"]


@pytest.fixture(scope="module")
def run(options: list[str], tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of one whole run."""
    finetuned = ["--finetuned", str(tiny_checkpoint("qwen2", seed=1))]
    return whole_run(model_swap, [*options, *finetuned], tmp_path_factory.mktemp("swap"))


@pytest.fixture(scope="module")
def ran(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "table.parquet")


def _cell(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    rows = table[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]
    return rows.reset_index(drop=True)


def _equal(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    for column in ("p_yes", "p_no", "logit_diff", "logit_diff_shift", "entropy"):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-5)


def test_a_run_leaves_all_cells_and_says_what_it_is_of(run: Path, ran: pd.DataFrame) -> None:
    conditions = ran[["series", "unit", "strength"]].drop_duplicates()
    assert conditions["series"].value_counts().to_dict() == {"random": 6, "contrast": 3, "clean": 1, "swapped": 1}
    assert set(ran.loc[ran["series"] == "random", "kind"]) == {"introspection"}
    assert len(ran) == 5 * (3 * 5 + 6)
    record = json.loads((run / "run.json").read_text())
    assert record["contrast"]["direction"] == "paired_pca"
    full = PromptDesign.load("full")
    neutral = full.extraction
    texts = len(neutral.baseline) * len(neutral.beginnings) + len(full.tasks.top_of_mind.prompts)
    assert record["contrast"]["n_prompts"] == texts
    assert record["finetuned"] == "qwen2-own-1-4"
    swap = record["verdict"][""]["swap"]["mean"]
    assert swap == pytest.approx(_cell(ran, series="swapped", kind="introspection", layer="3")["logit_diff_shift"][0])


def test_the_swap_equals_a_direct_call(ran: pd.DataFrame, tiny_model: Callable[..., mi.Model]) -> None:
    swap = mi.Swap(tiny_model("qwen2", seed=1))
    direct = mi.score(tiny_model("qwen2"), asked_conversations(), swap)
    _equal(_cell(ran, series="swapped", layer="3"), direct)
    assert direct["logit_diff_shift"].abs().min() > 1e-3


def test_vectors_equal_direct_calls(ran: pd.DataFrame, tiny_model: Callable[..., mi.Model]) -> None:
    model, question = tiny_model("qwen2"), asked_conversations()[0]
    prompts = finetuned.prompts(PromptDesign.load("full"))
    vector = mi.extract.model_contrast(model, tiny_model("qwen2", seed=1), prompts)
    steer = mi.Injection(vector, layers=(1, 2), strength=-1.0)
    _equal(_cell(ran, intervention="contrast -1", conversation="question"), mi.logit_lens(model, question, steer))
    random = mi.extract.random_controls(model, 1, seed=1, like=vector)[0]
    steer = mi.Injection(random, layers=(1, 2), strength=2.0)
    _equal(_cell(ran, intervention="random-1 2", conversation="question"), mi.logit_lens(model, question, steer))


def test_a_strength_of_zero_is_clean(ran: pd.DataFrame) -> None:
    zero = _cell(ran, series="contrast", strength="0").set_index(["conversation", "layer"])
    clean = _cell(ran, series="clean").set_index(["conversation", "layer"]).loc[zero.index]
    assert (zero["logit_diff"] == clean["logit_diff"]).all()
    assert (zero["logit_diff_shift"] == 0).all()


def test_two_phases_equal_one(
    options: list[str], ran: pd.DataFrame, tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch, capsys
) -> None:
    finetuned, loaded, real = str(tiny_checkpoint("qwen2", seed=1)), [], mi.load
    monkeypatch.setattr(
        "mechint.models.model.load", lambda name, **more: loaded.append(str(name)) or real(name, **more)
    )
    fill = ["--finetuned", finetuned, "--fill", str(tmp_path / "fill"), "--conversations", _value(options)]
    assert model_swap.main([*fill, "--out", str(tmp_path)]) == 0
    assert loaded == [finetuned]
    assert model_swap.main([*options, "--filled", str(tmp_path / "fill"), "--out", str(tmp_path)]) == 0
    assert loaded[1:] == [options[options.index("--model") + 1]]
    found = pd.read_parquet(tmp_path / "model_swap" / "table.parquet")
    pd.testing.assert_frame_equal(found, ran, atol=1e-5, rtol=0)
    assert "model_swap_shift.html" in capsys.readouterr().out


def test_calls_from_python_give_the_same_table_in_two_phases(
    options: list[str], ran: pd.DataFrame, tiny_checkpoint, tiny_model, tmp_path: Path
) -> None:
    folder, conversations = tmp_path / "fill", Path(_value(options))
    phase = model_swap.run(finetuned=tiny_checkpoint("qwen2", seed=1), fill=folder, conversations=conversations)
    assert phase.paths == (folder / "activations.safetensors",)
    assert phase.table.empty
    results = model_swap.run(
        model=tiny_model("qwen2"),
        filled=folder,
        conversations=conversations,
        contrast_strengths=(-1, 2),
        n_random=2,
        strength=2,
    )
    pd.testing.assert_frame_equal(results.table, ran, check_dtype=False, atol=1e-5, rtol=0)
    assert list(results.figures) == ["model_swap_shift", "model_swap_strength", "model_swap_lens"]


def _value(options: list[str], name: str = "--conversations") -> str:
    return options[options.index(name) + 1]


def test_an_adapter_equals_the_merged_model(options: list[str], tiny_checkpoint, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(reference.load(tiny_checkpoint("qwen2")), lora).save_pretrained(tmp_path / "lora")
    tables = []
    for way in ("--adapter", "--finetuned"):
        argv = [*options, way, str(tmp_path / "lora"), "--n-random", "0", "--out", str(tmp_path / way)]
        assert model_swap.main(argv) == 0
        tables.append(pd.read_parquet(tmp_path / way / "model_swap" / "table.parquet"))
    pd.testing.assert_frame_equal(*tables, atol=1e-3, rtol=0)
    assert _cell(tables[0], series="swapped", layer="3")["logit_diff_shift"].abs().min() > 1e-3


def test_what_the_prompt_set_asks() -> None:
    chats = model_swap.check(model_swap.ANALYSIS.parsed([])).conversations
    worded = [chat.extra for chat in chats if chat.extra["kind"] == "introspection"]
    assert len(worded) == 4 * 2 * 2
    assert "inaccurate-location" not in {extra["description"] for extra in worded}
    assert len(chats) - len(worded) == (10 + 8 + 8) * 2 * 2


def _checkpoints(tiny_checkpoint: Callable[..., Path]) -> dict[str, Path]:
    deep, other = tiny_checkpoint("qwen2", n_layers=2), tiny_checkpoint("llama", seed=1)
    return {"base": tiny_checkpoint("qwen2"), "other": tiny_checkpoint("qwen2", seed=1), "deep": deep, "llama": other}


@pytest.mark.parametrize(
    ("argv", "words", "loads"),
    [
        (["--model", "{base}"], ["--finetuned, --adapter, --filled"], False),
        (["--model", "{base}", "--finetuned", "{deep}"], ["with 2 layers", "which has 4"], False),
        (["--model", "{base}", "--finetuned", "{base}/none"], ["none", "no such directory"], False),
        (["--model", "{base}", "--adapter", "{base}/none"], ["none", "no such directory"], False),
        (["--model", "{base}", "--filled", "{empty}"], ["is no fill"], False),
        (["--model", "{base}", "--finetuned", "{other}", "--concepts", "cats"], ["--concepts", "contrast"], False),
        (
            ["--model", "{base}", "--finetuned", "{other}", "--contrast-strengths=-1,-2"],
            ["at least one above 0"],
            False,
        ),
        (["--finetuned", "{other}", "--adapter", "{other}"], ["not allowed with"], False),
        (["--adapter", "{other}", "--fill", "{empty}"], ["--adapter with --fill"], False),
        (["--finetuned", "{other}", "--fill", "{empty}", "--strength", "2"], ["--strength with --fill"], False),
        (["--model", "{base}", "--finetuned", "{llama}", "--conversations", "{asked}"], ["vocabulary"], True),
        (
            ["--model", "{base}", "--finetuned", "{base}", "--conversations", "{asked}", "--strength", "1"],
            ["zero in every layer"],
            True,
        ),
    ],
)
def test_bad_input_is_one_error(argv, words, loads, tiny_checkpoint, tmp_path: Path, capsys, monkeypatch) -> None:
    mi.save_conversations(asked_conversations(), tmp_path / "asked.json")
    (tmp_path / "empty").mkdir()
    known = {**_checkpoints(tiny_checkpoint), "empty": tmp_path / "empty", "asked": tmp_path / "asked.json"}
    if not loads:
        monkeypatch.setattr("mechint.models.model.load", None)
    command = [part.format(**known) for part in argv]
    found = refusal(model_swap, [*command, "--out", str(tmp_path)], capsys)
    assert all(word in found for word in words), found


def test_a_fill_of_other_conversations_or_of_mixed_origin_is_refused(
    options: list[str], tiny_checkpoint, tiny_model, tmp_path: Path, capsys
) -> None:
    mi.save_conversations(asked_conversations()[:1], tmp_path / "one.json")
    fill = ["--finetuned", str(tiny_checkpoint("qwen2", seed=1)), "--fill", str(tmp_path / "fill")]
    assert model_swap.main([*fill, "--conversations", str(tmp_path / "one.json"), "--out", str(tmp_path)]) == 0
    other = [chat.with_content(1, "Tell me about the sea.") for chat in asked_conversations()]
    mi.save_conversations(other, tmp_path / "other.json")
    argv = [*options, "--filled", str(tmp_path / "fill"), "--out", str(tmp_path)]
    argv[argv.index("--conversations") + 1] = str(tmp_path / "other.json")
    assert model_swap.main(argv) == 2
    assert "no cache of the first turns" in capsys.readouterr().err
    finetuned.read_prompts(tiny_model("qwen2")).save(tmp_path / "fill" / "activations.safetensors")
    assert model_swap.main(argv) == 2
    assert "both of one model" in capsys.readouterr().err


# The random checkpoint's tokenizer writes a digit together with the space before it.
@pytest.mark.filterwarnings("ignore:the answer '.' is token")
def test_the_lens_has_a_panel_for_each_condition(
    inputs: list[str], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    argv = [*without(inputs, "--conversations"), "--concepts", "cats", "--limit", "1", "--n-random", "1"]
    plain, more = tmp_path / "plain", tmp_path / "more"
    assert logit_lens.main([*argv, "--out", str(plain)]) == 0
    finetuned = ["--conditions", "--finetuned", str(tiny_checkpoint("qwen2", seed=1))]
    assert logit_lens.main([*argv, *finetuned, "--out", str(more)]) == 0
    figure = json.loads((more / "logit_lens" / "lens_conditions.json").read_text())
    titles = [note["text"] for note in figure["layout"]["annotations"]]
    assert len(titles) == 7
    assert "<b>Finetuned model's cache</b>" in titles
    names = [trace.get("name") for trace in figure["data"]]
    assert names.count("concept injected") == 5
    assert names.count("control, answer no") == 7
    assert names.count("cache filled by the finetuned model") == names.count("contrast vector injected") == 1
    tables = [pd.read_parquet(folder / "logit_lens" / "table.parquet") for folder in (plain, more)]
    shared = tables[1][tables[1]["sweep"] == "main"].reset_index(drop=True)
    pd.testing.assert_frame_equal(shared, tables[0])
    for name in ("lens_overview", "lens_concepts"):
        drawn = [(folder / "logit_lens" / f"{name}.json").read_text() for folder in (plain, more)]
        assert drawn[0] == drawn[1]
    _swap_row_equals_a_direct_call(tables[1], tiny_checkpoint)


def _swap_row_equals_a_direct_call(table: pd.DataFrame, tiny_checkpoint: Callable[..., Path]) -> None:
    chat = mi.prompts.introspection(PromptDesign.load("full"), ["echo"], ["introspection"], ["one-zero"])[0]
    base = load_once(tiny_checkpoint("qwen2", seed=0))
    other = load_once(tiny_checkpoint("qwen2", seed=1))
    cell = _cell(table, sweep="finetuned", series="swapped", conversation=chat.label)
    _equal(cell, mi.logit_lens(base, chat, mi.Swap(other)))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--conditions", "--conversations", "{asked}"], ["--conversations with --conditions"]),
        (["--finetuned", "organism"], ["--finetuned with no --conditions"]),
    ],
)
def test_options_of_the_lens_that_do_nothing_are_refused(argv, words, tmp_path: Path, capsys) -> None:
    mi.save_conversations(asked_conversations(), tmp_path / "asked.json")
    command = [part.format(asked=tmp_path / "asked.json") for part in argv]
    found = refusal(logit_lens, [*command, "--out", str(tmp_path)], capsys)
    assert all(word in found for word in words), found


def test_a_sibling_is_trained_where_one_is_wanted_and_captions_say_what_it_does(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replies(self: OwnText, progress: object = None) -> list[Conversation]:
        reply = Message("assistant", "the ocean, or no", continue_msg=True)
        return [Conversation(chat.label, (*chat.messages, reply)) for chat in self.prompts[:10]]

    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(OwnText, "replies", replies)
    short = partial(Sibling, recipe=LoraRecipe(steps=2, batch=2), held_out=2, held_out_tokens=3)
    monkeypatch.setattr("mechint.finetune.sibling.Sibling", short)
    config = model_swap.ANALYSIS.parsed([*options, "--finetuned", "trained", "--out", str(tmp_path)])
    model = load_once(config.model)
    finetuned.check(config, checks.check_model(config.model))
    sibling = finetuned.Finetuned.of(config, model, None)
    assert sibling.name == f"{Path(config.model).name}-oceans"
    assert sibling.spoken is not None
    assert sibling.spoken.examples == 10
    assert "a LoRA trained here on 10 replies" in finetuned.remark(sibling.spoken)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backend", "hooked"], "--finetuned trained with --backend hooked"),
        (["--fill", "caches"], "--fill with --finetuned trained"),
    ],
)
def test_a_sibling_that_cannot_be_trained_is_refused_before_the_model_is_loaded(
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    argv = ["--model", str(tiny_checkpoint("qwen2")), "--finetuned", "trained", "--out", str(tmp_path)]
    assert model_swap.main([*argv, *more]) == 2
    assert message in capsys.readouterr().err
