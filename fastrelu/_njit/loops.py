"""Loops over arrays inside the code of the caller, on its thread, with ordinary stores."""

import functools

from numba.core import cgutils

from .._kernels.emit import all_of, loop
from .._kernels.processor import WORD
from .arrays import is_equal, one_index


def fill(builder, formula, views, out, parameters=0):
    """Compute an output from views of its shape, the last of which are those of parameters.

    Iterations are independent, as `arrays.overlap` made sure. Saying so makes LLVM use SIMD also where the output is
    an input.
    """
    data, views = len(views) - parameters, [*views, out]
    elements = [view.element for view in views]
    dense_steps = [view.step for view in views]

    def run(operands, steps, n):
        loop(builder, elements, formula, operands, steps, n, independent=True)

    def run_row(outer):
        """Compute along the last axis, at an index into the others."""
        starts, strides, n = (
            [_start(builder, view, outer) for view in views],
            [v.strides[-1] for v in views],
            out.shape[-1],
        )
        dense = is_equal(builder, strides, dense_steps)
        with builder.if_else(all_of(builder, dense)) as (simd, rest):
            with simd:
                run(starts, dense_steps, n)  # constants, so that LLVM sees SIMD
            with rest:
                if not parameters:
                    run(starts, strides, n)
                    return
                # A slope per row is one number along it
                del dense[data:-1]
                still = is_equal(builder, strides[data:-1], [WORD(0)] * parameters)
                some = builder.icmp_signed(">", n, WORD(0))
                with builder.if_else(all_of(builder, [*dense, *still, some])) as (one, each):
                    with one:
                        numbers, steps = [*starts], [*dense_steps]
                        for k in range(data, data + parameters):
                            numbers[k], steps[k] = elements[k].load(builder, starts[k]), None
                        run(numbers, steps, n)
                    with each:
                        run(starts, strides, n)

    with builder.if_else(one_index(builder, views)) as (flat, rows):
        with flat:
            run([view.address for view in views], dense_steps, out.size(builder))
        with rows:
            if out.shape:
                with cgutils.loop_nest(builder, out.shape[:-1], WORD) as outer:
                    run_row(outer)


def _start(builder, view, outer):
    """Return where a row of a view begins."""
    offset = functools.reduce(builder.add, map(builder.mul, outer, view.strides[:-1]), WORD(0))
    return builder.gep(view.address, [offset])
