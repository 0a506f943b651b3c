"""Arrays of PyTorch and JAX on the CPU, and containers around NumPy's: the same type out, nothing copied on the way."""

import gc
import warnings

import numpy as np
import pytest

import fastrelu
from fastrelu._bench.oracle import assert_same

from .children import python
from .helpers import BINARY, FLOATS, INTEGERS, OPERATIONS, TARGETS, pairs, public, run_python, spread


def load(name):
    """Import a library; what it warns of on its own import is not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


@pytest.fixture(scope="module")
def torch():
    return load("torch")


@pytest.fixture(scope="module")
def jax():
    return load("jax")


@pytest.fixture(scope="module", params=["torch", "jax"])
def library(request):
    """Return functions to and from a library's arrays, and their type."""
    module = load(request.param)
    if request.param == "torch":
        return module.from_numpy, lambda t: t.numpy(), module.Tensor
    return module.numpy.asarray, np.asarray, module.Array


def ramp(*shape, dtype=np.float32):
    return np.linspace(-2, 3, int(np.prod(shape)), dtype=dtype).reshape(shape)


def same(tensor, wanted):
    """Check values, type and shape of a torch tensor."""
    assert_same(tensor.detach().numpy(), wanted)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values(library, name, dtype):
    """Special values, small and large, on every target, are bit for bit those of NumPy arrays."""
    into, back, kind = library
    for size in (7, 100_003):
        arrays = [spread(each, size) for each in pairs(name, dtype)]
        wanted = public(name)(*arrays)
        for target in TARGETS:
            result = public(name)(*map(into, arrays), target=target)
            assert isinstance(result, kind)
            assert_same(back(result), wanted)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
def test_torch_types(torch, dtype):
    x = ramp(5, 3).astype(dtype)
    t = torch.from_numpy(x.copy())
    same(fastrelu.relu(t), fastrelu.relu(x))
    same(fastrelu.leaky_relu(t, 0.5), fastrelu.leaky_relu(x, 0.5))
    same(fastrelu.leaky_relu(t, 2), fastrelu.leaky_relu(x, 2))


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint8", "uint16"])
def test_jax_integers(jax, dtype):
    x = ramp(5, 3).astype(dtype)
    result = fastrelu.relu(jax.numpy.asarray(x))
    assert isinstance(result, jax.Array)
    assert_same(np.asarray(result), fastrelu.relu(x))


def test_promotion_is_numpys(torch):
    x = ramp(6)
    t = torch.from_numpy(x)
    assert fastrelu.leaky_relu(t, 0.1).dtype == torch.float32
    assert fastrelu.leaky_relu(t, np.float64(0.1)).dtype == torch.float64
    assert fastrelu.leaky_relu(t, torch.tensor(0.1, dtype=torch.float64)).dtype == torch.float64
    assert fastrelu.relu(t, dtype=torch.float64).dtype == torch.float64
    assert fastrelu.relu(t, dtype=np.float64).dtype == torch.float64
    same(fastrelu.leaky_relu(-2.0, t), fastrelu.leaky_relu(-2.0, x))


def layouts(torch):
    base = torch.from_numpy(ramp(6, 8, 10))
    return {
        "0-d": torch.tensor(-1.5),
        "empty": torch.empty(0),
        "empty 2-d": torch.empty(3, 0, 2),
        "column": base[:, :, 0],
        "every other": base[::2, 1::3, ::2],
        "transposed": base.permute(2, 0, 1),
        "expanded": base[:1].expand(4, 8, 10),
        "channels_last": torch.from_numpy(ramp(2, 3, 4, 5)).to(memory_format=torch.channels_last),
        "large transposed": torch.from_numpy(ramp(300, 400)).T,
    }


@pytest.mark.parametrize("layout", ["0-d", "empty", "empty 2-d", "column", "every other", "transposed", "expanded",
                                    "channels_last", "large transposed"])  # fmt: skip
def test_torch_layouts(torch, layout):
    t = layouts(torch)[layout]
    before = t.clone()
    result = fastrelu.leaky_relu(t, 0.5)
    assert type(result) is torch.Tensor
    same(result, fastrelu.leaky_relu(t.numpy(), 0.5)[()] if t.ndim else np.array(-0.75, np.float32))
    assert result.stride() == torch.empty_like(t).stride()
    assert torch.equal(t, before)
    out = torch.empty_like(t)
    assert fastrelu.leaky_relu(t, 0.5, out=out) is out
    assert torch.equal(out, result)
    if layout != "expanded":
        assert fastrelu.leaky_relu_(t, 0.5) is t
        assert torch.equal(t, result)


@pytest.mark.parametrize("order", ["C", "F", "A", "K"])
def test_torch_order(torch, order):
    for x in (ramp(4, 5), ramp(4, 5).T, ramp(4, 6)[:, ::2]):
        wanted = fastrelu.relu(x, order=order)
        result = fastrelu.relu(torch.from_numpy(x), order=order)
        assert_same(result.numpy(), wanted)
        assert result.numpy().strides == wanted.strides
    with pytest.raises(ValueError, match="order must be one of"):
        fastrelu.relu(torch.ones(3), order="Q")


def test_nothing_is_copied(torch, jax):
    """The operands and results that the loops see are the libraries' own memory."""
    from fastrelu._arrays import host_libraries

    t = torch.from_numpy(ramp(50, 60))[:, 3:]
    for call in (host_libraries.enter("relu", (t,), None, {}), host_libraries.enter("relu", (t,), t, {})):
        assert call.operands[0].ctypes.data == t.data_ptr()
        assert call.operands[0].strides == tuple(4 * step for step in t.stride())
    assert call.out.ctypes.data == t.data_ptr()
    call = host_libraries.enter("relu", (t,), None, {})
    out = call.allocate(np.dtype("f4"))
    assert out.ctypes.data == call.leave("out", out).data_ptr()
    for shape in ((), (1,), (1000, 33)):
        j = jax.numpy.asarray(ramp(*shape))
        call = host_libraries.enter("relu", (j,), None, {})
        assert call.operands[0].ctypes.data == j.unsafe_buffer_pointer()
        out = call.allocate(np.dtype("f4"))
        assert out.ctypes.data == call.leave("out", out).unsafe_buffer_pointer()


def test_torch_out_and_in_place(torch):
    for name in OPERATIONS:
        arrays = [ramp(40, 50), ramp(40, 50)[::-1].copy()][: 1 + (name in BINARY)]
        wanted = public(name)(*arrays)
        tensors = [torch.from_numpy(each.copy()) for each in arrays]
        out = torch.full((40, 50), 9.0)
        address, version = out.data_ptr(), out._version
        assert public(name)(*tensors, out=out) is out
        assert public(name)(*tensors, out=(out,)) is out
        assert out.data_ptr() == address
        assert out._version > version
        same(out, wanted)
        assert public(name, twin=True)(*tensors) is tensors[0]
        same(tensors[0], wanted)


def test_torch_overlap(torch):
    memory = torch.from_numpy(ramp(200_001))
    wanted = fastrelu.leaky_relu(memory.numpy()[:-1].copy(), 0.5)
    fastrelu.leaky_relu(memory[:-1], 0.5, out=memory[1:])
    same(memory[1:], wanted)
    one = torch.zeros(1).expand(5)
    with pytest.raises(ValueError, match="one in memory"):
        fastrelu.relu_(one)


def test_saved_tensors_notice_writes(torch):
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    loss = (y * y).sum()
    with torch.no_grad():
        fastrelu.relu_(y.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_slope_per_channel_and_where(library):
    into, back, kind = library
    x, slope, mask = ramp(4, 3, 50, 60), ramp(3, 1, 1), ramp(4, 1, 1, 60) > 0
    result = fastrelu.leaky_relu(into(x), into(slope))
    assert isinstance(result, kind)
    assert_same(back(result), fastrelu.leaky_relu(x, slope))
    assert back(fastrelu.leaky_relu(into(slope), into(x))).shape == x.shape
    result = fastrelu.relu(into(x), where=into(mask))
    assert isinstance(result, kind)
    where = np.broadcast_to(mask, x.shape)
    assert_same(back(result)[where], fastrelu.relu(x)[where])
    wide = fastrelu.relu(into(ramp(60)), where=into(mask))
    assert back(wide).shape == mask.shape


def test_torch_where_leaves_the_rest(torch):
    out = torch.full((3,), 7.0)
    fastrelu.relu(torch.tensor([-1.0, 2.0, -3.0]), out=out, where=torch.tensor([True, True, False]))
    assert out.tolist() == [0.0, 2.0, 7.0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_torch_requires_grad(torch, name):
    x = torch.ones(3, requires_grad=True)
    rest = [torch.ones(3)] if name in BINARY else []
    for twin in (False, True):
        with pytest.raises(TypeError, match=r"requires grad.*\.detach\(\).*torch\.autograd\.Function"):
            public(name, twin)(x, *rest)
    with pytest.raises(TypeError, match=r"out requires grad"):
        public(name)(x.detach(), *rest, out=x)
    assert x._version == 0
    with torch.no_grad():
        result = public(name)(x, *rest)
        assert not result.requires_grad
        assert public(name, twin=True)(x, *rest) is x
    assert x.requires_grad
    assert torch.equal(result, x)


def test_torch_autograd_function(torch):
    """The recipe of the documentation, against numerical derivatives."""

    class LeakyReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, slope):
            ctx.slope = slope
            y = fastrelu.leaky_relu(x.detach(), slope)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, grad):
            (y,) = ctx.saved_tensors
            return fastrelu.leaky_relu_backward(grad, y, ctx.slope), None

    x = torch.linspace(-2, 3, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: LeakyReLU.apply(x, 0.2), x)


def test_jax_custom_vjp(jax):
    jnp = jax.numpy

    def host(function):
        def call(*arrays):
            shape = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
            return jax.pure_callback(lambda *values: function(*map(np.asarray, values)), shape, *arrays)

        return call

    relu = jax.custom_vjp(host(fastrelu.relu))
    relu.defvjp(lambda x: (relu(x), x), lambda x, grad: (host(fastrelu.relu_backward)(grad, x),))
    x = jnp.array([-1.0, 2.0, -3.0])
    assert jax.jit(jax.grad(lambda x: (relu(x) ** 2).sum()))(x).tolist() == [0.0, 4.0, 0.0]


def bad_tensors(torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        square = torch.ones(2, 2)
        return {
            "complex64": (torch.ones(3, dtype=torch.complex64), r"dtype torch\.complex64"),
            "conj": (torch.ones(3, dtype=torch.complex64).conj(), r"dtype torch\.complex64"),
            "float8": (torch.ones(3).to(torch.float8_e5m2), r"dtype torch\.float8"),
            "sparse": (square.to_sparse(), r"layout torch\.sparse_coo"),
            "csr": (square.to_sparse_csr(), r"layout torch\.sparse_csr"),
            "mkldnn": (square.to_mkldnn() if torch.backends.mkldnn.is_available() else None, r"layout torch\._mkldnn"),
            "quantized": (torch.quantize_per_tensor(square, 0.1, 0, torch.quint8), r"dtype torch\.quint8"),
            "meta": (torch.ones(3, device="meta"), "device meta"),
            "nested": (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "layout nested"),
            "jagged": (
                torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "layout nested"
            ),
        }  # fmt: skip


@pytest.mark.parametrize("which", ["complex64", "conj", "float8", "sparse", "csr", "mkldnn", "quantized",
                                   "meta", "nested", "jagged"])  # fmt: skip
def test_torch_tensors_that_are_refused(torch, which):
    tensor, message = bad_tensors(torch)[which]
    if tensor is None:
        pytest.skip("this torch has no mkldnn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in (
            lambda: fastrelu.relu(tensor),
            lambda: fastrelu.relu_(tensor),
            lambda: fastrelu.explain(fastrelu.relu, tensor),
        ):
            with pytest.raises(TypeError, match=f"relu_?: x is .*{message}"):
                call()
        with pytest.raises(TypeError, match=f"negative_slope is .*{message}"):
            fastrelu.leaky_relu(torch.ones(3), tensor)
        with pytest.raises(TypeError, match=f"out is .*{message}"):
            fastrelu.relu(torch.ones(3), out=tensor)


def test_torch_negation_bit(torch):
    values = torch.tensor([1 - 2j, -3 + 4j])
    negated = values.conj().imag
    assert negated.is_neg()
    same(fastrelu.relu(negated), np.array([2.0, 0.0], np.float32))
    for call in (lambda: fastrelu.relu_(negated), lambda: fastrelu.relu(torch.ones(2), out=negated)):
        with pytest.raises(TypeError, match="negation bit"):
            call()
    assert values.tolist() == [1 - 2j, -3 + 4j]


#: Every way for a tensor into a function: as data, parameter, mask, output or in place, and through `explain`.
WAYS = {
    "relu: x": lambda t: fastrelu.relu(t),
    "relu: out": lambda t: fastrelu.relu(1.0, out=t),
    "relu: where": lambda t: fastrelu.relu(1.0, where=t),
    "leaky_relu: negative_slope": lambda t: fastrelu.leaky_relu(-1.0, t),
    "relu_backward_: grad": lambda t: fastrelu.relu_backward_(t, 1.0),
    "relu_grad: x": lambda t: fastrelu.explain(fastrelu.relu_grad, t),
    "relu_with_mask: x": lambda t: fastrelu.relu_with_mask(t),
    "leaky_relu_with_mask_: x": lambda t: fastrelu.leaky_relu_with_mask_(t),
    "relu_backward_from_mask: grad": lambda t: fastrelu.relu_backward_from_mask(t, t),
    "count_active: x": lambda t: fastrelu.count_active(t),
    "relu_with_counts: x": lambda t: fastrelu.relu_with_counts(t, t),
    "leaky_relu_slope_grad: grad": lambda t: fastrelu.explain(fastrelu.leaky_relu_slope_grad, t, t),
}


def recorders(torch):
    """Return functions that run a function of a tensor under a recorder, by what the message calls that."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def traced(function):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return torch.jit.trace(function, torch.ones(3), check_trace=False)

    def backward(function):  # the backward pass of a function of autograd is recorded call by call
        class Backward(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, grad):
                function(grad)
                return grad

        def loss(x):
            x = x.clone().requires_grad_()
            return torch.autograd.grad(Backward.apply(x).sum(), x)[0]

        return traced(loss)

    def exported(function):
        class Module(torch.nn.Module):
            def forward(self, x):
                return function(x)

        return torch.export.export(Module(), (torch.ones(3),))

    of = torch.func
    return {
        "trace": (r"torch\.jit\.trace", traced),
        "trace of a gradient": (r"torch\.jit\.trace", backward),
        "make_fx": ("make_fx", lambda f: make_fx(f)(torch.ones(3))),
        "make_fx, fake": ("make_fx", lambda f: make_fx(f, tracing_mode="symbolic")(torch.ones(3))),
        "make_fx, early": ("make_fx", lambda f: make_fx(f, pre_dispatch=True)(torch.ones(3))),
        "export": (r"torch\.export", exported),
        "fx": (r"Proxy of torch\.fx.*torch\.fx\.wrap", lambda f: torch.fx.symbolic_trace(lambda x: f(x))),
        "vmap": (r"torch\.func transformation \(vmap\)", lambda f: of.vmap(f)(torch.ones(3, 3))),
        "grad": (r"torch\.func transformation \(grad\)", lambda f: of.grad(lambda x: f(x) or x.sum())(torch.ones(3))),
        "jvp": (r"torch\.func transformation \(jvp\)", lambda f: of.jvp(f, (torch.ones(3),), (torch.ones(3),))),
        "functionalize": (
            r"torch\.func transformation \(functionalize\)",
            lambda f: of.functionalize(f)(torch.ones(3)),
        ),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize("which", ["trace", "trace of a gradient", "make_fx", "make_fx, fake", "make_fx, early",
                                   "export", "fx", "vmap", "grad", "jvp", "functionalize"])  # fmt: skip
def test_torch_recorders(torch, which):
    """Recorded, a call of ours would be an allocation whose memory nobody has written."""
    message, record = recorders(torch)[which]
    for argument, call in WAYS.items():
        with pytest.raises(TypeError, match=rf"{argument} .*{message}"):
            record(call)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torch_recorders_mind_tensors_that_are_not_traced(torch):
    from torch.fx.experimental.proxy_tensor import make_fx

    def beside(call):
        return lambda x: x + call()

    plain, out = torch.tensor([-1.0, 2.0]), torch.full((2,), 7.0)
    for record in (
        lambda f: torch.jit.trace(f, plain, check_trace=False),
        lambda f: make_fx(f)(plain),
        lambda f: torch.func.functionalize(f)(plain),
    ):
        for call in (
            lambda: fastrelu.relu(plain),
            lambda: fastrelu.relu(plain, out=out),
            lambda: fastrelu.relu_(plain),
        ):
            with pytest.raises(TypeError, match=r"relu_?: x is a torch\.Tensor, and .* records"):
                record(beside(call))
    assert plain.tolist() == [-1.0, 2.0]
    assert out.tolist() == [7.0, 7.0]
    assert fastrelu.relu(plain).tolist() == [0.0, 2.0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torch_recorders_see_functions_and_operators(torch):
    """What the messages recommend."""
    from torch.fx.experimental.proxy_tensor import make_fx

    x, y = torch.tensor([-1.0, 2.0]), torch.tensor([5.0, -6.0])

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(grad, y):
            return fastrelu.relu_backward(grad, y)

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return fastrelu.relu(x)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx, grad):
            return Backward.apply(grad, *ctx.saved_tensors)

        @staticmethod
        def vmap(info, dims, x):
            return Forward.apply(x), dims[0]

    assert torch.jit.trace(lambda x: Forward.apply(x), x)(y).tolist() == [5.0, 0.0]
    assert torch.func.grad(lambda x: (Forward.apply(x) ** 2).sum())(x).tolist() == [0.0, 4.0]
    assert torch.func.vmap(Forward.apply)(torch.stack([x, y])).tolist() == [[0.0, 2.0], [5.0, 0.0]]

    @torch.library.custom_op("fastrelu_tests::relu", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        return fastrelu.relu(x)

    operator.register_fake(torch.empty_like)
    assert torch.jit.trace(lambda x: operator(x), x)(y).tolist() == [5.0, 0.0]
    for mode in ("real", "symbolic"):
        assert make_fx(operator, tracing_mode=mode)(x)(y).tolist() == [5.0, 0.0]
    assert torch.func.functionalize(operator)(y).tolist() == [5.0, 0.0]


def test_torch_compile(torch, tmp_path):
    """It breaks its graphs at our functions, and leaves their Python code alone, which it would run on copies."""
    result = python(
        """
        import warnings
        warnings.simplefilter("ignore")
        import numpy as np, torch, fastrelu

        def graphs(function, *arguments):
            found = []
            def backend(graph, inputs):
                found.append(graph)
                return graph.forward
            torch._dynamo.reset()
            compiled = torch.compile(function, backend=backend)
            return [compiled(*arguments) for _ in range(2)][-1], len(found)

        mask = torch.tensor([0b10110101] * 30000, dtype=torch.uint8)
        counts = lambda: torch.zeros(600, dtype=torch.int64)
        CALLS = {
            "relu": lambda x: fastrelu.relu(x * 1) + 1,
            "relu, in place": lambda x: fastrelu.relu_(x * 1) + 1,
            "leaky_relu": lambda x: fastrelu.leaky_relu(x * 1, 0.5, out=torch.empty(400, 600).T) + 1,
            "slopes": lambda x: fastrelu.leaky_relu(x * 1, x[:, :1] * 1) + 1,
            "backward": lambda x: fastrelu.relu_backward_(x * 2, x * 1) + 1,
            "where": lambda x: fastrelu.relu(x * 1, where=x > -1, out=x * 2) + 1,
            "with_mask": lambda x: sum(each.sum() for each in fastrelu.relu_with_mask(x * 1)) + 1,
            "from_mask": lambda x: fastrelu.leaky_relu_backward_from_mask(x * 1, mask, 0.5) + 1,
            "count": lambda x: fastrelu.count_active((x * 1).T) + 1,
            "counts": lambda x: fastrelu.relu_with_counts((x * 1).T, counts()) + 1,
            "slope": lambda x: fastrelu.leaky_relu_slope_grad(x * 1, x * 2) + 1,
            "both": lambda x: sum(fastrelu.leaky_relu_backward_with_slope_grad(x * 1, x * 2)) + 1,
        }
        contiguous = torch.arange(-120000.0, 120000).reshape(600, 400) / 1e5
        for x in (contiguous, contiguous.reshape(400, 600).T):
            for name, call in CALLS.items():
                wanted = call(x)
                found, count = graphs(call, x)
                assert torch.equal(found, wanted), name
                assert count == 2, (name, count)  # one before our call, and one after it: the hook is there again

        def dead(x):
            units = fastrelu.DeadUnits(400)
            units.add(x * 1)
            assert str(fastrelu.explain(fastrelu.count_active, x)) == str(fastrelu.explain(fastrelu.count_active, x))
            return x + torch.from_numpy(units.counts)
        assert torch.equal(graphs(dead, contiguous)[0], dead(contiguous))

        # NumPy's arrays are tensors there too; and a first call compiles
        def numpy(x):
            half = (x * 1).numpy().astype(np.float16).T
            y = fastrelu.relu(half), fastrelu.relu_with_mask(half)[0], fastrelu.ufuncs.leaky_relu(half, np.float16(0.5))
            counts = fastrelu.count_active(half)
            return sum(torch.from_numpy(each.astype(np.float32)) for each in y) + torch.from_numpy(counts)[:1]
        for x in (contiguous, contiguous * 2):
            found = torch.compile(numpy, backend="eager")(x)
            assert torch.equal(found, numpy(x))

        def wrong(x):
            try:
                fastrelu.relu(x * 1, out=torch.empty(3))
            except ValueError as error:
                return x + 1, str(error)
        (found, message), count = graphs(wrong, contiguous)
        assert torch.equal(found, contiguous + 1) and "relu: out" in message, message

        with_grad = torch.ones(3, requires_grad=True)
        try:
            graphs(lambda x: fastrelu.relu(x * 1), with_grad)
        except TypeError as error:
            assert "requires grad" in str(error)
        else:
            raise AssertionError
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert not result.stdout


def test_onnx_export(torch, monkeypatch):
    """The older exporter looks into functions of autograd too."""
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return fastrelu.relu(x)

    for call in (fastrelu.relu, Forward.apply):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(TypeError, match=r"relu: x .*torch\.onnx\.export.*is_in_onnx_export"):
                torch.jit.trace(lambda x, call=call: call(x), torch.ones(3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_forward_mode(torch):
    x = torch.ones(3, 2)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        with pytest.raises(TypeError, match="relu: x carries a forward-mode tangent"):
            fastrelu.relu(dual)


def bodiless(torch):
    """Return tensors that promise more elements than they have memory for."""

    def resized(size, of=lambda t: t):
        tensor = torch.arange(-500.0, 500.0)
        part = of(tensor)
        tensor.untyped_storage().resize_(size)
        return part

    class Wrapper(torch.Tensor):
        @staticmethod
        def __new__(cls, inner):
            return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            raise NotImplementedError

    with torch._subclasses.fake_tensor.FakeTensorMode():
        fake, no_fake = torch.ones(3), torch.ones(0)
    return {
        "freed": resized(0),
        "shrunk": resized(3996),
        "view of shrunk": resized(2000, lambda t: t[400:]),
        "strided view of shrunk": resized(3992, lambda t: t[1::2]),
        "data of freed": resized(0, lambda t: t.data),
        "detached of shrunk": resized(8, lambda t: t.detach()),
        "bfloat16": resized(8, lambda t: t.view(torch.bfloat16)),
        "fake": fake,
        "empty fake": no_fake,
        "wrapper": Wrapper(torch.ones(3)),
        "empty wrapper": Wrapper(torch.ones(0)),
        "zeros": torch._efficientzerotensor(3),
        "uninitialized": torch.nn.parameter.UninitializedBuffer(),
    }


@pytest.mark.parametrize("which", ["freed", "shrunk", "view of shrunk", "strided view of shrunk", "data of freed",
                                   "detached of shrunk", "bfloat16", "fake", "empty fake", "wrapper", "empty wrapper",
                                   "zeros", "uninitialized"])  # fmt: skip
def test_tensors_without_memory(torch, which):
    tensor = bodiless(torch)[which]
    for argument, call in WAYS.items():
        with pytest.raises(
            TypeError, match=rf"{argument} is a \w*[.<>\w]* (without memory|whose elements have no memory)"
        ):
            call(tensor)


def test_tensors_with_just_enough_memory(torch):
    base = torch.arange(-5.0, 5.0)
    first, last, every, none = base[:7], base[3:7], base[1:7:3], base[8:8]
    base.untyped_storage().resize_(28)
    for view in (first, last, every, none):
        same(fastrelu.relu(view), np.maximum(view.numpy(), 0))
    assert fastrelu.relu_(first) is first
    assert last.tolist() == [0.0, 0.0, 0.0, 1.0]
    shared = torch._lazy_clone(base[:0].new_tensor([-1.0, 2.0]))  # torch copies it once it is written to
    copy = torch._lazy_clone(shared)
    fastrelu.relu_(copy)
    assert shared.tolist() == [-1.0, 2.0]
    assert copy.tolist() == [0.0, 2.0]


def test_torch_outputs_that_overlap_themselves(torch):
    base = torch.linspace(-1, 1, 9)
    before = base.clone()
    for bad in (base.as_strided((3, 3), (1, 1)), base.as_strided((2, 4), (3, 1)), base[:1].expand(9)):
        for call in (
            lambda bad=bad: fastrelu.relu_(bad),
            lambda bad=bad: fastrelu.relu(torch.ones(bad.shape), out=bad),
            lambda bad=bad: fastrelu.relu_with_mask_(bad),
        ):
            with pytest.raises(ValueError, match=r"several elements of (x|out) are one in memory"):
                call()
    assert torch.equal(base, before)
    woven = base.as_strided((2, 3), (3, 2))  # 0 2 4, 3 5 7
    fastrelu.relu_(woven)
    assert torch.equal(woven, before.as_strided((2, 3), (3, 2)).clamp(min=0))
    assert base[1] == before[1]


def test_torch_copies_before_writes(torch):
    """In this mode, torch's own in-place functions leave what was saved as it was; we cannot."""
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        y = x.clone()
        loss = (y * y).sum()
        with torch.no_grad():
            for call in (
                lambda: fastrelu.relu_(y),
                lambda: fastrelu.relu(torch.ones(2), out=y),
                lambda: fastrelu.relu_with_mask_(y),
                lambda: fastrelu.relu_with_counts(torch.ones(1, 2), y.to(torch.int64)),
            ):
                with pytest.raises(TypeError, match="allow_mutation_on_saved_tensors"):
                    call()
            assert fastrelu.relu(y).tolist() == [0.0, 2.0]
        loss.backward()
    assert x.grad.tolist() == [-2.0, 4.0]


def test_torch_inference_mode(torch):
    with torch.inference_mode():
        x = torch.tensor([-1.0, 2.0])
        y = fastrelu.leaky_relu(x, 0.5)
        assert fastrelu.relu_(x) is x
    assert y.tolist() == [-0.5, 2.0]
    with pytest.raises(TypeError, match="inference tensor"):
        fastrelu.relu_(y)
    assert fastrelu.relu(y).tolist() == [0.0, 2.0]
    assert y.tolist() == [-0.5, 2.0]


def test_torch_subclasses(torch):
    weights = torch.nn.Parameter(torch.tensor([-1.0, 2.0]))
    with pytest.raises(TypeError, match="x requires grad"):
        fastrelu.relu(weights)
    with torch.no_grad():
        assert type(fastrelu.relu(weights)) is type(torch.relu(weights)) is torch.Tensor
        assert fastrelu.relu_(weights) is weights
    assert weights.tolist() == [0.0, 2.0]

    class Mine(torch.Tensor):
        pass

    class Elsewhere(torch.Tensor):
        """One that answers some functions with other tensors."""

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.detach:
                return torch.full((2,), 99.0)
            return super().__torch_function__(function, types, args, kwargs or {})

    elsewhere = torch.tensor([-1.0, 2.0]).as_subclass(Elsewhere)
    assert fastrelu.relu(elsewhere).tolist() == [0.0, 2.0]
    assert fastrelu.relu_(elsewhere) is elsewhere
    assert elsewhere.tolist() == [0.0, 2.0]
    mine = torch.tensor([-1.0, 2.0]).as_subclass(Mine)
    result = fastrelu.relu(mine)
    assert type(result) is Mine
    assert result.tolist() == [0.0, 2.0]


def test_jax_is_immutable(jax):
    x = jax.numpy.array([-1.0, 2.0])
    for call in (
        lambda: fastrelu.relu_(x),
        lambda: fastrelu.relu(x, out=x),
        lambda: fastrelu.relu(x, out=(x,)),
        lambda: fastrelu.relu_backward_(x, x),
        lambda: fastrelu.explain(fastrelu.relu_, x),
    ):
        with pytest.raises(TypeError, match="JAX arrays are immutable"):
            call()
    assert x.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (5, 7), (300, 400)])
def test_jax_shapes(jax, shape):
    x = ramp(*shape)
    result = fastrelu.leaky_relu(jax.numpy.asarray(x), 0.5)
    assert isinstance(result, jax.Array)
    assert_same(np.asarray(result), np.asarray(fastrelu.leaky_relu(x, 0.5)))
    assert_same(np.asarray(fastrelu.relu(jax.numpy.asarray(x).T)), np.asarray(fastrelu.relu(x.T)))


def test_jax_results_keep_their_memory(jax):
    """The memory of a result lives as long as JAX needs it, also when JAX computes with it later."""
    x = jax.numpy.asarray(ramp(3000))
    results = [fastrelu.leaky_relu(x, float(k)) for k in range(50)]
    gc.collect()
    fill = [np.full(3064, 7, np.float32) for _ in range(50)]
    for k, result in enumerate(results):
        assert_same(np.asarray(result), fastrelu.leaky_relu(ramp(3000), float(k)))
    assert len(fill) == 50
    assert float((fastrelu.relu(x) + 1).sum()) == pytest.approx(float((fastrelu.relu(ramp(3000)) + 1).sum()))


def test_jax_without_64_bits(jax):
    integers = jax.numpy.arange(3)
    with pytest.raises(TypeError, match="float64, which JAX holds only with jax_enable_x64"):
        fastrelu.leaky_relu(integers)
    with pytest.raises(TypeError, match="float64, which JAX holds only with jax_enable_x64"):
        fastrelu.leaky_relu(jax.numpy.ones(3), np.float64(0.1))
    assert fastrelu.leaky_relu(jax.numpy.ones(3), 0.1).dtype == np.float32
    assert fastrelu.relu(jax.numpy.ones(3), dtype=jax.numpy.float32).dtype == np.float32


def test_jax_with_64_bits_and_several_devices():
    load("jax")
    run_python(
        "import jax, fastrelu, numpy as np\n"
        "x = jax.numpy.linspace(-1, 1, 10)\n"
        "assert x.dtype == np.float64\n"
        "y = fastrelu.leaky_relu(x)\n"
        "assert y.dtype == np.float64 and not y.committed\n"
        "assert np.array_equal(y, fastrelu.leaky_relu(np.asarray(x)))\n"
        "assert fastrelu.leaky_relu(jax.numpy.arange(3)).dtype == np.float64\n"
        "first, second = jax.devices()\n"
        "z = fastrelu.relu(jax.device_put(x, second))\n"
        "assert z.devices() == {second} and z.committed\n"
        "mesh = jax.sharding.Mesh(np.array(jax.devices()), ('i',))\n"
        "x = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('i')))\n"
        "try:\n"
        "    fastrelu.relu(x)\n"
        "except TypeError as error:\n"
        "    assert 'relu: x is spread over 2 devices' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n",
        JAX_ENABLE_X64="1",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )


def test_jax_arrays_that_are_refused(jax):
    x = jax.numpy.ones(3)
    for dtype in ("complex64", "int4", "float8_e5m2"):
        with pytest.raises(TypeError, match=f"relu: x is of dtype {dtype}"):
            fastrelu.relu(x.astype(dtype))
    with pytest.raises(TypeError, match="relu: x is of dtype key"):
        fastrelu.relu(jax.random.key(0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("which", ["jit", "grad", "vmap", "jvp", "eval_shape", "make_jaxpr", "checkpoint", "scan"])
def test_jax_recorders(jax, which):
    x = jax.numpy.ones(3)
    record = {
        "jit": lambda f: jax.jit(f)(x),
        "grad": lambda f: jax.grad(f)(x),
        "vmap": lambda f: jax.vmap(f)(x),
        "jvp": lambda f: jax.jvp(f, (x,), (x,)),
        "eval_shape": lambda f: jax.eval_shape(f, x),
        "make_jaxpr": lambda f: jax.make_jaxpr(f)(x),
        "checkpoint": lambda f: jax.checkpoint(f)(x),
        "scan": lambda f: jax.lax.scan(lambda carry, x: (carry, f(x)), 0.0, x),
    }[which]
    for argument, call in WAYS.items():
        with pytest.raises(TypeError, match=rf"{argument} is traced by JAX.*pure_callback.*custom_vjp"):
            record(call)


def test_jax_references(jax):
    if not hasattr(jax, "Ref"):
        pytest.skip("this JAX has none")
    reference = jax.new_ref(jax.numpy.array([-1.0, 2.0]))
    for argument, call in WAYS.items():
        with pytest.raises(TypeError, match=rf"{argument} is a jax\.Ref.*its value"):
            call(reference)
    assert fastrelu.relu(reference[...]).tolist() == [0.0, 2.0]


def test_jax_arrays_that_are_gone(jax):
    donated = jax.numpy.ones(1000)
    jax.jit(lambda x: x + 1, donate_argnums=0)(donated)
    deleted = jax.numpy.ones(3)
    deleted.delete()
    for gone in [deleted] + [donated] * donated.is_deleted():
        for argument, call in WAYS.items():
            with pytest.raises(ValueError, match=rf"{argument} is a jax\.Array whose memory was given away"):
                call(gone)


def test_mixed_libraries(torch, jax):
    t, j, n = torch.tensor([-1.0, 2.0]), jax.numpy.array([-1.0, 2.0]), np.array([-1.0, 2.0], np.float32)
    for a, b, first, second in [
        (t, j, "torch.Tensor", "jax.Array"),
        (j, t, "jax.Array", "torch.Tensor"),
        (t, n, "torch.Tensor", "numpy.ndarray"),
        (n, t, "torch.Tensor", "numpy.ndarray"),
        (j, n, "jax.Array", "numpy.ndarray"),
        (n, j, "jax.Array", "numpy.ndarray"),
        (t, n[0, ...], "torch.Tensor", "numpy.ndarray"),
        (t, np.ma.masked_array(n), "torch.Tensor", "numpy.MaskedArray"),
        (t, [1.0, 2.0], "torch.Tensor", "list"),
        ([1.0, 2.0], t, "torch.Tensor", "list"),
    ]:
        for function in (fastrelu.leaky_relu, fastrelu.relu_backward):
            with pytest.raises(TypeError, match=f"is a {first}, but .* is a {second}"):
                function(a, b)
    for bad in (None, "0.1", object()):
        with pytest.raises(TypeError, match=r"x is a torch\.Tensor, but negative_slope is a (NoneType|str|object)"):
            fastrelu.leaky_relu_(t, bad)
    for a, b in ((t, n), (n, t)):
        with pytest.raises(TypeError, match=r"is a torch\.Tensor, but .* is a numpy"):
            fastrelu.relu_backward_(a, b)
    for call in (
        lambda: fastrelu.relu(t, out=n),
        lambda: fastrelu.relu(n, out=t),
        lambda: fastrelu.relu(t, where=np.array([True, False])),
        lambda: fastrelu.relu(n, where=torch.tensor([True, False])),
        lambda: fastrelu.relu(-1.0, out=n, where=torch.tensor([True, False])),
        lambda: fastrelu.relu([1.0, 2.0], out=t),
    ):
        with pytest.raises(TypeError, match=r"is a torch\.Tensor, but .* is a (numpy\.ndarray|list)"):
            call()
    assert n.tolist() == t.tolist() == j.tolist() == [-1.0, 2.0]


def test_numbers_beside_tensors(torch):
    t = torch.tensor([-1.0, 2.0])
    assert fastrelu.leaky_relu(t, np.float32(0.5)).tolist() == [-0.5, 2.0]
    assert fastrelu.relu_grad(t, True).tolist() == [0.0, 1.0]
    assert fastrelu.relu_backward(1.0, t).tolist() == [0.0, 1.0]
    for bad in (1j, np.complex64(1), np.datetime64("2020"), np.longdouble(1) if np.dtype("g").itemsize > 8 else 1j):
        with pytest.raises(TypeError, match="leaky_relu: negative_slope is of dtype"):
            fastrelu.leaky_relu(t, bad)
    with pytest.raises(TypeError, match="out is a float"):
        fastrelu.relu(t, out=1.0)


def test_errors_leave_tensors_alone(torch):
    t, out = torch.tensor([-1.0, 2.0]), torch.full((2,), 7, dtype=torch.int32)
    version = t._version
    for kind, message, call in [
        (TypeError, "cast", lambda: fastrelu.relu(t, out=out)),
        (TypeError, "cast", lambda: fastrelu.leaky_relu_(out)),
        (ValueError, "shape|broadcast", lambda: fastrelu.relu(t, out=torch.ones(3))),
        (ValueError, "broadcast", lambda: fastrelu.leaky_relu(t, torch.ones(3))),
        (ValueError, "target=", lambda: fastrelu.relu(t, target="gpu")),
        (ValueError, "target=", lambda: fastrelu.relu_(t, target="gpu")),
        (TypeError, "nonsense", lambda: fastrelu.relu(t, nonsense=1)),
        (TypeError, "nonsense", lambda: fastrelu.relu_(t, nonsense=1)),
        (RuntimeError, "not available", lambda: fastrelu.relu_(t, target="cuda")),
        (TypeError, r"the result is of dtype torch\.float8", lambda: fastrelu.relu(t, dtype=torch.float8_e5m2)),
    ]:
        if "not available" in message and "not available" not in cuda_status():
            continue
        with pytest.raises(kind, match=message):
            call()
    assert t.tolist() == [-1.0, 2.0]
    assert out.tolist() == [7, 7]
    assert t._version == version


def cuda_status():
    try:
        fastrelu.relu(np.ones(1), target="cuda")
    except RuntimeError as error:
        return str(error)
    return ""


def test_targets_and_explain(library):
    into, back, _kind = library
    x = ramp(1 << 20)
    assert fastrelu.explain(fastrelu.relu, into(x[:3])).target == "serial"
    for target in ("serial", "parallel"):
        assert fastrelu.explain(fastrelu.relu, into(x), target=target).target == target
        with fastrelu.configure(target=target):
            assert fastrelu.explain(fastrelu.relu, into(x)).target == target
            assert_same(back(fastrelu.relu(into(x))), fastrelu.relu(x))
    with fastrelu.configure(streaming_min_bytes=0):
        assert fastrelu.explain(fastrelu.relu, into(x)).store == "streaming"
        assert str(fastrelu.explain(fastrelu.relu, into(x))) == str(fastrelu.explain(fastrelu.relu, x))


def test_no_library_is_imported():
    run_python(
        "import sys, numpy as np, fastrelu\n"
        "fastrelu.relu(np.ones((300, 400)).T, target='serial')\n"
        "fastrelu.explain(fastrelu.relu, np.ones(3))\n"
        "assert not {'torch', 'jax', 'pandas', 'xarray'} & set(sys.modules)"
    )


class Namespace:
    """An array of a library nobody thought of: NumPy would convert it without a word."""

    def __array_namespace__(self, api_version=None):
        return np

    def __array__(self, dtype=None, copy=None):
        return np.array([-1.0, 2.0])


class DLPack:
    def __dlpack__(self, **kwargs):
        return np.array([-1.0, 2.0]).__dlpack__()

    def __array__(self, dtype=None, copy=None):
        return np.array([-1.0, 2.0])


class DLPackDevice(DLPack):
    def __dlpack_device__(self):
        return (1, 0)


@pytest.mark.parametrize("kind", [Namespace, DLPack, DLPackDevice])
def test_unknown_libraries_are_refused(kind):
    value, x = kind(), np.array([-1.0, 2.0])
    for argument, call in [
        ("x", lambda: fastrelu.relu(value)),
        ("x", lambda: fastrelu.relu_(value)),
        ("grad", lambda: fastrelu.relu_backward(value, x)),
        ("negative_slope", lambda: fastrelu.leaky_relu(x, value)),
        ("out", lambda: fastrelu.relu(x, out=value)),
    ]:
        with pytest.raises(TypeError, match=rf"{argument} is a tests\.{kind.__name__}, which is not a NumPy array"):
            call()


def test_unknown_library_beside_torch(torch):
    with pytest.raises(TypeError, match=r"x is a torch\.Tensor, but negative_slope is a tests\.DLPackDevice"):
        fastrelu.leaky_relu(torch.ones(2), DLPackDevice())


# Containers that need no code of ours: NumPy calls their own __array_ufunc__ or __array_wrap__.


def test_pandas():
    pd = load("pandas")
    index = pd.Index(["a", "b", "c"], name="key")
    series = pd.Series([-1.0, 0.0, 2.0], index=index, name="z", dtype="float32")
    for target in TARGETS:
        result = fastrelu.leaky_relu(series, 0.5, target=target)
        pd.testing.assert_series_equal(result, pd.Series([-0.5, 0.0, 2.0], index=index, name="z", dtype="float32"))
    other = pd.Series([1.0, 10.0, 100.0], index=["c", "b", "a"], dtype="float32")
    result = fastrelu.relu_backward(other, series)  # aligned by label
    assert result.to_dict() == {"a": 0.0, "b": 0.0, "c": 1.0}
    frame = pd.DataFrame({"u": [-1.0, 2.0], "v": np.array([3, -4], np.int64)}, index=["p", "q"])
    result = fastrelu.relu(frame)
    pd.testing.assert_frame_equal(result, pd.DataFrame({"u": [0.0, 2.0], "v": [3, 0]}, index=["p", "q"]))
    nullable = pd.Series([-1.0, None, 2.0], dtype="Float64")
    pd.testing.assert_series_equal(fastrelu.relu(nullable), pd.Series([0.0, None, 2.0], dtype="Float64"))
    assert type(fastrelu.relu(pd.Index([-1.0, 2.0], name="i"))) is pd.Index
    mine = series.copy()
    assert fastrelu.relu_(mine) is mine
    pd.testing.assert_series_equal(mine, fastrelu.relu(series))


def test_xarray():
    xr = load("xarray")
    load("pandas")
    x = ramp(2, 3)
    array = xr.DataArray(x, dims=("row", "unit"), coords={"row": [10, 20]}, name="z", attrs={"units": "1"})
    for target in TARGETS:
        result = fastrelu.leaky_relu(array, 0.5, target=target)
        assert type(result) is xr.DataArray
        xr.testing.assert_identical(result, array.copy(data=fastrelu.leaky_relu(x, 0.5)))
    slope = xr.DataArray(np.array([0.5, -1.0, 2.0], np.float32), dims="unit")  # by name, not by position
    assert_same(fastrelu.leaky_relu(array.T, slope).transpose("row", "unit").values,
                fastrelu.leaky_relu(x, slope.values))  # fmt: skip
    data = xr.Dataset({"a": array, "b": array + 1}, attrs={"source": "here"})
    xr.testing.assert_identical(fastrelu.relu(data)["b"], fastrelu.relu(data["b"]))


def test_masked_arrays():
    x = np.ma.masked_array([-1.0, 2.0, -3.0], mask=[False, False, True], fill_value=9)
    for name in OPERATIONS:
        result = public(name)(*[x] * (1 + (name in BINARY)))
        assert type(result) is np.ma.MaskedArray
        assert result.mask.tolist() == [False, False, True]
        assert_same(result.data[:2], public(name)(*[x.data[:2]] * (1 + (name in BINARY))))
    assert fastrelu.relu_(x) is x
    assert x.filled(9).tolist() == [0.0, 2.0, 9.0]


@pytest.mark.parametrize("shape", [(7,), (300, 400)])
def test_memmap(tmp_path, shape):
    x = ramp(*shape)
    file = tmp_path / "x"
    x.tofile(file)
    mapped = np.memmap(file, np.float32, "r", shape=shape)
    assert_same(np.asarray(fastrelu.relu(mapped)), fastrelu.relu(x))
    out = np.memmap(tmp_path / "y", np.float32, "w+", shape=shape)
    assert fastrelu.leaky_relu(mapped, 0.5, out=out) is out
    out.flush()
    assert_same(np.fromfile(tmp_path / "y", np.float32).reshape(shape), fastrelu.leaky_relu(x, 0.5))
    with pytest.raises(ValueError, match="read-only"):
        fastrelu.relu_(mapped)
    writable = np.memmap(file, np.float32, "r+", shape=shape)
    assert fastrelu.relu_(writable) is writable
    writable.flush()
    assert_same(np.fromfile(file, np.float32).reshape(shape), fastrelu.relu(x))


def test_numpy_subclasses():
    class Tagged(np.ndarray):
        def __array_finalize__(self, source):
            self.tag = getattr(source, "tag", None)

    for shape in ((3,), (300, 400)):
        x = ramp(*shape).view(Tagged)
        x.tag = "kept"
        for value in (x, x.T):
            result = fastrelu.leaky_relu(value, 0.5)
            assert type(result) is Tagged
            assert result.tag == "kept"
            assert_same(np.asarray(result), fastrelu.leaky_relu(np.asarray(value), 0.5))
        assert fastrelu.relu_(x) is x
