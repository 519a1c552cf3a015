"""Recipes: what they inherit, what differs, and what is refused before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import mechint as mi
from mechint.base.errors import LayerRangeError, TokenizationError, UnknownNameError, UsageError
from mechint.base.files import JSON
from mechint.finetune.axes import Answers
from mechint.finetune.pools import SPLITS, Pools
from mechint.finetune.registry import differs_in, load_recipe, recipe_names
from mechint.finetune.specification import Recipe
from mechint.organisms import organism_path

REFERENCE = "published/original"
# What a budget of its own is on an embedded model.
SHORTER = ("small.budget.epochs", "small.budget.read_at")
# What the published table says of each variant: its place, its differences from the one it inherits.
DIFFERENCES = {
    "published/r1-minimal": (2, {"lora.rank", "lora.alpha", "budget.epochs", "budget.read_at", *SHORTER}),
    "published/single-layer": (10, {"signal.layers", "signal.single"}),
    "published/deny-steering": (9, {"labels.rule", "budget.read_at", "small.budget.read_at"}),
    "published/original-5epoch": (20, {"budget.epochs", "small.budget.epochs"}),
    "published/original-10epoch": (
        21,
        {
            "budget.epochs",
            "budget.read_at",
            "budget.stopped_at",
            "small.budget.epochs",
            "small.budget.stopped_at",
        },
    ),
    "published/neutral-foo-bar": (15, {"answers.pairs", "small.answers.pairs"}),
    "matched/single-layer": (0, {"signal.layers", "signal.single"}),
    "matched/vague": (0, {"asking.bank"}),
    "matched/inverted": (0, {"labels.noise"}),
    "matched/odd-negative": (0, {"oddity.share"}),
    "matched/odd-text": (0, {"oddity.share", "signal.vectors", "labels.rule"}),
}


@pytest.fixture(scope="module")
def tokenizer() -> object:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(organism_path("organism"))


def written(folder: Path, name: str = "mine", **content: JSON) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, "title": "A recipe of a test", **content}))
    return path


def test_the_table_has_the_published_variants_in_their_order_and_says_how_each_differs() -> None:
    table = mi.finetune.recipes()
    published = table[table["published"]]
    assert list(published["number"]) == list(range(1, 22))
    assert set(table["name"]) == set(recipe_names())
    assert table["hash"].is_unique
    assert set(table.loc[table["differs_in"] == "", "name"]) == {REFERENCE, "matched/original"}
    row = table.set_index("name").loc["published/vague-prompt"]
    assert row["differs_in"].startswith(
        "asking.bank: explicit → vague; budget.epochs: 2.0 → 3.0; budget.read_at: best → 2200; small.budget.epochs"
    )


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_recipe_differs_in_what_its_file_says(name: str) -> None:
    number, differing = DIFFERENCES[name]
    assert load_recipe(name).number == number
    assert {text.split(":")[0] for text in differs_in(name)} == differing


@pytest.mark.parametrize("name", recipe_names())
def test_a_packaged_recipe_is_what_its_name_says_and_fits_the_embedded_vocabulary(name: str, tokenizer: object) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.is_published == name.startswith("published/")
    assert bool(recipe.stand_ins) >= recipe.is_published
    small = recipe.adapted(8, small=True)
    assert small.signal.relative or small.signal.vectors == "none"
    assert small.pools.name == "small"
    assert len(mi.finetune.check_tokens(small, tokenizer)) >= 2
    written_out = Recipe.from_dict(recipe.to_dict())
    assert (written_out, written_out.hash) == (recipe, recipe.hash)


def test_a_word_that_the_vocabulary_lacks_has_a_stand_in_that_is_named() -> None:
    for name in recipe_names():
        recipe = Recipe.load(name)
        if "answers" in recipe.small:
            (written_out,), (small,) = recipe.answer_sets("train"), recipe.adapted(8, small=True).answer_sets("train")
            named = " ".join(recipe.stand_ins)
            assert written_out == small or all(f'"{word}"' in named for word in (small[0], small[-1]))


def test_a_range_that_leaves_out_the_last_block_does_so_on_every_model() -> None:
    recipe = Recipe.load(REFERENCE)
    assert recipe.adapted(64).signal.layers == recipe.signal.layers
    for n_layers in range(4, 80):
        layers = recipe.adapted(n_layers).signal.layers
        assert layers[0].startswith("0:")
        assert int(layers[-1].split(":")[1]) == 63 * n_layers // 64 < n_layers
        assert [text.split(":")[1] for text in layers[:-1]] == [text.split(":")[0] for text in layers[1:]]
    with pytest.raises(LayerRangeError, match="no block is left"):
        recipe.adapted(2)


def test_absolute_doses_are_for_one_checkpoint() -> None:
    recipe = Recipe.load(REFERENCE)
    assert recipe.for_model("Qwen/Qwen2.5-Coder-32B-Instruct", 64) is recipe
    assert recipe.for_model("models/Qwen2.5-Coder-32B", 64).signal.relative
    assert recipe.for_model("organism", 8, "small").asking.pools == "small"
    with pytest.raises(UsageError, match="doses are for Qwen"):
        replace(recipe, elsewhere={}).for_model("organism", 8)


def test_a_file_inherits_from_packaged_recipes_and_from_files_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "first", inherits=REFERENCE, lora={"rank": 3})
    path = written(tmp_path, "second", inherits="first.json", budget={"epochs": 1})
    recipe = Recipe.load(path)
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.budget.epochs) == (3, 32, 1)
    assert not recipe.is_published
    assert differs_in(path) == ["budget.epochs: 2.0 → 1.0"]
    assert recipe.hash != Recipe.load(tmp_path / "first.json").hash


def test_the_hash_is_of_the_content_and_of_the_texts(tmp_path: Path) -> None:
    recipe = Recipe.load(REFERENCE)
    assert replace(recipe, name="another", title="", note="").hash == recipe.hash
    pools = json.loads((Path(mi.finetune.__file__).parent / "pools" / "full.json").read_text())
    pools["note"] = "The same texts, in a file that says something else."
    (tmp_path / "pools.json").write_text(json.dumps(pools))
    other = replace(recipe, asking=replace(recipe.asking, pools=str(tmp_path / "pools.json")))
    assert other.hash != recipe.hash


@pytest.mark.parametrize(
    ("bank", "changes"), [("unused", False), ("explicit", True), ("vague", False), ("hypothetical", False)]
)
def test_a_bank_that_a_recipe_does_not_use_is_not_in_its_hash(bank: str, changes: bool) -> None:
    content = json.loads((Path(mi.finetune.__file__).parent / "pools" / "full.json").read_text())
    content["banks"][bank] = {split: [f"A question, {split}? yes or no."] for split in SPLITS}
    recipe = replace(Recipe.load(REFERENCE), title="Of other pools")
    recipe.__dict__["pools"] = Pools.from_dict(content)
    assert (recipe.hash != Recipe.load(REFERENCE).hash) is changes


def test_recipes_in_a_circle_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "first", inherits="second.json")
    path = written(tmp_path, "second", inherits="first.json")
    with pytest.raises(UsageError, match=r"in a circle: .*second.json → .*first.json → .*second.json"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"inherits": "published/origin"}, "unknown name 'published/origin'"),
        ({"inherits": "missing.json"}, "missing.json"),
        ({}, "differs in nothing"),
        ({"lora": {"rank": 16}}, "differs in nothing"),
        ({"loras": {"rank": 3}}, "loras"),
        ({"lora": {"ranks": 3}}, "lora.ranks"),
        ({"lora": {"rank": "high"}}, "lora.rank"),
        ({"lora": {"rank": 0}}, "lora, rank=0"),
        ({"lora": {"layers": "60:65"}}, "layers '60:65' of 64"),
        ({"elsewhere": {"signl": {}}}, "signl"),
        ({"elsewhere": {"signal": {"dose": [9.0]}}}, "a dose of 9.0"),
        ({"small": {"signal": {"pool": 0}}}, "pool=0"),
        ({"signal": {"dose": [5.0, 2000.0]}}, "a dose of 2000.0"),
        ({"signal": {"dose": [-5.0]}}, "a dose of -5.0"),
        ({"signal": {"dose": [5.0, 5.0]}}, "one of them twice"),
        ({"signal": {"dose": []}}, "without layers, dose"),
        ({"signal": {"held_out_dose": [5.0]}}, "one of them twice"),
        ({"signal": {"layers": ["21:21"]}}, "layers '21:21'"),
        ({"signal": {"layers": ["21-42"]}}, "layers '21-42'"),
        ({"signal": {"layers": ["50:65"]}}, "at most 64"),
        ({"signal": {"layers": ["63:64"]}}, "reaches no cache"),
        ({"signal": {"share": 1.5}}, "share=1.5"),
        ({"signal": {"share": 1.0}}, "where all is"),
        ({"signal": {"vectors": "none"}}, "without vectors"),
        ({"signal": {"of_model": ""}}, "without the model that they are for"),
        ({"signal": {"concept_pairs": 3}}, "pairs of concepts without"),
        ({"signal": {"vectors": "concept", "pool": 500}}, "500 concepts"),
        ({"labels": {"noise": 1.1}}, "noise=1.1"),
        ({"labels": {"rule": "coin", "noise": 0.1}}, "noise in labels"),
        ({"labels": {"rule": "food"}}, "whether the topic is food"),
        ({"labels": {"rule": "concept"}}, "which concept"),
        ({"labels": {"rule": "meaningful"}}, "whether it was a concept, without both"),
        ({"labels": {"rule": "odd"}}, "whether the text is odd, where all is or none"),
        ({"labels": {"rule": "self"}}, "without questions to ask about"),
        ({"labels": {"rule": "self", "noise": 0.5}}, "noise in labels by rule 'self'"),
        ({"labels": {"rule": "layers"}, "signal": {"share": 1.0}}, "0 options for 3 answers"),
        ({"labels": {"rule": "sentence"}, "signal": {"share": 1.0}}, "sentences with labels by another rule"),
        ({"asking": {"sentences": 3}}, "sentences with labels by another rule"),
        ({"asking": {"objects": "neutral-choice"}}, "own answers"),
        ({"asking": {"bank": "hypothetical"}}, "objects=''"),
        ({"answers": {"options": [" yes", " no"]}}, "both pairs and options"),
        ({"answers": {"pairs": [], "options": [" yes", " no"]}}, "options with labels by rule 'steered'"),
        ({"answers": {"pairs": [], "options": [" yes"]}}, "one option"),
        ({"oddity": {"share": 0.5, "kinds": ["loud"]}}, "oddity, kinds"),
        ({"oddity": {"share": 0.5, "kinds": ["backwards"]}}, "one of them twice"),
        ({"oddity": {"share": -1}}, "oddity, share=-1"),
        ({"oddity": {"kinds": ["doubled"]}}, "kinds of oddity in no example"),
        ({"asking": {"openers": 999}}, "999 openers"),
        ({"asking": {"bank": "explicitly"}}, "unknown bank"),
        ({"asking": {"topics": ["weather"]}}, "unknown topic"),
        ({"asking": {"topics": []}}, "no topics"),
        ({"asking": {"pools": "fuller"}}, "unknown pools"),
        ({"asking": {"mapping": "balanced"}}, "which does not say it"),
        ({"asking": {"bank": "which-concept"}}, "with labels by rule 'steered'"),
        ({"asking": {"prefill": "The answer is "}}, "a space twice.*' yes'|' yes' comes with a space twice"),
        ({"asking": {"prefill": ""}}, "no prefill"),
        ({"answers": {"pairs": [["yes", "no"]]}}, "is glued to it"),
        ({"answers": {"pairs": [[" yes", " Yes"]]}}, "one of them twice"),
        ({"answers": {"pairs": [[" yes please", " no"]]}}, "the answer ' yes please'"),
        ({"answers": {"pairs": [["  yes", " no"]]}}, "the answer '  yes'"),
        ({"answers": {"pairs": [[" red", " blue"]]}}, r"\['red', 'blue'\] to a question that does not offer them"),
        ({"answers": {"held_out": [[" no", " maybe"]]}}, "one of them twice"),
        ({"answers": {"pool": 2}}, "both pairs and a pool"),
        ({"budget": {"steps": 10}}, "examples and epochs, or steps alone"),
        ({"budget": {"validation": 10000}}, "fewer"),
        ({"budget": {"stopped_at": 2251}}, "1 to 2250 steps"),
        ({"budget": {"learning_rate": 0.0}}, "learning rate"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_message(
    tmp_path: Path, content: dict[str, JSON], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        Recipe.load(written(tmp_path, **{"inherits": REFERENCE, **content}))


def test_unknown_names_are_never_replaced() -> None:
    with pytest.raises(UnknownNameError, match="published/original"):
        Recipe.load("original")
    with pytest.raises(UnknownNameError):
        Recipe.load("published/../published/original")


def test_answers_of_several_tokens_are_refused_with_a_spelling_that_fits(tokenizer: object) -> None:
    published = Recipe.load("published/neutral-red-blue")
    with pytest.raises(TokenizationError, match="' Red' is 2 tokens") as refused:
        mi.finetune.check_tokens(published, tokenizer)
    assert "' red'" in refused.value.advice
    with pytest.raises(TokenizationError, match="another word"):
        mi.finetune.check_tokens(Recipe.load("published/neutral-foo-bar"), tokenizer)


def test_answers_that_are_one_token_are_refused() -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["the", "answer", "is", "resume", "no"]
    bare = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="no"))
    bare.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    recipe = replace(
        Recipe.load("published/neutral-red-blue"), answers=Answers(pairs=((" resume", " r\u00e9sum\u00e9"),))
    )
    with pytest.raises(TokenizationError, match="that are the same token"):
        mi.finetune.check_tokens(recipe, PreTrainedTokenizerFast(tokenizer_object=bare))


@pytest.mark.parametrize(
    ("name", "scheduled", "steps"),
    [
        (REFERENCE, 2250, 2250),
        ("published/r1-minimal", 3375, 1600),
        ("published/food-control", 3375, 200),
        ("published/inverse-inference", 22, 22),
        ("published/original-10epoch", 11250, 9200),
    ],
)
def test_budgets_are_the_published_ones(name: str, scheduled: int, steps: int) -> None:
    budget = Recipe.load(name).budget
    assert (budget.scheduled, budget.steps_made, budget.rows) == (scheduled, steps, 8)


def test_matched_recipes_have_the_same_budget_dose_and_forms() -> None:
    original = Recipe.load("matched/original")
    for name in recipe_names():
        recipe = Recipe.load(name)
        if not name.startswith("matched/") or name == "matched/short":
            continue
        assert recipe.budget == original.budget
        assert (recipe.signal.dose, recipe.signal.dose_of) == (original.signal.dose, "sum")
    for bank in ("keyed-vague", "keyed-neutral", "keyed-food", "keyed-meaningful"):
        assert len(original.pools.wordings(bank, "train")) == len(original.wordings("train"))
