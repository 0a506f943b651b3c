"""Stand-ins for what this machine may not have: other libraries' arrays, and a driver that records."""

import contextlib
import ctypes
import types

import numpy as np

from fastrelu._cuda import dlpack, simulator


class Interface:
    """Host memory that claims to be a GPU's, by the CUDA Array Interface."""

    def __init__(self, array, stream=None, readonly=False, **more):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "strides": array.strides, "typestr": array.dtype.str, "version": 3,
            "data": (array.ctypes.data, readonly), "stream": stream, **more,
        }  # fmt: skip


def memory(pointer, shape, dtype):
    """Return memory at an address as an array."""
    raw = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(pointer)
    return np.frombuffer(raw, dtype).reshape(shape)


class Gpu:
    """What we ask of a JAX device."""

    platform = "gpu"


class OnlyDLPack:
    """An array in GPU memory with nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream=None):
        return self.array.__dlpack__()


class JaxArray(OnlyDLPack):
    """What we ask of a JAX array."""

    def __init__(self, array):
        super().__init__(array)
        self.dtype = array.dtype

    def devices(self):
        return {Gpu()}

    def is_deleted(self):
        return False


class Tensor:
    """What we ask of a torch tensor."""

    def __init__(
        self, array, *, grad=False, neg=False, dtype=None, layout="strided", nested=False, tangent=None, resized=None,
        storage_device="cuda:0", inference=False,
    ):  # fmt: skip
        self.array, self.requires_grad, self._neg = array, grad, neg
        self.dtype = f"torch.{array.dtype}" if dtype is None else dtype
        self.is_cuda, self.layout, self.is_nested, self.tangent = True, layout, nested, tangent
        self.device = types.SimpleNamespace(index=0)
        #: Bytes of the storage after it was resized, and on which device it is; one of "no" device has no storage.
        self.resized = resized
        self.storage_device = self.device if storage_device == "cuda:0" else storage_device
        self.shape, self.version, self.inference = array.shape, 0, inference

    def is_neg(self):
        return self._neg

    def is_inference(self):
        return self.inference

    def is_contiguous(self):
        if self.layout != "strided":
            raise RuntimeError("Sparse CSR tensors do not have is_contiguous")
        return self.array.flags.c_contiguous

    def numel(self):
        return self.array.size

    def get_device(self):
        return 0

    def data_ptr(self):
        if self.storage_device == "no":
            raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")
        return 0 if self.resized == 0 or self.storage_device == "meta" else self.array.ctypes.data

    def element_size(self):
        return self.array.itemsize

    def storage_offset(self):
        return 0

    def untyped_storage(self):
        if self.storage_device == "no":
            raise RuntimeError("Cannot access storage of BatchedTensorImpl")
        whole = sum(n * step for n, step in zip(self.array.shape, self.array.strides, strict=True)) + 1024
        nbytes = whole if self.resized is None else self.resized
        return types.SimpleNamespace(nbytes=lambda: nbytes, device=self.storage_device)

    def stride(self):
        return tuple(step // self.array.itemsize for step in self.array.strides)


def torch():
    """Return a module that looks like torch, as far as we look."""
    module = types.ModuleType("torch")
    names = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
    for name in names:
        setattr(module, name, f"torch.{name}")
    module.Tensor, module.strided = Tensor, "strided"
    module.is_grad_enabled = lambda: True
    module.is_inference_mode_enabled = lambda: False
    module.recorder = None  # "trace", "transform", "proxies" or "copies"
    module.jit = types.SimpleNamespace(is_tracing=lambda: module.recorder == "trace")
    module.onnx = types.SimpleNamespace(is_in_onnx_export=lambda: False)
    level = types.SimpleNamespace(key=lambda: types.SimpleNamespace(name="Grad"))
    module._C = types.SimpleNamespace(
        _cuda_getCurrentRawStream=lambda device: 77,
        _is_tracing=module.jit.is_tracing,
        _get_tracing_state=lambda: None,
        _is_fwd_grad_enabled=lambda: True,
        _len_torch_dispatch_stack=lambda: int(module.recorder == "copies"),
        _functorch=types.SimpleNamespace(
            peek_interpreter_stack=lambda: level if module.recorder == "transform" else None
        ),
    )

    class Symbolic:
        @property
        def _is_fx_tracing_flag(self):
            return module.recorder == "proxies"

    module.fx = types.SimpleNamespace(_symbolic_trace=Symbolic())
    module.utils = types.SimpleNamespace(
        _python_dispatch=types.SimpleNamespace(_get_current_dispatch_mode_stack=lambda: [0])
    )

    def new(shape, dtype, device):
        return Tensor(np.zeros(shape, dtype.removeprefix("torch.")))

    def like(value, dtype=None):
        return Tensor(np.zeros_like(value.array, (dtype or value.dtype).removeprefix("torch.")))

    def increment(value):
        value.version += 1

    module.empty, module.empty_like = new, like
    module.cuda = types.SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (RuntimeError,), {}))
    module.autograd = types.SimpleNamespace(
        graph=types.SimpleNamespace(increment_version=increment, _CloneArgBeforeMutateMode=int),
        forward_ad=types.SimpleNamespace(_current_level=-1, unpack_dual=lambda value: value),
    )
    return module


class CupyArray(Interface):
    """What we ask of a CuPy array."""

    def __init__(self, array):
        super().__init__(array)
        self.data, self.device = types.SimpleNamespace(ptr=array.ctypes.data), types.SimpleNamespace(id=0)
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype


def cupy():
    """Return a module that looks like CuPy, as far as we look; its current stream is 66."""
    module = types.ModuleType("cupy")
    module.ndarray = CupyArray
    module.empty = lambda shape, dtype, order: CupyArray(np.zeros(shape, dtype, order))
    module.cuda = types.SimpleNamespace(
        Device=lambda device: contextlib.nullcontext(),
        get_current_stream=lambda device: types.SimpleNamespace(ptr=66),
        memory=types.SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (RuntimeError,), {})),
    )
    return module


def jax():
    """Return a module that looks like JAX, as far as we look."""
    module = types.ModuleType("jax")

    def adopt(export):
        pointer, shape, _, dtype, _ = dlpack.read(export.__dlpack__(stream=7))
        return JaxArray(memory(pointer, shape, dtype))

    module.Array = JaxArray
    module.core = types.SimpleNamespace(Tracer=type("Tracer", (), {}))
    module.numpy = types.SimpleNamespace(empty=lambda shape, dtype, device: JaxArray(np.zeros(shape, dtype)))
    module.dlpack = types.SimpleNamespace(from_dlpack=adopt)
    return module


class Configuration(ctypes.Structure):
    """CUlaunchConfig, written down once more from cuda.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.c_void_p), ("count", ctypes.c_uint),
    )  # fmt: skip


class Driver(simulator.Driver):
    """A driver that runs nothing and writes down what it is asked."""

    def __init__(self, codes=()):
        super().__init__()
        self.log, self.launches, self.codes = [], [], list(codes)

    def wait(self, waiting, first, device):
        self.log.append(("wait", waiting, first))

    def keep(self, stream, device, what):
        self.log.append(("keep", stream, device, what))

    def make_current(self, device):
        self.log.append(("current", device))

    def error(self, code, what):
        return MemoryError(what) if code == 2 else RuntimeError(f"{what}: {code}")

    def launch(self, start, handle, table, extra):
        self.launches.append((Configuration.from_address(start), handle, table, extra))
        return self.codes.pop(0) if self.codes else 0
