"""Calls as a user writes them, which strict type checkers accept: ``mypy --strict`` and pyright. Nothing runs this."""

import numpy as np
import numpy.typing as npt

import fastrelu


def forward(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    y: npt.NDArray[np.float32] = fastrelu.relu(x)
    y = fastrelu.leaky_relu(x, 0.2, out=y)
    y = fastrelu.leaky_relu(x, negative_slope=np.full(3, 0.1), where=x < 3, target="parallel")
    fastrelu.relu_(y)
    return fastrelu.relu_backward_(np.ones_like(x), x, at_zero=0.5)


def around() -> str:
    with fastrelu.configure(target="serial", parallel_min_bytes=1 << 20):
        said = fastrelu.explain(fastrelu.relu, np.ones(3))
    fastrelu.warmup([fastrelu.relu, "leaky_relu"], ["float32"])
    fastrelu.show_config()
    ufunc: np.ufunc = fastrelu.ufuncs.relu
    return f"{said.target} {said.store} {said.refused.get('cuda')} {ufunc.nin} {fastrelu.__version__}"
