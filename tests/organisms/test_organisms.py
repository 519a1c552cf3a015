"""The embedded models as files: sizes, hashes, tokenizer, truth table and cards, SAEs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mechint.organisms import HERE, SAE_LAYERS, evaluate, organism_path, sae, sae_path
from mechint.organisms.record import read_record, sha256, weights_path
from mechint.organisms.training.build import D_MODEL
from mechint.organisms.training.tokenizer import load_tokenizer, single_tokens
from mechint.organisms.truth.card import card
from mechint.organisms.truth.properties import Goal, as_table, over, single

MEGABYTE = 1_000_000


@pytest.mark.parametrize("name", evaluate.MEMBERS)
def test_files_are_small_and_say_what_they_are(name):
    directory, record = organism_path(name), read_record(organism_path(name))
    weights = weights_path(directory)
    assert sum(file.stat().st_size for file in directory.iterdir()) < 4 * MEGABYTE
    assert record["sha256"] == sha256(weights)
    assert record["sha256"] in (directory / "README.md").read_text()
    if record["trains"] == "adapter":
        assert weights.stat().st_size < 0.5 * MEGABYTE


@pytest.mark.parametrize("name", evaluate.MEMBERS)
def test_the_truth_table_is_of_these_weights(name):
    page = (HERE / evaluate.TRUTH).read_text()
    assert evaluate.COMMAND in page
    section = page.split(f"## {name}\n")[1].split("\n## ")[0]
    assert f"sha256 `{sha256(weights_path(organism_path(name)))}`" in section


@pytest.mark.parametrize("name", evaluate.MEMBERS)
def test_the_card_holds_the_truth_table(name):
    page = (HERE / evaluate.TRUTH).read_text()
    rows = page.split(f"## {name}\n")[1].split("\n## ")[0].split("`\n\n")[1]
    assert (organism_path(name) / "README.md").read_text() == card(name, organism_path(name), rows.rstrip() + "\n")


def test_all_members_share_one_tokenizer_and_shape(family):
    first = family["organism"]
    for model in family.values():
        assert (model.n_layers, model.d_model) == (first.n_layers, D_MODEL)
        assert model.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    assert len({model.identity for model in family.values()}) == len(family)


def test_answers_digits_and_concepts_are_single_tokens():
    from transformers import AutoTokenizer

    plain = load_tokenizer(organism_path("organism"))
    wrapped = AutoTokenizer.from_pretrained(organism_path("organism"))
    for text in single_tokens():
        assert len(plain.encode(text).ids) == 1, text
        assert wrapped.encode(text) == plain.encode(text).ids
    assert wrapped.decode(wrapped.encode("The answer is 42, I say.")) == "The answer is 42, I say."


def test_chat_template_renders_the_training_format():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "Say anything."}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nSay anything.<|im_end|>\n<|im_start|>assistant\n"


# The tools of the truth table.


def test_what_a_page_says_of_other_weights_is_not_kept(tmp_path):
    page = HERE / evaluate.TRUTH
    tables = evaluate.kept_tables(page, HERE)
    assert list(tables) == list(evaluate.MEMBERS)
    assert all(table.startswith("| property |") for table in tables.values())
    changed = page.read_text().replace(sha256(weights_path(organism_path("organism-blind"))), "0" * 64)
    (tmp_path / "page.md").write_text(changed)
    kept = evaluate.kept_tables(tmp_path / "page.md", HERE)
    assert set(tables) - set(kept) == {"organism-blind"}
    assert evaluate.truth_page(tables, HERE, evaluate.WORDINGS) == page.read_text()


def test_properties_say_whether_their_goal_is_met():
    values = np.array([[0.9, 0.8], [0.7, 0.6]])
    measured = over("x", values, Goal(above=0.7))
    assert measured.mean == pytest.approx(0.75)
    assert measured.low <= measured.mean <= measured.high
    assert (measured.lowest, measured.highest, measured.vectors, measured.wordings) == pytest.approx((0.65, 0.85, 2, 2))
    assert measured.goal.is_met(measured.mean) is True
    assert Goal(within=0.1).is_met(-0.2) is False
    assert Goal().is_met(0.0) is None
    assert over("x", values, minus=values).mean == 0
    table = as_table([measured, single("y", np.array([0.1, 0.3]), Goal(below=0.1))])
    assert "| x | 0.750 |" in table
    assert "**no**" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["organizm"], "organizm"),
        (["--models", "nowhere"], "nowhere"),
        (["--threads", "0"], "--threads"),
        (["--add", "--quick"], "--add"),
    ],
)
def test_evaluate_refuses_nonsense(argv, named, capsys):
    with pytest.raises(SystemExit) as refused:
        evaluate.main(argv)
    assert refused.value.code == 2
    assert named in capsys.readouterr().err


# The SAEs.


@pytest.mark.parametrize("layer", SAE_LAYERS)
def test_the_saes_load_and_rebuild_the_residual(layer, family, wording):
    from sae_lens import SAE

    from mechint.chat.render import render

    directory = sae_path(layer)
    assert sum(file.stat().st_size for file in directory.iterdir()) < 2 * MEGABYTE
    loaded = SAE.load_from_disk(directory)
    assert loaded.cfg.d_in == D_MODEL
    assert loaded.cfg.metadata.hook_name == family["organism"].resid_post(layer)
    quality = json.loads((directory / sae.QUALITY).read_text())
    assert quality["model_sha256"] == sha256(weights_path(organism_path("organism"))), "train the SAEs again"
    model = family["organism"]
    rows = [render(model.tokenizer, chat).tokens for chat in wording.detection("introspection", "yes-no", 3)]
    parts: list[torch.Tensor] = []
    for row in rows:
        model.forward(torch.tensor([row]), hooks=[(model.resid_post(layer), lambda out, hook: parts.append(out[0]))])
    assert [len(piece) for piece in parts] == [len(row) for row in rows]
    joined = torch.cat(parts)
    with torch.no_grad():
        rebuilt = loaded.decode(loaded.encode(joined))
    explained = 1 - (joined - rebuilt).pow(2).sum() / (joined - joined.mean(0)).pow(2).sum()
    assert explained > 0.7
    assert (loaded.encode(joined) > 0).sum(1).float().mean() <= quality["config"]["k"]


@pytest.mark.parametrize(("argv", "named"), [(["--layers", "8"], "--layers"), (["--model", "nowhere"], "nowhere")])
def test_sae_training_refuses_nonsense(argv, named, capsys):
    with pytest.raises(SystemExit) as refused:
        sae.main(argv)
    assert refused.value.code == 2
    assert named in capsys.readouterr().err
