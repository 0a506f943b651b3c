"""The functions with masks: bit for bit, in any layout, of any library, in order with other streams, from the host."""

import sys

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same, expected
from fastrelu._cuda import bitmask, cuda_driver, launch_cache, libraries, recognise, settings
from fastrelu._cuda.numba_cuda import SIMULATED
from fastrelu._operations import ROWS, UFUNCS

from . import fakes
from .data import FLOATS, MASKED, Guarded, bits_of, listed, masked_case, specials, to_device, view_of
from .test_layouts import VIEWS

SIZES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65)
CASES = [(name, code) for name in MASKED for code in FLOATS]
SLOPE = 0.3
BASE = specials("f", 6 * 5 * 7).reshape(6, 5, 7)
simulated = pytest.mark.skipif(not SIMULATED, reason="these arrays are in host memory")


def on_device(values):
    return [to_device(value) if isinstance(value, np.ndarray) else value for value in values]


def to_host(results):
    return [each.copy_to_host() if hasattr(each, "copy_to_host") else each for each in listed(results)]


def check(name, results, wanted, what=""):
    for found, value in zip(to_host(results), wanted, strict=True):
        assert_same(found, value, f"{name} {what}")


def run(name, x, slope=SLOPE, **kwargs):
    arguments, wanted = masked_case(name, x, slope)
    check(name, getattr(fastrelu, name)(*on_device(arguments), **kwargs), wanted, x.shape)


@pytest.mark.parametrize(("name", "code"), CASES)
def test_sizes(name, code, shape_of_launch):
    for n in SIZES:
        run(name, specials(code, n))


@pytest.mark.parametrize("code", "?bBhHiIlLqQ")
def test_integers(code, shape_of_launch):
    for n in (7, 8, 9, 47, 130):
        run("relu_with_mask", specials(code, n))
    x = specials(code, 21)
    y, mask = fastrelu.leaky_relu_with_mask(to_device(x), SLOPE)
    check("leaky_relu_with_mask", (y, mask), fastrelu.leaky_relu_with_mask(x, SLOPE))
    wide = to_device(np.zeros(21, "d"))
    assert fastrelu.relu_with_mask(to_device(x), out=wide)[0] is wide
    assert_same(wide.copy_to_host(), np.maximum(x, 0).astype("d"))


def test_all_functions_and_types_have_cases():
    assert {name for name, _ in CASES} == set(MASKED)
    assert set("?bBhHiIlLqQefd") == set(ROWS["relu_with_mask"].typecodes)


def test_the_kernels_of_operations_are_others():
    """Both kinds are kept in one cache, by tuples whose first item is the name."""
    assert not set(UFUNCS) & set(MASKED)


@pytest.mark.parametrize(("name", "code"), CASES)
@pytest.mark.parametrize("offset", range(8))
def test_any_alignment_and_nothing_else_is_written(name, code, offset, tiny_blocks):
    arguments, wanted = masked_case(name, specials(code, 37))
    guards = [Guarded(value, offset) for value in arguments if isinstance(value, np.ndarray)]
    given = [*(guard.array for guard in guards), *(each for each in arguments if not isinstance(each, np.ndarray))]
    outputs = {"out": Guarded(np.zeros(37, code), offset)}
    if name.endswith("with_mask"):
        outputs["mask_out"] = Guarded(np.full(5, 255, np.uint8), offset)
    results = getattr(fastrelu, name)(*given, **{key: guard.array for key, guard in outputs.items()})
    for result, guard in zip(listed(results), outputs.values(), strict=True):
        assert result is guard.array
    check(name, results, wanted)
    twin = getattr(fastrelu, name + "_")(*given)
    if name.endswith("with_mask"):
        check(name, (given[0], twin), wanted)
    else:
        assert twin is given[0]
        check(name, twin, wanted)
    for guard in (*guards, *outputs.values()):
        guard.check()


@pytest.mark.parametrize("code", FLOATS)
def test_operands_that_are_not_aligned_alike(code, tiny_blocks):
    (grad, mask, slope), (wanted,) = masked_case("leaky_relu_backward_from_mask", specials(code, 37))
    guards = Guarded(grad, 1), Guarded(mask, 2), Guarded(np.zeros(37, code), 3)
    grad, mask, out = (guard.array for guard in guards)
    fastrelu.leaky_relu_backward_from_mask(grad, mask, slope, out=out)
    assert_same(out.copy_to_host(), wanted)
    for guard in guards:
        guard.check()


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("view", VIEWS)
def test_views(name, view, tiny_blocks):
    take = VIEWS[view]
    arguments, wanted = masked_case(name, take(BASE))
    before, after = np.full_like(BASE, 9), np.full_like(BASE, 9)
    take(before)[...], take(after)[...] = arguments[0], wanted[0]
    data, out, rest = to_device(before), to_device(np.full_like(BASE, 9)), on_device(arguments[1:])
    check(name, getattr(fastrelu, name)(view_of(data, take), *rest), wanted)
    results = getattr(fastrelu, name)(view_of(data, take), *rest, out=view_of(out, take))
    check(name, (out, *listed(results)[1:]), [after, *wanted[1:]])
    getattr(fastrelu, name + "_")(view_of(data, take), *rest)
    assert_same(data.copy_to_host(), after)


def test_negative_strides(tiny_blocks):
    x = BASE[::-1, :, ::-2]
    found = fastrelu.leaky_relu_with_mask(view_of(to_device(BASE), lambda a: a[::-1, :, ::-2]), SLOPE)
    check("leaky_relu_with_mask", found, masked_case("leaky_relu_with_mask", x)[1])


@simulated
def test_a_broadcast_input(tiny_blocks):
    x = np.broadcast_to(specials("f", 7), (5, 7))
    check("relu_with_mask", fastrelu.relu_with_mask(fakes.Interface(x)), masked_case("relu_with_mask", x)[1])
    x, slope = np.broadcast_to(np.float32(-2), 37), np.linspace(1, 2, 37, dtype="f")
    found = fastrelu.leaky_relu_with_mask(fakes.Interface(x), fakes.Interface(slope))
    check("leaky_relu_with_mask", found, masked_case("leaky_relu_with_mask", x, slope)[1])


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 7, 8, 9, 16, 20])
@pytest.mark.parametrize("name", MASKED)
def test_rows_that_end_within_bytes(name, columns, tiny_blocks):
    whole = specials("f", 7 * (columns + 1)).reshape(7, columns + 1)
    arguments, wanted = masked_case(name, whole[:, :columns])
    device = to_device(np.hstack([arguments[0], np.zeros((7, 1), "f")]))[:, :columns]
    check(name, getattr(fastrelu, name)(device, *on_device(arguments[1:])), wanted)


@pytest.mark.parametrize("shape", [(7,), (5, 1), (6, 1, 1), (1,), (), (1, 5, 7), (6, 5, 7)])
def test_a_slope_per_channel(shape, tiny_blocks):
    slope = np.linspace(-2, 2, int(np.prod(shape, dtype=int)), dtype="f").reshape(shape)
    run("leaky_relu_with_mask", BASE, slope)
    run("leaky_relu_backward_from_mask", BASE, slope)


def test_transposed_slopes(tiny_blocks):
    slopes = np.linspace(-2, 2, 35, dtype="f").reshape(7, 5)
    device = view_of(to_device(slopes), np.transpose)
    wanted = masked_case("leaky_relu_with_mask", BASE, slopes.T)[1]
    check("leaky_relu_with_mask", fastrelu.leaky_relu_with_mask(to_device(BASE), device), wanted)


def test_more_axes_than_other_kernels_have(tiny_blocks):
    x = specials("f", 3**7).reshape((3,) * 7)[(slice(None, None, 2),) * 7]
    whole = to_device(np.ascontiguousarray(np.pad(x, [(0, 1)] * 7)))[(slice(0, 2),) * 7]
    check("relu_with_mask", fastrelu.relu_with_mask(whole), masked_case("relu_with_mask", x)[1])


def test_masks_with_gaps(tiny_blocks):
    x = specials("f", 100)
    memory = np.full(26, 99, np.uint8)
    device = to_device(memory)
    y, _ = fastrelu.relu_with_mask(to_device(x), mask_out=device[::2])
    memory[::2] = bits_of(x)
    assert_same(device.copy_to_host(), memory)
    assert_same(y.copy_to_host(), expected("relu", (x,), "f"))
    found = fastrelu.relu_backward_from_mask(to_device(x[::-1].copy()), device[::2])
    assert_same(found.copy_to_host(), expected("relu_backward", (x[::-1], x, 0.0), "f"))


@pytest.mark.parametrize("code", "ed")
@pytest.mark.parametrize("slope", [0.0, -0.0, 2.5, -1.0, np.inf, np.nan, 1e300, 3])
def test_any_slope(code, slope, tiny_blocks):
    run("leaky_relu_with_mask", specials(code, 29), slope)
    run("leaky_relu_backward_from_mask", specials(code, 29), slope)


def test_a_dead_unit_is_a_selection(tiny_blocks):
    grad = np.array([np.inf, -np.inf, np.nan, -1, 3], "f")
    found = fastrelu.relu_backward_from_mask(to_device(grad), to_device(np.array([16], np.uint8)))
    assert_same(found.copy_to_host(), np.array([0, 0, 0, 0, 3], "f"))


@pytest.mark.parametrize(("code", "other"), [("e", "f"), ("f", "d"), ("e", "d"), ("d", "e")])
def test_mixed_precision(code, other, tiny_blocks):
    x, slope = specials(code, 33), specials(other, 33, 5)
    run("leaky_relu_with_mask", x, slope)
    run("leaky_relu_backward_from_mask", x, slope)
    into = to_device(np.zeros(33, "e"))
    y, mask = fastrelu.relu_with_mask(to_device(x), out=into)
    with np.errstate(all="ignore"):
        check("relu_with_mask", (y, mask), [expected("relu", (x,), code).astype("e"), bits_of(x)])


def test_every_float16(monkeypatch):
    monkeypatch.setattr(settings, "BLOCK", 64)
    run("leaky_relu_with_mask", np.arange(0, 0x10000, 5, dtype=np.uint16).view(np.float16), 0.3333)


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2), ()])
@pytest.mark.parametrize("name", MASKED)
def test_empty_and_0d(name, shape, monkeypatch, tiny_blocks):
    launched, launch = [], bitmask.launch
    monkeypatch.setattr(bitmask, "launch", lambda *given: (launched.append(1), launch(*given)))
    run(name, np.full(shape, -1, "f"))
    assert bool(launched) == (0 not in shape)


@pytest.mark.parametrize("shift", [-5, -1, 1, 4, 8])
def test_overlap(shift, tiny_blocks):
    host = specials("f", 60)
    source, target = slice(10, 50), slice(10 + shift, 50 + shift)
    for name in MASKED:
        arguments, wanted = masked_case(name, host[source].copy())
        before = host.copy()
        before[source] = arguments[0]
        device = to_device(before)
        results = getattr(fastrelu, name)(device[source], *on_device(arguments[1:]), out=device[target])
        before[target] = wanted[0]
        check(name, (device, *listed(results)[1:]), [before, *wanted[1:]])


@simulated
def test_a_slope_or_a_mask_in_the_memory_of_the_output(tiny_blocks):
    x = specials("f", 64)
    memory = np.zeros(64, "f")
    memory[32:34] = bits_of(x).view("f")
    device = fakes.Interface(memory)
    mask = fakes.Interface(memory.view(np.uint8)[128:136])
    fastrelu.relu_backward_from_mask(fakes.Interface(x), mask, out=device)
    assert_same(memory, expected("relu_backward", (x, x, 0.0), "f"))
    memory = x.reshape(8, 8).copy()
    wanted = expected("leaky_relu", (x.reshape(8, 8), x[:8].copy()), "f")
    fastrelu.leaky_relu_with_mask_(fakes.Interface(memory), fakes.Interface(memory[0]))
    assert_same(memory, wanted)


# ---- Whose arrays, in which order, and what is refused ---------------------------------------------------------------


@simulated
def test_work_is_ordered_after_producers_and_before_consumers(recorder, monkeypatch):
    seen, launch = [], bitmask.launch

    def spy(*arguments):
        seen.append(arguments[-1])
        recorder.log.append("launch")
        launch(*arguments)

    monkeypatch.setattr(bitmask, "launch", spy)
    x, out = fakes.Interface(BASE, stream=22), fakes.Interface(np.zeros_like(BASE), stream=11)
    fastrelu.relu_with_mask(x, out=out, mask_out=fakes.Interface(np.zeros(27, np.uint8), stream=33))
    before, after = [("wait", 11, 33), ("wait", 11, 22)], [("wait", 33, 11), ("wait", 22, 11)]
    assert recorder.log == [*before, "launch", *after]
    recorder.log.clear()
    mask = fakes.Interface(np.zeros(27, np.uint8), stream=44)
    fastrelu.relu_backward_from_mask_(x, mask)
    assert recorder.log == [("wait", 22, 44), "launch", ("wait", 44, 22)]
    assert seen == [11, 22]


@simulated
def test_torch(torch, recorder):
    x = fakes.Tensor(BASE.copy())
    y, mask = fastrelu.relu_with_mask(x)
    assert type(y) is type(mask) is fakes.Tensor
    check("relu_with_mask", (y.array, mask.array), masked_case("relu_with_mask", BASE)[1])
    assert x.version == y.version == mask.version == 0
    given = fakes.Tensor(np.zeros(27, np.uint8))
    assert fastrelu.relu_with_mask_(x, mask_out=given) is given
    assert x.version == given.version == 1
    grad = fakes.Tensor(BASE[::-1].copy())
    assert fastrelu.relu_backward_from_mask_(grad, given) is grad
    assert (grad.version, given.version) == (1, 1)
    assert_same(grad.array, expected("relu_backward", (BASE[::-1], BASE, 0.0), "f"))
    with pytest.raises(TypeError, match=r"relu_backward_from_mask: grad requires grad"):
        fastrelu.relu_backward_from_mask(fakes.Tensor(BASE, grad=True), given)


@simulated
def test_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fakes.cupy())
    monkeypatch.setattr(recognise, "_always", {})
    streams, launch = [], bitmask.launch
    monkeypatch.setattr(bitmask, "launch", lambda *given: (streams.append(given[-1]), launch(*given)))
    x = fakes.CupyArray(np.asfortranarray(BASE))
    y, mask = fastrelu.relu_with_mask(x)
    assert type(y) is type(mask) is fakes.CupyArray
    assert y.array.flags.f_contiguous  # as NumPy would
    check("relu_with_mask", (y.array, mask.array), masked_case("relu_with_mask", BASE)[1])
    assert fastrelu.relu_backward_from_mask_(x, mask) is x
    assert_same(x.array, expected("relu_backward", (BASE, BASE, 0.0), "f"))
    assert streams == [66, 66]


@simulated
def test_arrays_with_dlpack_only():
    check("relu_with_mask", fastrelu.relu_with_mask(fakes.OnlyDLPack(BASE)), masked_case("relu_with_mask", BASE)[1])
    grad, mask = fakes.OnlyDLPack(BASE.copy()), fakes.OnlyDLPack(bits_of(BASE))
    assert fastrelu.leaky_relu_backward_from_mask_(grad, mask, SLOPE) is grad
    assert_same(grad.array, expected("leaky_relu_backward", (BASE, BASE, SLOPE, SLOPE), "f"))


@simulated
def test_jax(jax, recorder):
    y, mask = fastrelu.leaky_relu_with_mask(fakes.JaxArray(BASE), SLOPE)
    check("leaky_relu_with_mask", (y.array, mask.array), masked_case("leaky_relu_with_mask", BASE)[1])
    # JAX's stream waits for ours, for each of both
    assert [each for each in recorder.log if each[0] == "wait"] == [("wait", 7, 0)] * 2
    assert [each[1:3] for each in recorder.log if each[0] == "keep"] == [(0, 0)] * 2
    for name in MASKED:
        arguments = [
            fakes.JaxArray(each) if isinstance(each, np.ndarray) else each for each in masked_case(name, BASE)[0]
        ]
        with pytest.raises(TypeError, match=f"{name}_: (x|grad) is a JAX array, which cannot be written to"):
            getattr(fastrelu, name + "_")(*arguments)
    with pytest.raises(TypeError, match="mask_out is a JAX array, which cannot be written to"):
        fastrelu.relu_with_mask(fakes.JaxArray(BASE), mask_out=mask)


@simulated
def test_refusals_write_nothing(monkeypatch):
    before = np.full(23, 5, "f")
    array, bits, memory = before.copy(), np.full(3, 7, np.uint8), np.zeros(92, np.uint8)
    x, out, mask = fakes.Interface(specials("f", 23)), fakes.Interface(array), fakes.Interface(bits)
    with_mask, backward = fastrelu.relu_with_mask, fastrelu.relu_backward_from_mask
    leaky = fastrelu.leaky_relu_with_mask
    for error, match, call, arguments, kwargs in [
        (TypeError, r"mask is a numpy.ndarray .* in host memory", backward, (x, bits), {"out": out}),
        (TypeError, r"mask_out is a numpy.ndarray .* in host memory", with_mask, (x,), {"out": out, "mask_out": bits}),
        (TypeError, r"mask_out is a int in host memory", with_mask, (x,), {"out": out, "mask_out": 3}),
        (TypeError, r"out is a numpy.ndarray .* in host memory", with_mask, (x,), {"out": array, "mask_out": mask}),
        (TypeError, r"x is a float; .* must be one too", with_mask, (3.0,), {"mask_out": mask}),
        (TypeError, r"x is a numpy.ndarray .*in host memory", with_mask, (before,), {"mask_out": mask}),
        (TypeError, r"mask must be .* of uint8, not int", backward, (x, 3), {"out": out}),
        (TypeError, r"negative_slope is a list in host", leaky, (x, [0.1]), {"out": out, "mask_out": mask}),
        (TypeError, r"x is of dtype complex64", with_mask, (fakes.Interface(np.zeros(23, "F")),), {"mask_out": mask}),
        (
            TypeError, r"grad is a CUDA array and mask is a Numba device array", backward, (x, to_device(bits)),
            {"out": out},
        ),
        (ValueError, "read-only", with_mask, (x,), {"out": fakes.Interface(array, readonly=True), "mask_out": mask}),
        (ValueError, "read-only", with_mask, (x,), {"out": out, "mask_out": fakes.Interface(bits, readonly=True)}),
        (
            ValueError, "x is not aligned", with_mask, (fakes.Interface(array, data=(array.ctypes.data + 2, False)),),
            {"mask_out": mask},
        ),
        (
            ValueError, "out is not aligned", with_mask, (x,),
            {"out": fakes.Interface(array, data=(array.ctypes.data + 2, False)), "mask_out": mask},
        ),
        (
            ValueError, "one in memory", with_mask, (x,),
            {"out": out, "mask_out": fakes.Interface(np.broadcast_to(bits[:1], 3))},
        ),
        (TypeError, "target='serial'", with_mask, (x,), {"out": out, "target": "serial"}),
        (TypeError, "in place", fastrelu.relu_with_mask_, ([1.0],), {"mask_out": mask}),
        (TypeError, "does not cast", fastrelu.relu_backward_from_mask_, (fakes.Interface(np.ones(23, "i")), mask), {}),
        (
            ValueError, "mask_out shares memory with another", with_mask, (fakes.Interface(memory.view("f")),),
            {"out": out, "mask_out": fakes.Interface(memory[:3])},
        ),
        (
            ValueError, "mask_out shares memory with another", with_mask, (x,),
            {"out": out, "mask_out": fakes.Interface(array.view(np.uint8)[89:])},
        ),
    ]:  # fmt: skip
        with pytest.raises(error, match=match):
            call(*arguments, **kwargs)
    monkeypatch.setattr(cuda_driver.get(), "device_of", lambda pointer: int(pointer == bits.ctypes.data))
    for call, arguments, kwargs in [
        (with_mask, (x,), {"out": out, "mask_out": mask}),
        (backward, (x, mask), {"out": out}),
    ]:
        with pytest.raises(TypeError, match=r"the arrays are on GPU [01] and GPU [01]"):
            call(*arguments, **kwargs)
    assert_same(array, before)
    assert_same(bits, np.full(3, 7, np.uint8))
    assert not memory.any()


@simulated
@pytest.mark.parametrize(
    ("name", "rest", "kwargs"),
    [
        ("relu_with_mask", (), {"out": np.zeros(22, "f")}),
        ("relu_with_mask", (), {"out": np.zeros(23, "i")}),
        ("relu_with_mask", (), {"mask_out": np.zeros(4, np.uint8)}),
        ("leaky_relu_with_mask", (np.zeros(7, "f"),), {}),
        ("leaky_relu_with_mask", (np.zeros((2, 23), "f"),), {}),
        ("relu_backward_from_mask", (np.zeros(2, np.uint8),), {}),
    ],
)
def test_the_words_are_those_of_host_arrays(name, rest, kwargs):
    x = specials("f", 23)
    with pytest.raises((TypeError, ValueError)) as on_host:
        getattr(fastrelu, name)(x, *rest, **kwargs)
    arrays = [fakes.Interface(each) for each in rest]
    with pytest.raises(on_host.type) as found:
        getattr(fastrelu, name)(fakes.Interface(x), *arrays, **{k: fakes.Interface(v) for k, v in kwargs.items()})
    assert str(found.value) == str(on_host.value)


@simulated
@pytest.mark.parametrize("mask", [np.zeros((3, 1), np.uint8), np.zeros(3, bool), np.zeros(3, np.int8)])
def test_a_mask_of_another_type_or_shape(mask):
    x, mask = fakes.Interface(specials("f", 23)), fakes.Interface(mask)
    for call in (
        lambda: fastrelu.relu_backward_from_mask(x, mask),
        lambda: fastrelu.relu_with_mask(x, mask_out=mask),
    ):
        with pytest.raises(TypeError, match="must be a one-dimensional array of uint8, not a CUDA array of dtype"):
            call()


def test_2_to_the_31_elements_need_no_32_bit_number(monkeypatch):
    seen = []
    monkeypatch.setattr(launch_cache, "prepared", lambda spec: lambda grid, *values: seen.append((spec, grid, values)))
    monkeypatch.setattr(launch_cache, "_plans", {})
    n = 1 << 36
    view = bitmask.View(None, 1 << 40, (n,), (4,), np.dtype("f"), 0, 0)
    mask = bitmask.View(None, 1 << 50, (n // 8,), (1,), np.dtype("B"), 0, 0)
    bitmask.launch("relu_with_mask", view.dtype, (view,), view, mask, 0)
    spec, grid, values = seen[0]
    assert (spec.width, grid.blocks, grid.threads) == (4, n // 8 // settings.BLOCK, settings.BLOCK)
    assert values == (0, 0, 1 << 40, 1 << 40, 1 << 50, 1, n, n, 4, 4, 16, 16)


# ---- Host arrays -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[16, 64, 1 << 20])
def piece(request, monkeypatch, tiny_blocks):
    monkeypatch.setattr(settings, "STAGING_BYTES", request.param)
    return request.param


@pytest.mark.parametrize(("name", "code"), CASES)
def test_host_arrays(name, code, piece):
    arguments, wanted = masked_case(name, specials(code, 75))
    function, twin = getattr(fastrelu, name), getattr(fastrelu, name + "_")
    check(name, function(*arguments, target="cuda"), wanted)
    found = twin(arguments[0].copy(), *arguments[1:], target="cuda")
    assert_same(found, wanted[-1])


@pytest.mark.parametrize("view", [lambda a: a.T, lambda a: a[::-1, ::2], lambda a: a[:, 1], lambda a: a[:0]])
def test_host_layouts(view, piece):
    x = view(specials("f", 77).reshape(7, 11))
    slope = np.linspace(-1, 1, x.shape[-1], dtype="f")
    for name in ("leaky_relu_with_mask", "leaky_relu_backward_from_mask"):
        arguments, wanted = masked_case(name, x, slope)
        whole = np.zeros((7, 11), "f")
        results = getattr(fastrelu, name)(*arguments, out=view(whole), target="cuda")
        check(name, results, wanted)
        assert listed(results)[0].base is whole
        view(whole)[...] = 0
        assert not whole.any()


def test_host_conversions_overlap_and_scalars(piece):
    x = specials("f", 40)
    wanted = x.copy()
    wanted[3:] = expected("leaky_relu", (x[:-3], SLOPE), "f")
    _, mask = fastrelu.leaky_relu_with_mask(x[:-3], SLOPE, out=x[3:], target="cuda")
    assert_same(x, wanted)
    for value in ([[-1.0, 2.0]], np.float32(-1), np.asfortranarray(specials("i", 77).reshape(7, 11)).astype(">i4")):
        found = fastrelu.leaky_relu_with_mask(value, SLOPE, target="cuda")
        for one, other in zip(found, fastrelu.leaky_relu_with_mask(value, SLOPE), strict=True):
            assert type(one) is type(other)
            assert_same(one, other)
    with pytest.raises(ValueError, match="mask_out has 3 bytes; for 37 elements it must have 5"):
        fastrelu.relu_with_mask(x[:-3], mask_out=mask[:3], target="cuda")
    fastrelu.relu_with_mask(x, out=(narrow := np.zeros(40, "e")), target="cuda")
    with np.errstate(all="ignore"):
        assert_same(narrow, expected("relu", (x,), "f").astype("e"))


def test_pieces_are_whole_bytes_of_the_mask_and_bounded(monkeypatch, tiny_blocks):
    monkeypatch.setattr(settings, "STAGING_BYTES", 100)
    seen, launch = [], bitmask.launch

    def spy(name, loop, operands, out, mask, stream):
        seen.append((len(operands), out.shape[0], mask.shape[0]))
        assert out.shape[0] * loop.itemsize <= 100
        launch(name, loop, operands, out, mask, stream)

    monkeypatch.setattr(bitmask, "launch", spy)
    x = specials("f", 53)
    check(
        "leaky_relu_with_mask",
        fastrelu.leaky_relu_with_mask(x, SLOPE, target="cuda"),
        masked_case("leaky_relu_with_mask", x)[1],
    )
    assert seen == [(2, 24, 3), (2, 24, 3), (2, 5, 1)]


def test_an_error_on_the_way_ends_what_was_begun(monkeypatch, piece):
    out, launched = np.full(75, 5, "f"), []

    def fail(*arguments):
        launched.append(1)
        raise RuntimeError("no")

    monkeypatch.setattr(bitmask, "launch", fail)
    with pytest.raises(RuntimeError, match="no"):
        fastrelu.relu_with_mask(specials("f", 75), out=out, target="cuda")
    assert_same(out, np.full(75, 5, "f"))


def test_a_configured_target_copies_too(monkeypatch, tiny_blocks):
    x, seen, launch = specials("f", 20), [], bitmask.launch
    monkeypatch.setattr(bitmask, "launch", lambda *given: (seen.append(1), launch(*given)))
    with fastrelu.configure(target="cuda"):
        check("relu_with_mask", fastrelu.relu_with_mask(x), masked_case("relu_with_mask", x)[1])
    assert seen


def test_explain_runs_nothing_and_refuses_what_the_call_does(monkeypatch):
    monkeypatch.setattr(bitmask, "launch", None)
    monkeypatch.setattr(libraries.Library, "empty", None)
    function, x, short = fastrelu.relu_with_mask, to_device(BASE), np.zeros(3, np.uint8)
    assert fastrelu.explain(function, x).target == "cuda"
    assert fastrelu.explain(function, BASE, target="cuda").target == "cuda"
    for kind, data, kwargs in [
        (TypeError, x, {"mask_out": short}),
        (TypeError, x, {"target": "serial"}),
        (ValueError, x, {"mask_out": to_device(short)}),
        (ValueError, BASE, {"mask_out": short, "target": "cuda"}),
    ]:
        with pytest.raises(kind):
            fastrelu.explain(function, data, **kwargs)
