"""What the compiler makes of the kernels, for GPUs that need not be here: numba-cuda compiles to PTX by itself."""

import re
import shutil
import subprocess

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install 'fastrelu[cuda13]'")

from fastrelu._cuda.bitmask_kernels import BitmaskSpec
from fastrelu._cuda.dtypes import memory_dtype
from fastrelu._cuda.elementwise_kernels import ElementwiseSpec
from fastrelu._cuda.numba_cuda import cuda, types
from fastrelu._cuda.sum_kernels import SumSpec
from fastrelu._operations import ROWS, UFUNCS

from .data import MASKED, SUMMED

CAPABILITIES = [(7, 5), (8, 0), (9, 0)]


def spec_of(name, code, count=4, **more):
    roles = tuple("array" if operand.kind == "data" else "scalar" for operand in ROWS[name].operands)
    return ElementwiseSpec(
        name, code, roles, tuple(code if role == "array" else "" for role in roles), code, count, **more
    )


CONTIGUOUS = [spec_of(name, code) for name in UFUNCS for code in "eEfd"]
CONTIGUOUS += [spec_of("relu", code) for code in "?bBhHiIqQ"]
CONTIGUOUS += [
    spec_of("leaky_relu", "f", 1),
    ElementwiseSpec("leaky_relu", "f", ("array", "uniform"), ("f", "f"), "f", 4),  # a slope in device memory
    ElementwiseSpec("leaky_relu", "e", ("array", "array"), ("e", "e"), "e", 4),
    ElementwiseSpec("leaky_relu", "E", ("array", "uniform"), ("E", "E"), "E", 4),  # bfloat16
]
STRIDED = [
    ElementwiseSpec("leaky_relu", "f", ("array", "array"), ("f", "f"), "f", 4, axes=3),  # a slope per channel
    spec_of("relu_backward", "e", axes=2),
    spec_of("relu_backward", "E", axes=2),
    ElementwiseSpec("leaky_relu", "f", ("array", "array"), ("E", "f"), "E", 4, axes=2),  # converted in and out
    spec_of("relu", "f", axes=5),
    spec_of("relu", "e", axes=2, masked=True),
    spec_of("relu", "f", axes=2, lanes=(4,)),  # rows of whole vectors
    ElementwiseSpec(
        "leaky_relu", "e", ("array", "array"), ("e", "e"), "e", 4, axes=3, lanes=(8, 1)
    ),  # and a slope per row
    ElementwiseSpec("relu_backward", "E", ("array", "array", "scalar"), ("E", "E", ""), "E", 4, axes=2, lanes=(8, 8)),
]


def mask_spec(name, code, width, axes=1, slope="scalar"):
    roles = {"x": "array", "grad": "array", "mask": "bits", "negative_slope": slope}
    roles = tuple(roles[argument] for argument in ROWS[name].names)
    stored = tuple(code if role in ("array", "uniform") else "" for role in roles)
    return BitmaskSpec(name, code, roles, stored, code, width, axes)


VECTORS = [mask_spec(name, code, width) for name in MASKED for code, width in (("e", 8), ("E", 8), ("f", 4), ("d", 2))]
VECTORS += [mask_spec("relu_with_mask", code, width) for code, width in (("h", 8), ("I", 4), ("q", 2))]
VECTORS += [
    mask_spec("leaky_relu_with_mask", "f", 4, slope="uniform"),
    mask_spec("leaky_relu_backward_from_mask", "e", 8, slope="array"),
]
ELEMENTS = [
    mask_spec("relu_with_mask", "?", 1),
    mask_spec("leaky_relu_with_mask", "f", 1, 3, "array"),  # a slope per channel
    mask_spec("leaky_relu_backward_from_mask", "e", 1, 3, "array"),
    mask_spec("relu_backward_from_mask", "f", 1, 5),
]


def sum_spec(name, code, across, axes=1, slope="scalar", result="", wide=True, loads=4):
    roles = tuple(slope if argument == "negative_slope" else "array" for argument in ROWS[name].names)
    stored = tuple(code if role == "array" else "" for role in roles)
    sums = "q" if ROWS[name].sums == "counts" else "dd" if code == "d" else "d"
    written, adds = "", False
    if ROWS[name].writes_result:
        written, adds = code, bool(result) and ROWS[name].sums == "counts"
    width = 16 // memory_dtype(code).itemsize if wide else 1
    # a slope per unit is the same for all elements of a vector that lies within a unit
    lanes = [1 if argument == "negative_slope" and not across else width for argument in ROWS[name].names]
    lanes = tuple(each for each, role in zip(lanes, roles, strict=True) if role == "array")
    return SumSpec(name, code, roles, stored, written, axes, sums, across, lanes, loads, result, adds)


def fold_spec(sums, across, result="", adds=False):
    parts = len(sums)
    return SumSpec(
        "fold", sums[0], ("array",) * parts, tuple(sums), "", 1, sums, across, (1,) * parts, 16, result, adds
    )


SUMS = [sum_spec(name, code, across) for name in SUMMED for code in "eEfd" for across in (True, False)]
SUMS += [sum_spec(name, code, True, wide=False) for name in SUMMED for code in "ef"]
SUMS += [sum_spec("relu_with_counts", code, False) for code in "?bIq"]
SUMS += [
    sum_spec("relu_with_counts", "f", True, result="q"),
    sum_spec("count_active", "f", False, axes=4, result="q"),
    sum_spec("leaky_relu_backward_with_slope_grad", "f", False, axes=2, slope="array"),  # NCHW, a slope per channel
    sum_spec("leaky_relu_slope_grad", "E", True, result="E"),
    SumSpec("leaky_relu_slope_grad", "f", ("array", "scalar"), ("f", ""), "", 1, "d", True, (1,), 4),
    *(fold_spec(sums, True) for sums in ("q", "d", "dd")),
    fold_spec("q", False, "q", adds=True),
    fold_spec("dd", False, "d"),
    fold_spec("d", False, "e"),
]


def label(spec):
    if isinstance(spec, SumSpec):
        ends = f"-{'+=' if spec.adds else '='}{spec.result}" if spec.result else ""
        way = f"{'across' if spec.across else 'along'}-{max(spec.lanes)}"
        return f"{spec.name}-{spec.loop}-{'+'.join(spec.roles)}-{spec.axes}-{spec.sums}-{way}{ends}"
    if isinstance(spec, BitmaskSpec):
        return f"{spec.name}-{spec.loop}-{'+'.join(spec.roles)}-{spec.width}-{spec.axes}"
    axes = f"-{spec.axes} axes" if spec.axes else ""
    axes += f"-{'+'.join(map(str, spec.lanes))}" if spec.lanes else ""
    return f"{spec.name}-{spec.loop}-{'+'.join(spec.roles)}-{spec.loads}{axes}{'-masked' * spec.masked}"


def compile_to_ptx(spec, capability):
    signature = types.void(*spec.argument_types())
    ptx, _ = cuda.compile(spec.python_kernel(), signature, device=False, cc=capability, abi="numba")
    return ptx


def accesses(ptx, kind):
    """Return the sizes in bytes of all accesses to global memory of a kind, "ld" or "st"."""
    found = re.findall(rf"\b{kind}\.global(?:\.v(\d))?\.[a-z](\d+)\s", ptx)
    return [int(lanes or 1) * int(bits) // 8 for lanes, bits in found]


def check(ptx, spec):
    assert not re.search(r"\.local\b|__local_depot", ptx), "local memory"
    assert not re.search(r"\bcall\b", ptx), "a call that was not inlined"
    # every access names its kind of memory
    assert not re.search(r"\b(ld|st)\.(v\d\.)?[busf]\d+\s", ptx), "a generic access"
    if spec.loop != "d" and "d" not in getattr(spec, "sums", ""):
        assert not re.search(r"\.f64\b", ptx), "float64"


def assemble(ptx, capability, tmp_path):
    """Let ptxas compile the text, where it is installed, and return what it says of registers."""
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        return ""
    # The first line names the newest dialect that the compiler knows, and ptxas may be older; nothing needs it
    (tmp_path / "kernel.ptx").write_text(re.sub(r"(?m)^\.version .*$", ".version 8.0", ptx))
    target = f"-arch=sm_{capability[0]}{capability[1]}"
    command = [ptxas, "-v", target, str(tmp_path / "kernel.ptx"), "-o", str(tmp_path / "kernel.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("spec", CONTIGUOUS, ids=label)
def test_contiguous(spec, capability, tmp_path):
    ptx = compile_to_ptx(spec, capability)
    check(ptx, spec)
    arrays = len(spec.of_role("array"))
    # the batch, and the single vector at the end of the last tile (with one load in flight they may be one)
    batches = spec.loads + 1 if spec.loads > 1 else 1
    assert accesses(ptx, "ld").count(16) >= arrays * batches
    assert accesses(ptx, "st").count(16) >= batches
    report = assemble(ptx, capability, tmp_path)
    if report:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report


@pytest.mark.parametrize("spec", CONTIGUOUS, ids=label)
def test_all_loads_of_a_batch_are_in_flight_before_the_first_store(spec):
    ptx = compile_to_ptx(spec, (9, 0))
    order = [kind for kind, wide in re.findall(r"\b(ld|st)\.global(\.v\d)?\.\w+\s", ptx) if wide]
    run = max(len(part) for part in re.findall("l*", "".join("l" if kind == "ld" else "s" for kind in order)))
    assert run >= spec.loads * len(spec.of_role("array"))


@pytest.mark.parametrize("spec", [spec for spec in CONTIGUOUS if spec.loads > 1], ids=label)
def test_no_branch_depends_on_an_element(spec):
    """Threads of a warp that disagree take both ways. Loops, and what is the same for all, have at most 19.

    Formulas of several returns had 32 to 174.
    """
    assert len(re.findall(r"\bbra\b", compile_to_ptx(spec, (9, 0)))) < 20


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("spec", STRIDED, ids=label)
def test_strided(spec, capability, tmp_path):
    ptx = compile_to_ptx(spec, capability)
    check(ptx, spec)
    if spec.lanes:
        assert accesses(ptx, "ld").count(16) == sum(each > 1 for each in spec.lanes) * (spec.loads + 1)
        assert accesses(ptx, "st").count(16) == spec.loads + 1
    report = assemble(ptx, capability, tmp_path)
    if report:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("spec", VECTORS, ids=label)
def test_vectors_beside_a_mask(spec, capability, tmp_path):
    ptx = compile_to_ptx(spec, capability)
    check(ptx, spec)
    loads, stores = accesses(ptx, "ld"), accesses(ptx, "st")
    assert loads.count(16) == 8 // spec.width * len(spec.of_role("array"))
    assert stores.count(16) == 8 // spec.width
    assert (loads if "bits" in spec.roles else stores).count(1) == 1
    order = [kind for kind, wide in re.findall(r"\b(ld|st)\.global(\.v\d)?\.\w+\s", ptx) if wide]
    assert order == sorted(order)  # all loads are in flight before the first store
    assert not re.search(r"\b(div|rem)\.", ptx)
    report = assemble(ptx, capability, tmp_path)
    if report:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("spec", ELEMENTS, ids=label)
def test_elements_beside_a_mask(spec, capability, tmp_path):
    ptx = compile_to_ptx(spec, capability)
    check(ptx, spec)
    order = re.findall(r"\b(ld|st)\.global\.\w+\s", ptx)
    assert "l" * 8 * len(spec.of_role("array")) in "".join(kind[0] for kind in order)
    assemble(ptx, capability, tmp_path)


@pytest.mark.parametrize("capability", CAPABILITIES[::2], ids=str)
@pytest.mark.parametrize("spec", SUMS, ids=label)
def test_sums(spec, capability, tmp_path):
    ptx = compile_to_ptx(spec, capability)
    check(ptx, spec)
    assert not re.search(r"\b(atom|red|shfl|bar)\.", ptx)  # the order of the sums is ours
    if spec.sums == "dd":  # contracted, they would not be the sums of the CPU
        assert not re.search(r"\bfma\.", ptx)
    # a batch of every operand is in flight before its first element is used, or written
    arrays = len(spec.of_role("array"))
    order = "".join(kind[0] for kind in re.findall(r"\b(ld|st)\.global\.", ptx))
    assert "l" * (spec.loads * arrays) in order
    if max(spec.lanes) > 1:
        assert accesses(ptx, "ld").count(16) >= sum(each > 1 for each in spec.lanes) * (spec.loads + 1)
        assert accesses(ptx, "st").count(16) == (spec.loads + 1 if spec.out else 0)
    # the loops over threads and elements compare 64-bit numbers, made of a 64-bit product
    assert re.search(r"\bmul\.wide\.[su]32\b", ptx)
    assert len(re.findall(r"\bsetp\.(lt|ge|gt|le)\.s64\b", ptx)) >= 2
    assert not re.search(r"\bsetp\.(lt|ge|gt|le)\.s32\b", ptx)
    report = assemble(ptx, capability, tmp_path)
    if report:
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in report


def test_bits_are_no_numbers_on_the_way():
    for name in ("relu_backward_from_mask", "leaky_relu_backward_from_mask"):
        ptx = compile_to_ptx(mask_spec(name, "f", 4), (9, 0))
        assert not re.search(r"\bcvt\S*\.f32\.", ptx)


def test_float16_computes_in_float32():
    ptx = compile_to_ptx(spec_of("leaky_relu", "e"), (9, 0))
    assert re.search(r"mul(\.rn)?\.f32", ptx)
    assert not re.search(r"\b(mul|fma|add)\.\S*f16", ptx)
    assert "cvt.rn.f16.f32" in ptx


def test_bfloat16_computes_in_float32():
    """And is rounded by integers: the instruction for it is missing before Ampere."""
    ptx = compile_to_ptx(spec_of("leaky_relu", "E"), (7, 5))
    assert re.search(r"mul(\.rn)?\.f32", ptx)
    assert "bf16" not in ptx


def test_nothing_is_flushed_to_zero():
    for spec in (*(spec_of(name, "f") for name in UFUNCS), *(mask_spec(name, "f", 4) for name in MASKED), *SUMS):
        assert ".ftz" not in compile_to_ptx(spec, (9, 0))


@pytest.mark.parametrize(
    "spec", [spec_of("relu", "e"), spec_of("relu", "e", axes=2), mask_spec("relu_with_mask", "e", 8)], ids=label
)
def test_zeros_of_float16_keep_their_sign(spec):
    """Compared as float16, and by ``le``, -0.0 would become +0.0, as of formulas that return twice."""
    comparisons = re.findall(r"\bsetp\.(\w+)\.f(?:16|32)\b", compile_to_ptx(spec, (9, 0)))
    assert comparisons
    # the bit of a mask is of ``not x <= 0``
    assert set(comparisons) <= ({"lt", "gtu"} if isinstance(spec, BitmaskSpec) else {"lt"})
