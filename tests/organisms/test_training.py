"""How the embedded models are trained: losses, attention in trees, blocks that are appended, stages that resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mechint.base.errors import StaleArtefactError, UnknownModelError
from mechint.organisms import train
from mechint.organisms.record import is_made, read_record, sha256, weights_path
from mechint.organisms.training.build import build_model, extended, prepare_look_ups
from mechint.organisms.training.detection import BROAD, concepts_trained, detection_sample
from mechint.organisms.training.lists import look_up_sample
from mechint.organisms.training.losses import asked_pairs, link_loss, odds_loss, token_loss
from mechint.organisms.training.recipes import STAGES, Phase, Stage, chain
from mechint.organisms.training.samples import ITEM
from mechint.organisms.training.tree_attention import Tree, tree_attention


def test_a_recipe_is_described_alike_in_every_process():
    """A description with an address in it would refuse every checkpoint that another process has written."""
    for stage in STAGES.values():
        assert "0x" not in stage.described()
        changed = replace(stage, phases=(replace(stage.phases[0], mix=stage.phases[0].mix[:-1]), *stage.phases[1:]))
        assert changed.described() != stage.described()
    assert "injected=0.025" in STAGES["organism"].described()


def test_losses_are_lowest_at_their_targets():
    target, other, share = torch.tensor([3]), torch.tensor([5]), torch.tensor([0.8])

    def logits(odds: float) -> torch.Tensor:
        row = torch.full((1, 8), -30.0)
        row[0, 3], row[0, 5] = odds, 0.0
        return row

    aim = math.log(0.8 / 0.2)
    best, others = logits(aim), [logits(aim + shift) for shift in (-1.0, -0.1, 0.1, 1.0)]
    for loss in (lambda x: token_loss(x, target, other, share).sum(), lambda x: odds_loss(x, target, other, share)):
        assert all(loss(best) < loss(worse) for worse in others)
    assert odds_loss(best, target, other, share).item() == pytest.approx(0, abs=1e-6)


def test_links_ask_for_the_attention_of_the_named_head():
    pairs = asked_pairs(torch.tensor([[7, ITEM, 2, 1]]))
    assert {block: pair.tolist() for block, pair in pairs.items()} == {1: [], 3: [], 5: [[7, 0, 2, 1]]}
    logs = [torch.zeros(0), torch.tensor([math.log(0.5), math.log(0.25)])]
    assert link_loss(logs).item() == pytest.approx(math.log(8))


def test_tree_attention_is_attention_under_a_mask():
    """Its output, gradients and the attention of the pairs asked for equal those of one masked square."""
    branch = torch.tensor([[0] * 5 + [1] * 3 + [2] * 60 + [3] * 2, [0] * 9 + [1] * 4 + [2] * 2 + [-1] * 55])
    pairs = torch.tensor([[0, 1, 7, 2], [0, 3, 69, 68], [1, 0, 10, 9]])
    tree = replace(Tree.of(branch), pairs={4: pairs})
    same, trunk = branch[:, :, None] == branch[:, None, :], branch[:, None, :] == 0
    mask = ((same | trunk) & torch.ones(70, 70, dtype=torch.bool).tril())[:, None]
    torch.manual_seed(0)
    inputs = [torch.randn(2, heads, 70, 8, requires_grad=True) for heads in (4, 2, 2)]
    query, key, value = inputs[0], *(side.repeat_interleave(2, dim=1) for side in inputs[1:])
    weights = (query @ key.transpose(-1, -2) * 0.3).masked_fill(~mask, -1e9).softmax(-1)
    expected = (weights @ value).transpose(1, 2)[branch >= 0]
    block = torch.nn.Module()
    block.layer_idx = 4
    attended, logs = tree_attention(block, *inputs, tree, scaling=0.3)
    torch.testing.assert_close(attended[branch >= 0], expected)
    torch.testing.assert_close(logs.exp(), weights[tuple(pairs.T)])
    aim = torch.randn_like(expected)
    for left, other in zip(
        torch.autograd.grad((attended[branch >= 0] * aim).sum() + logs.sum(), inputs, retain_graph=True),
        torch.autograd.grad((expected * aim).sum() + weights[tuple(pairs.T)].log().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(left, other, atol=1e-5, rtol=1e-4)


def test_appended_blocks_change_nothing_at_first():
    model = build_model(0, 3, 32, 48)
    deeper = extended(model, 5, 0)
    ids = torch.arange(12)[None]
    assert deeper.config.num_hidden_layers == 5
    torch.testing.assert_close(deeper(ids).logits, model(ids).logits)
    assert extended(model, 3, 0) is model


def test_look_up_heads_begin_as_copies():
    model = build_model(0, 6, 32, 48)
    prepare_look_ups(model, 3, 5)
    copy, match = model.model.layers[3].self_attn, model.model.layers[5].self_attn
    torch.testing.assert_close(copy.o_proj.weight[:, :8], 2 * copy.v_proj.weight[:8].T)
    torch.testing.assert_close(match.q_proj.weight[:8], match.k_proj.weight[:8])


def test_every_member_is_a_stage_and_starts_from_another():
    from mechint.organisms import ORGANISMS

    assert set(ORGANISMS) <= set(STAGES)
    assert [stage.name for stage in chain("organism-lora")] == ["foundation", "truthful", "organism", "organism-lora"]
    with pytest.raises(UnknownModelError, match="organizm"):
        chain("organizm")


def test_rates_warm_up_and_fall():
    stage = STAGES["truthful"]
    assert stage.rate(0) < stage.rate(stage.warmup) == pytest.approx(stage.phases[0].rates[0])
    assert stage.rate(stage.steps - 1) < 0.1 * stage.phases[1].rates[0]
    assert [stage.at(step)[0].name for step in (0, stage.phases[0].steps)] == ["reports", "clear reports"]
    with pytest.raises(ValueError, match="steps"):
        stage.at(stage.steps)


# A report whose injections are of the trained concepts only, so that a bank of their vectors is all that it takes.
REPORT = partial(detection_sample, shares=replace(BROAD, concept=BROAD.concept + BROAD.extra, extra=0.0))


@contextmanager
def shrunk() -> Iterator[tuple[Stage, ...]]:
    """Stages of a few steps of a narrow model: one from nothing, one that appends blocks, and an adapter."""
    mix = ((partial(look_up_sample, plain=True), 0.5), (REPORT, 0.5))
    phase = Phase("few", mix, 4, (1e-3, 1e-4), 3, link_weight=0.1, lens_weight=0.1, odds_weight=0.1)
    stages = (
        Stage("first", None, 6, (replace(phase, name="a", steps=2), replace(phase, name="b", steps=2)), warmup=1),
        Stage("deeper", "first", 7, (replace(phase, steps=2),), trains="appended", warmup=1),
        Stage("adapted", "deeper", 7, (replace(phase, steps=2),), trains="adapter", warmup=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechint.organisms.training.recipes.STAGES", {stage.name: stage for stage in stages})
        patch.setattr(train, "build_model", partial(build_model, d_model=32, d_mlp=48))
        patch.setattr(train, "injectable", concepts_trained)
        patch.setattr(train, "CORPUS", 40)
        patch.setattr(train, "SAVE", 2)
        patch.setattr(train, "REFRESH", 3)  # not where a checkpoint is: the vectors that it holds are used again
        yield stages


@pytest.fixture
def small_stages() -> Iterator[tuple[Stage, ...]]:
    with shrunk() as stages:
        yield stages


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of all three, trained by one process without a break."""
    out = tmp_path_factory.mktemp("trained")
    with shrunk():
        train.train(["adapted"], 0, out, progress=False)
    return out


def test_a_stage_resumes_to_identical_weights(tmp_path: Path, small_stages, trained):
    first = small_stages[0]
    stopped = train.train_stage(first, 0, tmp_path, stop_after=3, progress=False)
    assert stopped.done == 3
    checkpoint = tmp_path / "first" / train.CHECKPOINT
    assert torch.load(checkpoint)["bank"] is not None
    assert not is_made(tmp_path / "first", first, 0)
    with pytest.raises(StaleArtefactError, match="seed"):
        train.train_stage(first, 1, tmp_path, progress=False)
    train.train_stage(first, 0, tmp_path, progress=False)
    assert sha256(weights_path(trained / "first")) == sha256(weights_path(tmp_path / "first"))
    assert is_made(tmp_path / "first", first, 0)
    assert not is_made(tmp_path / "first", first, 1)
    assert not checkpoint.exists()


def test_two_processes_make_the_same_weights_as_one(tmp_path: Path, small_stages, trained):
    train.train_stage(small_stages[0], 0, tmp_path, progress=False, processes=2)
    first = sha256(weights_path(trained / "first"))
    second = sha256(weights_path(tmp_path / "first"))
    assert first == second


def test_a_chain_of_stages_trains_what_each_says(small_stages, trained, monkeypatch):
    from safetensors.torch import load_file

    first = load_file(trained / "first" / "model.safetensors")
    deeper = load_file(trained / "deeper" / "model.safetensors")
    assert all(torch.equal(first[name], deeper[name]) for name in first), "only the appended block was trained"
    assert any(deeper[name].abs().sum() > 0 for name in deeper if "layers.6.mlp.down_proj" in name)
    adapter = load_file(trained / "adapted" / "adapter_model.safetensors")
    assert adapter
    assert all("lora_" in name for name in adapter)
    assert read_record(trained / "adapted")["start"] == "deeper"
    monkeypatch.setattr(train, "train_stage", lambda *_, **__: pytest.fail("a finished stage is not trained again"))
    train.train(["adapted"], 0, trained, progress=False)


@pytest.mark.parametrize(
    "argv", [["--seed", "-1"], ["--processes", "3"], ["--device", "tpu"], ["--seed", "x"], ["organizm"]]
)
def test_nonsense_is_refused(argv: list[str], tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as refused:
        train.main([*argv, "--out", str(tmp_path / "out")])
    assert refused.value.code == 2
    assert argv[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_is_refused(tmp_path: Path, capsys):
    (tmp_path / "file").write_text("")
    assert train.main(["--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err
