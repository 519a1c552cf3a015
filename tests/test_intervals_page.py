"""The page on intervals is that of the measurements, and these say what the library promises."""

from __future__ import annotations

import json

from benchmarks import coverage, intervals_page, resampling
from benchmarks.common import RESULTS

RESULT = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))
ROUNDING = 0.5  # points, about the standard error of the measurements


def test_page_and_result_agree():
    assert intervals_page.PAGE.read_text(encoding="utf-8") == intervals_page.page(RESULT)


def test_the_measured_intervals_cover_what_they_promise():
    for name, row in RESULT["means"].items():
        shape, units = name.rsplit(", ", 1)
        if shape == "normal" and int(units) >= 6:
            assert 93 <= row["mechint"] <= 97 + ROUNDING, name
        if int(units) >= 8:
            assert row["mechint"] >= 92 - ROUNDING, name
    assert RESULT["means"]["normal, 8"]["percentiles"] < 90
    for shape, row in RESULT["differences"].items():
        same = {
            sizes: share
            for sizes, share in row.items()
            if "spread" not in sizes and min(map(int, sizes.split(" and "))) >= 8
        }
        assert min(same.values()) >= 92 - ROUNDING, shape


def test_a_small_measurement_has_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "FEW", ("normal",))
    monkeypatch.setattr(coverage, "SHAPES", {"normal": coverage.SHAPES["normal"]})
    monkeypatch.setattr(resampling, "RESAMPLES", 50)
    tables, _ = coverage.measure(tmp_path, 16)
    for table in ("means", "differences", "crossed", "bands"):
        for name, row in tables[table].items():
            assert list(row) == list(RESULT[table][name])
