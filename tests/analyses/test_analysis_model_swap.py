"""Model swap: planted effects come out as numbers and figures, runs equal direct calls, two phases equal one."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import reference
import torch
from conftest import asked_conversations, load_once
from whole_runs import refusal, whole_run, without

import mechint as mi
from analyses import logit_lens, model_swap
from analyses.kit import checks, finetuned
from analyses.kit.dose import Dose
from analyses.model_swap.figures import figures
from analyses.model_swap.measures import Run, by_unit, usual_strength, verdict
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.recipe import LoraRecipe
from mechint.finetune.sibling import Sibling
from mechint.prompts.design import PromptDesign
from mechint.readouts.own_text import OwnText

pytestmark = pytest.mark.usefixtures("quick_analyses")
RUN = Run("a model", "a finetune", Dose((1, 2), None, 0.3, "default"))
LAYERS = ("embed", "0", "1")
STRENGTHS = (-0.3, 0.0, 0.3, 0.6)
WORDINGS = {("injection", "yes-no"): 1.0, ("injection", "one-zero"): 0.5, ("finetuning", "yes-no"): 1.5}
INFOS = {"none": 0.1, "introspection": 1.0}
# Shift of logit_diff at the output with the info document, averaged over wordings.
SWAP, CONTRAST, RANDOM, CONTROL = 2.0, 4.0, 0.5, -0.2


def _conditions() -> list[tuple[str, str, str, float]]:
    """Vector, kind, strength as the table has it, shift of an introspection question."""
    conditions = [("", "clean", "0", 0.0), ("a finetune", "swapped", "", SWAP)]
    conditions += [("contrast", "contrast", f"{s:g}", CONTRAST * abs(s) / 0.3) for s in STRENGTHS]
    # A random vector does more with one sign than with the other, which is left out of the means.
    conditions += [
        (f"random-{n}", "random", f"{s:g}", RANDOM * (1 + n * np.sign(s))) for n in (0, 1) for s in STRENGTHS if s
    ]
    return conditions


def _planted() -> pd.DataFrame:
    rows = []
    questions = [("introspection", "", *wording, share) for wording, share in WORDINGS.items()]
    questions += [("control", group, "injection", "yes-no", CONTROL) for group in ("no", "confusing-no", "yes")]
    for info, strongly in INFOS.items():
        for kind, group, description, form, share in questions:
            for vector, series, strength, size in _conditions():
                shift = strongly * (share * size if not group else share * bool(size))
                if group and series == "random":
                    continue
                label = f"{kind} {group} {description} {info} {form}"
                columns = {"conversation": label, "question": group or "is it?", "kind": kind, "group": group}
                columns |= {"description": description, "info": info, "format": form, "unit": vector}
                columns |= {"series": series, "strength": strength, "intervention": f"{vector} {strength}"}
                for at, layer in enumerate(LAYERS):
                    moved = shift * at / 2
                    values = {"logit_diff": moved - 3, "logit_diff_shift": moved, "p_yes": 1 / (1 + np.exp(3 - moved))}
                    rows.append({**columns, "layer": layer, **values})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return _planted()


@pytest.fixture(scope="module")
def drawn(planted: pd.DataFrame) -> dict[str, go.Figure]:
    return figures(planted, RUN)


def test_the_verdict_has_the_planted_shifts(planted: pd.DataFrame) -> None:
    verdicts = verdict(by_unit(planted), RUN.dose)
    assert list(verdicts) == ["none", "introspection"]
    for info, strongly in INFOS.items():
        means = {name: part["mean"] for name, part in verdicts[info].items()}
        assert means["swap"] == pytest.approx(SWAP * strongly)
        assert means["contrast"] == pytest.approx(CONTRAST * strongly)
        assert means["random"] == pytest.approx(RANDOM * strongly)
        assert means["swap, controls"] == means["contrast, controls"] == pytest.approx(CONTROL * strongly)
        assert means["swap minus controls"] == pytest.approx((SWAP - CONTROL) * strongly)
    assert verdicts["introspection"]["swap"]["units"] == len(WORDINGS)
    bounds = [verdicts["introspection"]["swap"][name] - SWAP for name in ("low", "high")]
    half = 4.303 / np.sqrt(3)  # the 97.5% point of t for three wordings; their shifts are 1, 2 and 3
    assert bounds == pytest.approx([-half, half], abs=1e-3)
    assert usual_strength(by_unit(planted), RUN.dose) == 0.3


def test_the_figure_of_shifts_has_a_row_for_every_condition(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_shift"]
    text = figure.layout.title.text.replace("<br>", " ")
    assert "a finetune" in text
    assert "by +2.00" in text
    assert "+4.00" in text
    assert list(figure.layout.yaxis.ticktext)[:4] == [
        "no document: swap",
        "no document: contrast at \N{MINUS SIGN}0.3 x median |residual|",
        "no document: contrast at +0.3 x median |residual|",
        "no document: contrast at +0.6 x median |residual|",
    ]
    asked = next(trace for trace in figure.data if trace.name == "introspection question" and trace.xaxis == "x")
    np.testing.assert_allclose(asked.x, [0.2, 0.4, 0.4, 0.8, 2.0, 4.0, 4.0, 8.0])


def test_published_values_stand_beside_the_swap_and_the_usual_dose(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_shift"]
    stars = next(t for t in figure.data if "published" in (t.name or "") and t.xaxis == "x3")
    heights = dict(zip(stars.customdata[:, 0], stars.y, strict=True))
    assert sorted(heights) == pytest.approx([0.00592, 0.00861, 0.05347, 0.06006])
    place = dict(zip(figure.layout.yaxis.ticktext, figure.layout.yaxis.tickvals, strict=True))
    for value, row in (
        (0.06006, "info document: swap"),
        (0.05347, "info document: contrast at +0.3 x median |residual|"),
    ):
        at = next(height for p, height in heights.items() if p == pytest.approx(value))
        assert abs(at - place[row]) < 0.5


def test_the_curve_goes_through_zero_and_the_swap_is_a_level(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_strength"]
    info = {trace.name: trace for trace in figure.data if trace.xaxis == "x2" and trace.name}
    np.testing.assert_allclose(info["contrast vector, introspection question"].y, [4.0, 0.0, 4.0, 8.0])
    np.testing.assert_allclose(info["swap, introspection question"].y, [SWAP, SWAP])
    random = next(trace for name, trace in info.items() if name.startswith("random"))
    # At 0.6 the table has one sign only: 1 + n with n = 0, 1.
    np.testing.assert_allclose(random.y, [RANDOM, RANDOM, 1.5 * RANDOM])
    assert "strength +0.3 x median |residual| comes nearest (+4.00)" in figure.layout.title.text.replace("<br>", " ")


def test_the_lens_has_levels_and_shifts_by_layer(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["model_swap_lens"]
    swap = [trace for trace in figure.data if trace.name == "cache filled by the finetuned model"]
    assert len(swap) == 6
    by_axis = {trace.xaxis: list(trace.y) for trace in swap}
    np.testing.assert_allclose(by_axis["x2"], [-3.0, -2.0, -1.0])
    np.testing.assert_allclose(by_axis["x4"], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(by_axis["x6"], [0.0, -0.1, -0.2])
    assert "info document, layer 1 (+2.00, output +2.00)" in figure.layout.title.text.replace("<br>", " ")


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


def test_titles_name_the_largest_shift_of_either_sign_and_no_likeness_where_there_is_none() -> None:
    table = _planted()
    swapped = table["series"] == "swapped"
    against = table.assign(logit_diff_shift=table["logit_diff_shift"].where(~swapped, -table["logit_diff_shift"]))
    drawn = figures(against, RUN)
    titles = {name: figure.layout.title.text.replace("<br>", " ") for name, figure in drawn.items()}
    assert "no strength of the contrast vector comes near it" in titles["model_swap_strength"]
    last = against[swapped & (against["kind"] == "introspection") & (against["info"] == "introspection")]
    largest = last.groupby("layer")["logit_diff_shift"].mean().abs().idxmax()
    assert f"info document, layer {largest} (" in titles["model_swap_lens"]
