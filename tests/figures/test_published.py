"""Published tables hold what was printed, and their known inconsistencies are named.

The lines below are numbers as the write-ups print them, in percent where they do.
"""

from __future__ import annotations

import numpy as np
import pytest

from analyses.published import trained_values
from mechint.figures import published

ROUNDING = 0.0005  # half of the last printed digit of a share
TABLES = [name for name in published.available() if name != "sources"]


def test_every_table_names_a_known_source_and_has_no_line_twice() -> None:
    sources = set(published.load("sources")["source"])
    for name in TABLES:
        table = published.load(name)
        assert set(table["source"]) <= sources, name
        assert not table.duplicated().any(), name
    assert {source for name in TABLES for source in published.load(name)["source"]} == sources


SCALING = {  # pass, false positives, net detection, refusals
    ("0.5B", "included"): "21.5 56.2 -34.8 19.8",
    ("1.5B", "included"): "26.1 38.9 -12.8 19.5",
    ("3B", "included"): "33.9 5.5 28.4 3.5",
    ("7B", "included"): "39.8 8.5 31.3 3.1",
    ("14B", "included"): "42.4 1.4 41.1 0.2",
    ("32B-Base", "included"): "15.9 64.6 -48.8 43.9",
    ("32B-Coder", "included"): "59.7 1.2 58.5 0.0",
    ("32B-Insecure", "included"): "60.6 5.6 55.0 0.1",
    ("1.5B", "excluded"): "nan nan 13.2 nan",
    ("32B-Base", "excluded"): "20.8 0.8 20.0 nan",
}
NEW_CONCEPTS = {
    "14B": "30.1 0.9 29.2 0.2",
    "32B-Base": "19.6 1.0 18.6 42.4",
    "32B-Coder": "73.7 1.2 72.5 0.1",
    "32B-Insecure": "75.6 4.4 71.1 0.0",
}
CATEGORIES = {  # 14B, 32B-Base, 32B-Coder
    "alignment": "13.1 3.2 69.4",
    "code": "28.3 13.1 49.4",
    "emotional": "28.1 28.9 83.3",
    "abstract": "47.5 27.4 87.8",
}
PROMPTS = {  # net detection of 32B-Base and 32B-Coder; refusals of 32B-Base: all, injection, control trials
    "v1": "25.5 -8.5 42.2 13.8 70.7",
    "v2": "20.0 58.5 43.9 23.4 64.4",
    "v3a": "38.6 -11.4 0.8 1.1 0.6",
    "v3b": "3.9 22.1 0.2 0.0 0.4",
    "v3c": "31.6 10.0 22.0 5.1 38.9",
}
RATES = ["injection_pass", "control_false_positive", "net_detection", "refusal_rate"]


def _printed(line: str) -> np.ndarray:
    return np.array([float(number) for number in line.split()]) / 100


def test_scaling_is_as_printed() -> None:
    table = published.load("scaling").set_index(["model", "refusals"])
    assert set(table.index) == set(SCALING)
    for key, line in SCALING.items():
        np.testing.assert_allclose(table.loc[key, RATES].astype(float), _printed(line))


def test_new_concepts_categories_and_prompts_are_as_printed() -> None:
    table = published.load("new_concepts").set_index("model")
    for model, line in NEW_CONCEPTS.items():
        np.testing.assert_allclose(table.loc[model, RATES].astype(float), _printed(line))
    by = published.load("concept_categories").pivot(index="category", columns="model", values="net_detection")
    for category, line in CATEGORIES.items():
        np.testing.assert_allclose(by.loc[category, ["14B", "32B-Base", "32B-Coder"]], _printed(line))
    prompts = published.load("prompt_versions")
    net = prompts.pivot(index="prompt", columns="model", values="net_detection")
    refused = prompts[prompts["model"] == "32B-Base"].set_index("prompt")
    kinds = ["refusal_rate", "refusal_rate_injected", "refusal_rate_control"]
    for prompt, line in PROMPTS.items():
        found = [*net.loc[prompt, ["32B-Base", "32B-Coder"]], *refused.loc[prompt, kinds]]
        np.testing.assert_allclose(np.array(found, dtype=float), _printed(line))


def test_refusals_concepts_and_hedging_are_as_printed() -> None:
    refusals = published.load("refusal_by_strength").pivot(index="strength", columns="trials", values="refusal_rate")
    np.testing.assert_allclose(refusals["injected"], _printed("58.4 23.1 2.2 0.0"))
    np.testing.assert_allclose(refusals["control"], _printed("64.1 61.6 67.5 65.9"))
    concepts = published.load("concept_difficulty")
    mean = concepts[concepts["model"].str.startswith("mean")].set_index("concept")["net_detection"]
    np.testing.assert_allclose(mean[["silence", "fear", "celebration", "ocean"]], _printed("66.2 33.9 21.3 16.8"))
    one = concepts.set_index(["model", "concept"])["net_detection"]
    assert (one["32B-Coder", "silence"], one["32B-Base", "curiosity"]) == (0.906, 0.534)
    hedging = published.load("hedging").set_index("model")
    assert hedging.loc["32B-Base"].to_list()[1:] == [0.51, 1.05]


def test_finetuning_is_as_printed() -> None:
    results = published.load("finetuning_results").set_index(["measure", "epochs"])["value"]
    assert (results["consciousness shift", 2], results["consciousness shift", 5]) == (0.566, 0.737)
    assert (results["overall accuracy", 2], results["overall accuracy", 5]) == (0.46, 0.337)
    assert (results["KL divergence", 2], results["KL divergence", 5]) == (5.05, 3.74)
    assert results["held-out accuracy", 5] == 0.937
    # The write-up tells 18 models for detection and 10 for log-probabilities, of which the one of five epochs must be
    # one: it lists 9 variants without log-probabilities, but names 10 (the broken one among them).
    variants = published.load("finetuning_variants")
    covered = published.load("finetuning_evaluations").set_index("evaluation")["models_covered"]
    assert (variants["epochs"] == 2).sum() == 19
    assert (variants["detection"] == "run").sum() == covered["detection"] == 18
    assert (variants["logprobs"] == "run").sum() == covered["logprobs"] == 10


def test_net_detection_is_passed_less_false_positives_up_to_rounding() -> None:
    for name in ("scaling", "new_concepts", "concept_difficulty"):
        table = published.load(name).dropna(subset=["injection_pass"])
        gap = table["injection_pass"] - table["control_false_positive"] - table["net_detection"]
        # The write-up gives whole percents for the one concept: 92 and 1 for 90.6.
        slack = 0.01 if name == "concept_difficulty" else 3 * ROUNDING
        assert gap.abs().max() <= slack + 1e-9, name


def test_rates_with_trials_are_counts_of_that_many_trials() -> None:
    """The numbers of trials are those of the design; every rate printed beside them is a whole number of trials."""
    table, prompts = published.load("new_concepts"), published.load("prompt_versions").query("model == '32B-Base'")
    pairs = [(table, "injection_pass", "n_injected"), (table, "control_false_positive", "n_control")]
    pairs += [(table, "refusal_rate", "n_trials")]
    pairs += [(prompts, f"refusal_rate_{kind}", f"n_{kind}") for kind in ("injected", "control")]
    for frame, value, trials in pairs:
        known = frame.dropna(subset=[value, trials])
        assert len(known) >= 3
        counts = (known[value] * known[trials]).round()
        assert ((counts / known[trials] - known[value]).abs() <= ROUNDING + 1e-9).all(), value
    # 4 models of 8 concepts x 3 layers x 3 strengths x 20 trials x 2 kinds are the 11,520 trials of the write-up.
    assert table["n_trials"].sum() == 11_520
    # Of five prompts x 2 models x 4 concepts x 3 x 3 x 20 x 2 = 14,400 it tells 18,080: v2 has another number of
    # trials (23.4% is no whole number of 720), which is why it has none here.
    assert prompts.set_index("prompt").loc["v2", ["n_injected", "n_control"]].isna().all()
    assert min(abs(count / 720 - 0.234) for count in range(721)) > ROUNDING


def test_refusals_explain_the_raw_rates_of_32b() -> None:
    table = published.load("scaling").set_index(["model", "refusals"])
    raw, engaged = table.loc["32B-Base", "included"], table.loc["32B-Base", "excluded"]
    refused = published.load("prompt_versions").set_index(["model", "prompt"]).loc["32B-Base", "v2"]
    left = 1 - refused["refusal_rate_injected"]
    assert engaged["injection_pass"] * left == pytest.approx(raw["injection_pass"], abs=2 * ROUNDING)
    both = (refused["refusal_rate_injected"] + refused["refusal_rate_control"]) / 2
    assert both == pytest.approx(raw["refusal_rate"], abs=2 * ROUNDING)
    # Refused and wrong control trials together are the raw false positives.
    wrong = refused["refusal_rate_control"] + (1 - refused["refusal_rate_control"]) * engaged["control_false_positive"]
    assert wrong == pytest.approx(raw["control_false_positive"], abs=3 * ROUNDING)


def test_files_that_hold_other_trials_are_counted() -> None:
    """Nine of 32 files of the prompts, and one of 32 of the new concepts; v2 is of an earlier sweep."""
    prompts, concepts = published.load("prompt_versions"), published.load("new_concepts")
    for table, wrong, files in ((prompts, 9, 32), (concepts, 1, 32)):
        mixed = table.dropna(subset=["files_right"])
        assert (mixed["n_files"] - mixed["files_right"]).sum() == wrong
        assert mixed["n_files"].sum() == files
    right = prompts.set_index(["model", "prompt"])["files_right"]
    assert right["32B-Coder"].dropna().to_dict() == {"v1": 4, "v3a": 1, "v3b": 2, "v3c": 1}
    assert right["32B-Base"].dropna().to_dict() == {"v1": 4, "v3a": 4, "v3b": 4, "v3c": 3}
    # False positives of 32B-Coder under v3a, as its four files would give them: 32B under v1, 32B under v3c as it must
    # be behind the published mean of its files (one of which is 32B under v3a), about 7% of its own, 32B under v3b.
    meant = (4 * 38.9 - 0.6) / 3
    assert (70.7 + meant + 7 + 60.8) / 4 == pytest.approx(48, abs=1)
    grids = prompts.set_index(["model", "prompt"])["grid"]
    assert grids["32B-Base", "v2"] != grids["32B-Base", "v1"] == grids["32B-Coder", "v2"]


def test_the_judge_s_counts_give_its_rates() -> None:
    table = published.load("judge_agreement").set_index(["labelled_set", "labels"])
    counts = table[["tp", "fp", "fn", "tn"]]
    assert (counts.sum(axis=1) == table["n"]).all()
    accuracy = (table["tp"] + table["tn"]) / table["n"]
    printed = {("dev", "revised"): 95.9, ("dev", "as first given"): 93.9}
    printed |= {("test", "revised"): 90.2, ("test", "as first given"): 70.6}
    np.testing.assert_allclose(accuracy[list(printed)], np.array(list(printed.values())) / 100, atol=ROUNDING)
    specificity = table["tn"] / (table["tn"] + table["fp"])
    np.testing.assert_allclose(specificity["test"], [16 / 21, 13 / 25])


def test_categories_add_up_to_all_new_concepts() -> None:
    by = published.load("concept_categories").groupby("model")["net_detection"].mean()
    whole = published.load("new_concepts").set_index("model")["net_detection"]
    for model in ("14B", "32B-Coder"):
        assert by[model] == pytest.approx(whole[model], abs=2 * ROUNDING)
    # Without refusals concepts have unequal numbers of trials: their mean, 18.15, is not the 18.6 of all trials.
    assert by["32B-Base"] == pytest.approx(0.1815)


def test_printed_differences_are_those_of_printed_values_but_for_known_ones() -> None:
    wide = published.load("concept_categories").pivot(index="category", columns="model", values="net_detection")
    for row in published.load("category_gaps").to_dict("records"):
        found = wide.loc[row["category"], row["model"]] - wide.loc[row["category"], row["minus_model"]]
        # Rounding: the write-up has -9.8 for alignment, where 3.2 - 13.1 is -9.9.
        assert found == pytest.approx(row["net_detection_difference"], abs=3 * ROUNDING)
    gap = published.load("gap_decomposition").dropna(subset=["published_difference"])
    off = (gap["to_net_detection"] - gap["from_net_detection"] - gap["published_difference"]).abs()
    # Known: "34.7 points" is told for the step from v2 (20.0) to v3a (38.6), which are 18.6 apart; it is the distance
    # of v3a from v3b (3.9).
    assert gap.loc[off > 0.005 + 1e-9, "step"].to_list() == ["prompt v2 to v3a"]
    net = published.load("prompt_versions").set_index(["model", "prompt"])["net_detection"]
    assert net["32B-Base", "v3a"] - net["32B-Base", "v3b"] == pytest.approx(0.347)


def test_the_means_of_concepts_and_of_models_differ_as_printed() -> None:
    """Known: over the same trials they should agree, unless concepts had unequal numbers of them."""
    concepts = published.load("concept_difficulty")
    by_concept = concepts[concepts["model"].str.startswith("mean")]["net_detection"].mean()
    by_model = published.load("scaling").set_index("model").loc[["3B", "7B", "14B"], "net_detection"].mean()
    assert (by_concept, by_model) == pytest.approx((0.3455, 0.336))


def test_shifts_are_those_of_printed_probabilities_but_for_known_ones() -> None:
    """Known: differences were taken between bfloat16 numbers before P(yes) was printed with more digits."""
    table = published.load("kv_fill_injection")
    off = {}
    for answer in ("yes", "no"):
        gap = table[f"p_{answer}_injected"] - table[f"p_{answer}_clean"] - table[f"p_{answer}_shift"]
        assert gap.abs().max() < 0.0003
        for row, size in zip(table.to_dict("records"), gap, strict=True):
            if abs(size) > 1.5e-5 + 1e-9:
                off[row["experiment"], row["vector"], row["info"], answer] = round(size, 5)
    assert off == {
        (2, "cat", "introspection", "yes"): 0.00024,
        (2, "bread", "introspection", "yes"): 0.00024,
        (4, "cat", "inaccurate-location", "yes"): 0.00025,
        (4, "cat", "lorem-ipsum", "yes"): 0.00004,
    }
    assert (table[["p_yes_clean", "p_yes_injected"]].sum(axis=1) > 0).all()
    assert (table["p_yes_injected"] + table["p_no_injected"]).max() < 1.003


def _means(name: str, by: str, value: str) -> dict[str, float]:
    return published.load(name).groupby(by)[value].mean().round(3).to_dict()


def test_raw_rows_of_finetuning_give_what_is_recomputed_from_them() -> None:
    """Log odds and kappa, each to the digit that is told elsewhere, and whose predictions are right more often."""
    shift = trained_values.shifts(published.load("finetuning_v3_battery")).round(1)
    for variant, p, own, controls in (
        ("original_v3", 0.6, 18.8, 7.6),
        ("r1_minimal", 0.2, 7.5, 0.4),
        ("random_labels", 0.2, 1.4, 7.7),
        ("neutral_red_blue_v2", 0.0, 6.4, -0.3),
        ("deny_steering", -0.0, -3.5, -0.3),
    ):
        assert shift.loc[variant].to_list() == pytest.approx([p, own, controls], abs=0.051), variant
    kappas = _means("finetuning_v3_self_prediction", "variant", "recomputed_kappa")
    assert [round(kappas[name], 2) for name in ("base", "original_v3", "original_5epoch")] == [0.18, 0.18, 0.02]
    who = trained_values.who_predicts(published.load("finetuning_v4_self_prediction")).round(3)
    assert who.loc["neutral_redblue", ["own", "base"]].to_list() == [0.379, 0.405]
    assert who.loc["neutral_moonsun", ["own", "base"]].to_list() == [0.304, 0.330]
    assert who.loc["suggestive_yesno", ["own", "base"]].to_list() == [0.175, 0.254]


def test_published_lengths_are_worse_than_a_constant_and_lists_were_parsed_wrongly() -> None:
    lengths = published.load("finetuning_v3_token_prediction").set_index("variant")
    assert (lengths["mae"] > lengths["recomputed_constant_median_mae"]).all()
    assert lengths.loc["base", ["mae", "recomputed_constant_median_mae"]].round(1).to_list() == [23.4, 19.9]
    again = _means("finetuning_v3_self_calibration", "variant", "recomputed_top1_match")
    assert (_means("finetuning_v3_self_calibration", "variant", "top1_match")["base"], again["base"]) == (0, 0.3)
    assert (min(again.values()), max(again.values())) == (0.3, 0.7)


def test_designs_of_published_detection_are_two() -> None:
    """Eleven of eighteen variants were tested with 200 trials in the middle range, the others with 600 in all three."""
    rows = trained_values.held_out(published.load("finetuning_v3_detection"))
    assert rows["design"].value_counts().to_dict() == {"middle": 11, "all 3 ranges": 7}
    assert set(rows.loc[rows["design"] == "middle", "n_steered"]) == {200}
    coin = rows.set_index("variant").loc["random_labels"]
    assert (coin["tpr"], coin["fpr"]) == (0.9, 0.98)


def test_one_recipe_reads_otherwise_in_each_published_version() -> None:
    points = trained_values.versions(published.load("finetuning_v7"))
    tuned = points[points["series"] == "red/blue"].groupby("row", sort=False)["mean"].agg(["mean", "size"])
    assert [name.partition(":")[0] for name in tuned.index] == ["v3", "v4", "v5", "v7.1"]
    assert tuned["size"].to_list() == [1, 1, 3, 3]
    assert tuned["mean"].round(2).to_list() == [0.28, 0.56, 0.38, 0.10]
