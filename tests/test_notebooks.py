"""The notebooks are kept without outputs, run anywhere offline on the embedded models, and show what they promise."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import numpy as np
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

import mechint as mi
from mechint.base import errors

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = {
    "quickstart",
    "protocol",
    "your_own_model",
    "reading_the_lens",
    "model_swap",
    "sae_features",
    "what_training_changed",
}
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
OPTIONAL = 'if mi.is_installed("smollm2")'  # what is run where a real model can be had
DRAWS = re.compile(r"\bmi\.(plot|figures\.(?!\w*(Panel|Scale|notice)\b)\w+|explorer\.draw)\(")
BARS = re.compile(r"\bmi\.score\([^)]*progress=True\)")  # others may be done before a bar is shown
EXPLORES = "mi.explorer.explore("
FAILS = "raises-exception"
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags_of(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def figures_of(cell: NotebookNode) -> list[NotebookNode]:
    return [output.data[PLOTLY] for output in cell.outputs if PLOTLY in output.get("data", {})]


def kernel(profile: Path) -> type[AsyncKernelManager]:
    """Kernels of the running Python and of this mechint, whatever kernels and profiles the machine has."""
    argv = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
    env = {
        "PYTHONPATH": os.pathsep.join([str(Path(mi.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]),
        "IPYTHONDIR": str(profile),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=argv, env=env, display_name="here", language="python")

    return ThisPython


class Client(NotebookClient):
    """Takes no part in widgets: what nbclient sends for them can cost it a reply, and then it waits for the timeout."""

    def on_comm_open_jupyter_widget(self, msg: dict[str, object]) -> None:
        return None


Run = Callable[[NotebookNode, Path], NotebookNode]
Executed = Callable[[Path], NotebookNode]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """What executes a notebook in a directory; raises for a cell that fails without saying that it will.

    One kernel executes all, since each would import for ten seconds. No notebook has a name of the one before it.
    """
    fresh = kernel(tmp_path_factory.mktemp("profile"))
    kernels = [fresh()]

    def stop() -> None:
        if kernels[-1].has_kernel:
            run_sync(kernels[-1].shutdown_kernel)(now=True)

    def execute(notebook: NotebookNode, where: Path) -> NotebookNode:
        afresh = new_code_cell(f"__import__('os').chdir({str(where)!r})\n%reset -f")  # which looks where it is
        client = Client(new_notebook(cells=[afresh, *notebook.cells]), timeout=300, km=kernels[-1])
        try:
            return new_notebook(cells=client.execute(cwd=str(where)).cells[1:])
        except Exception:
            stop()  # it may not answer any more
            kernels.append(fresh())
            raise
        finally:
            if client.kc is not None:
                client.kc.stop_channels()

    yield execute
    stop()


@pytest.fixture(scope="module")
def executed(run: Run) -> Executed:
    """What executes a notebook once for all tests, in an empty directory that stays empty."""

    @cache
    def once(path: Path) -> NotebookNode:
        with TemporaryDirectory() as where:
            done = run(nbformat.read(path, as_version=4), Path(where))
            assert not list(Path(where).iterdir()), "a notebook leaves nothing where it was started"
        return done

    return once


def test_all_notebooks_are_there_and_their_links_lead_somewhere():
    assert {path.stem for path in NOTEBOOKS} == NAMES
    for path in NOTEBOOKS:
        text = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("http") or (FOLDER / link).exists(), f"{path.name}: {link}"


@every_notebook
def test_notebooks_are_kept_clean(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    advice = f"jupyter nbconvert --clear-output --inplace {path}"
    for cell in code_of(notebook):
        assert cell.outputs == [], advice
        assert cell.execution_count is None, advice
        assert not set(cell.metadata) - {"tags"}, advice
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata.language_info) == {"name"}, advice


@every_notebook
def test_notebooks_run_and_show_their_figures(path: Path, executed: Executed):
    for cell in code_of(executed(path)):
        is_skipped = OPTIONAL in cell.source and not mi.is_installed("smollm2")
        if DRAWS.search(cell.source) and not is_skipped:
            assert figures_of(cell), cell.source
        if EXPLORES in cell.source or BARS.search(cell.source):
            assert any(WIDGET in output.get("data", {}) for output in cell.outputs)
        assert not [output.text for output in cell.outputs if output.get("name") == "stderr"], cell.source
    drawn = [figure for cell in code_of(executed(path)) for figure in figures_of(cell)]
    assert drawn
    assert all(any(_values(trace) for trace in figure["data"]) for figure in drawn)


def _values(trace: dict[str, object]) -> int:
    """How many finite values a trace draws; Plotly packs arrays as base64."""
    values = trace.get("z", trace.get("y"))
    if isinstance(values, dict):
        return len(values["bdata"])
    flat = np.ravel(np.array(values if values is not None else [], dtype=object))
    return sum(value is not None and np.isfinite(float(value)) for value in flat)


@every_notebook
def test_each_figure_is_introduced_and_explained(path: Path, executed: Executed):
    cells = executed(path).cells
    for at, cell in enumerate(cells):
        if cell.cell_type == "code" and figures_of(cell) and EXPLORES not in cell.source:
            before = next(other.source for other in reversed(cells[:at]) if other.cell_type == "markdown")
            after = next(other.source for other in cells[at:] if other.cell_type == "markdown")
            assert "look at" in before.lower(), cell.source
            assert "It shows" in after, cell.source


@every_notebook
def test_what_is_meant_to_fail_fails_with_an_error_of_ours(path: Path, executed: Executed):
    for cell in code_of(executed(path)):
        raised = [output for output in cell.outputs if output.output_type == "error"]
        assert len(raised) == (FAILS in tags_of(cell)), cell.source
        for error in raised:
            assert issubclass(getattr(errors, error.ename), errors.MechintError)
            assert "allowed:" in error.evalue
            assert "to do:" in error.evalue


def test_the_first_figure_takes_less_than_twenty_lines(executed: Executed):
    lines = 0
    for cell in code_of(executed(FOLDER / "quickstart.ipynb")):
        lines += sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in cell.source.splitlines())
        if figures_of(cell):
            break
    assert 0 < lines < 20


def test_your_own_model_takes_a_checkpoint_directory(tiny_checkpoint: Callable[..., Path], tmp_path: Path, run: Run):
    notebook = nbformat.read(FOLDER / "your_own_model.ipynb", as_version=4)
    cell = code_of(notebook)[0]
    for usual, ours in (('"organism"', repr(str(tiny_checkpoint("llama")))), (', "music", "rivers"', "")):
        assert usual in cell.source
        cell.source = cell.source.replace(usual, ours)
    done = run(notebook, tmp_path)
    assert sum(len(figures_of(cell)) for cell in code_of(done)) == 3
