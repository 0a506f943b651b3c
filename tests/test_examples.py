"""The scripts in docs/examples run; each of them asserts what it claims, and prints what is looked for here."""

import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import fastrelu

FOLDER = Path(__file__).parents[1] / "docs" / "examples"

# What a script needs besides matplotlib, and what it prints
EXAMPLES = {
    "plot_activations": ([], r"ReLU at zero: +0\.0; with at_zero=0\.5: 0\.5\n.*Leaky ReLU at zero: 0\.1;"),
    "plot_bfloat16": (["ml_dtypes"], "gradients lost in float16: 56%, in bfloat16: 0%"),
    "plot_compiled_training": ([], r"compiled .* interpreted .* steps\n.* error of the fit: 0\.0"),
    "plot_dask_pipeline": (["dask", "distributed", "zarr"], "the results agree with NumPy's"),
    "plot_dying_relu": (["sklearn"], "ReLU, start at zero: 128 of 128 units never fire"),
    "plot_new_arrays": ([], r"10 results in 2 places\n.*given away: False\nonce the view is gone: True"),
    "plot_one_bit_training": (["sklearn"], r"input: 393,216 bytes .*\n.*mask: 12,288 bytes .*\nthe weights are equal"),
    "plot_sklearn_mlp": (["sklearn"], "the weights are equal"),
    "plot_trained_slopes": (
        ["sklearn"],
        r"fixed slope: loss 0\.\d.*\na slope for each unit: loss 0\.\d.*\nlearned slopes: ",
    ),
    "plot_two_layer_network": (["sklearn"], "the weights are equal"),
    "plot_without_activation": ([], r"without activation: [3-6]\d\.\d%.*\nwith ReLU: (9\d|100)\.\d%"),
}
# The arrays are small: more threads gain little, and where other processes keep the cores busy they cost minutes
ONE_THREAD = dict.fromkeys(["NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the tests run outside of the repository"),
]


def test_all_examples_are_known():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    needs, printed = EXAMPLES[name]
    for module in ["matplotlib", *needs]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    if name == "plot_compiled_training" and not entry_points(group="numba_extensions", name="init"):
        pytest.skip("needs fastrelu to be installed, for Numba to find it")
    root = Path(fastrelu.__file__).resolve().parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        # The filter is for plt.show(), which where there is a display warns that Agg does not use it
        [sys.executable, "-W", "error", "-W", "ignore:FigureCanvasAgg is non-interactive", FOLDER / f"{name}.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": path, "MPLBACKEND": "Agg"},
    )
    assert result.returncode == 0, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    assert re.search(printed, result.stdout), result.stdout
