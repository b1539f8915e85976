"""`examples/first_look.ipynb` runs from top to bottom on a live release, and is kept without its outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from leadre.settings import Settings
from tests.live_world import make_live_world, serve_everybody

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "first_look.ipynb"


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(applied: Settings, environment: dict[str, str], tmp_path: Path) -> None:
    made = make_live_world(applied)
    serve_everybody(made)
    ran = tmp_path / "ran.ipynb"
    run = (
        "import sys, nbformat; from nbclient import NotebookClient; notebook = nbformat.read(sys.argv[1], 4); "
        "NotebookClient(notebook, timeout=120, kernel_name='python3').execute(); nbformat.write(notebook, sys.argv[2])"
    )
    env = {**environment, "LEADRE_DATABASE_URL": applied.database_url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env |= {"IPYTHONDIR": str(tmp_path / "ipython"), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    done = subprocess.run(
        [sys.executable, "-c", run, str(NOTEBOOK), str(ran)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    cells = [cell for cell in nbformat.read(ran, 4).cells if cell.cell_type == "code"]
    shown = [output for cell in cells for output in cell.outputs]
    assert f"release r1: {len(made.world.ads)} ads" in "".join(output.get("text", "") for output in shown)
    kinds = [kind for output in shown for kind in output.get("data", ())]
    assert kinds.count("image/png") == 2
    assert kinds.count("text/html") == 8


def test_it_is_kept_without_outputs() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
