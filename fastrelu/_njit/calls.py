"""A call in compiled code, emitted where it stands: checks, the mask, and the formula on numbers or over arrays."""

from numba.core import cgutils, types
from numba.core.cpu import CPUContext

from .._kernels.emit import compiled
from .._operations import FUNCTIONS
from . import arrays, signatures
from .arrays import View
from .bitmask import Active, length, pack, unpack
from .loops import fill
from .quiet import Quiet


def emit(name, context, builder, sig, args):
    """Emit a call of a public function, on arguments that Numba has put in the order of its signature."""
    return _Call(name, context, builder, sig.args, args).emit()


class _Call:
    def __init__(self, name, context, builder, kinds, values):
        self.name, self.row, self.context, self.builder = name, FUNCTIONS[name], context, builder
        parameters = signatures.flat(name).parameters
        self.kinds = dict(zip(parameters, kinds, strict=True))
        self.values = dict(zip(parameters, values, strict=True))
        self.plan = signatures.plan(name, self.kinds)

    def emit(self):
        row, plan = self.row, self.plan
        operands = {each: self._operand(source) for each, source in plan.sources.items()}
        views = [operand for operand in operands.values() if isinstance(operand, View)]
        out = self._view(plan.out) if plan.out else None
        shape = self._shape(views, out)
        if row.writes_bitmask:
            mask = self._write_mask(views[0])
        if row.reads_bitmask:
            active = self._read_mask(views[0])
            operands["mask"] = active.view
        result = self._compute([operands[each] for each in row.names], shape, out)
        if row.reads_bitmask:
            active.free()
        if row.writes_bitmask and self.name != row.name:
            return mask
        if out:
            self.context.nrt.incref(self.builder, plan.computes, result)
        return self.context.make_tuple(self.builder, plan.result, [result, mask]) if row.writes_bitmask else result

    def _view(self, parameter):
        """Return an array that was given, whose elements are seen in the type to compute in."""
        kind, value = self.kinds[parameter], self.values[parameter]
        return arrays.view(self.context, self.builder, kind, value, self.plan.computed)

    def _operand(self, parameter):
        """Return an array or a number that was given, in the type to compute in."""
        kind = self.kinds[parameter]
        if isinstance(kind, types.Array):
            return self._view(parameter)
        return self.context.cast(self.builder, self.values[parameter], kind, self.plan.computed)

    def _formula(self, name, result, kinds):
        """Return what emits a formula, whose comparisons raise no flag on the CPU."""

        def quiet(kind):
            return Quiet(kind) if isinstance(kind, types.Float) and isinstance(self.context, CPUContext) else kind

        return compiled(self.context, name, quiet(result), *map(quiet, kinds))

    def _demand(self, condition, message):
        with self.builder.if_then(self.builder.not_(condition), likely=False):
            self.context.call_conv.return_user_exc(self.builder, ValueError, (f"fastrelu: {message}",))

    def _shape(self, views, out):
        """Return the shape of the result, to which all views broadcast; beside a mask it is that of the data."""
        has_mask = self.row.has_bitmask
        if out:
            if has_mask:
                same = arrays.fit(self.builder, [out], views[0].shape)
                self._demand(same, "out must have the shape of the result")
            shape, message = out.shape, "operands could not be broadcast to the shape of the output"
        elif views:
            shape = views[0].shape if has_mask else arrays.common_shape(self.builder, views)
            message = "operands could not be broadcast together"
        else:
            return None
        self._demand(arrays.fit(self.builder, views, shape), message)
        return shape

    def _mask(self, parameter, data):
        """Return the mask that was given for some data."""
        (size,) = self._view(parameter).shape
        right = self.builder.icmp_signed("==", size, length(self.builder, data))
        self._demand(right, "a mask has one byte for every eight elements")
        return self.values[parameter]

    def _write_mask(self, data):
        """Return the mask of some data, a new one or that which was given, as a reference of its own."""
        context, builder, kind = self.context, self.builder, self.kinds["mask_out"]
        if signatures.is_none(kind):
            kind = signatures.BITMASK
            mask = arrays.empty(context, builder, kind, [length(builder, data)])
        else:
            mask = self._mask("mask_out", data)
            context.nrt.incref(builder, kind, mask)
        active = Active(context, builder, data.shape)
        fill(builder, self._formula("active", types.boolean, [self.plan.computed]), [data], active.view)
        active.call(pack, kind, mask)
        active.free()
        return mask

    def _read_mask(self, data):
        mask = self._mask("mask", data)
        active = Active(self.context, self.builder, data.shape)
        active.call(unpack, self.kinds["mask"], mask)
        return active

    def _compute(self, operands, shape, out):
        """Return the result: a number, a new array, or the output that was given."""
        plan, row, context, builder = self.plan, self.row, self.context, self.builder
        kinds = [types.boolean if each.kind == "bitmask" else plan.computed for each in row.operands]
        formula = self._formula(row.formula, plan.computed, kinds)
        if not isinstance(plan.computes, types.Array):
            loaded = [each.element.load(builder, each.address) if isinstance(each, View) else each for each in operands]
            return formula(builder, loaded)

        def of_elements(builder, elements):
            rest = iter(elements)
            return formula(builder, [next(rest) if isinstance(each, View) else each for each in operands])

        views = [arrays.broadcast(builder, each, shape) for each in operands if isinstance(each, View)]
        parameters = sum(isinstance(each, View) for each in operands[len(row.data) :])
        if out:
            self._fill_output(of_elements, views, out, parameters)
            return self.values[plan.out]
        array = arrays.empty(context, builder, plan.computes, shape)
        made = arrays.view(context, builder, plan.computes, array, plan.computed)
        fill(builder, of_elements, views, made, parameters)
        return array

    def _fill_output(self, formula, views, out, parameters):
        """Fill an output that was given, by way of a copy where it overlaps an operand without being the same array."""
        context, builder, given = self.context, self.builder, self.values[self.plan.out]
        kind = types.Array(self.plan.computes.dtype, self.plan.computes.ndim, "C")
        overlaps = arrays.overlap(builder, views, out)
        place = cgutils.alloca_once_value(builder, given)
        with builder.if_then(overlaps, likely=False):
            builder.store(arrays.empty(context, builder, kind, out.shape), place)
        target = arrays.view(context, builder, kind, builder.load(place), self.plan.computed)
        fill(builder, formula, views, target, parameters)
        with builder.if_then(overlaps, likely=False):
            copy = builder.load(place)
            source, target = (arrays.view(context, builder, kind, array, kind.dtype) for array in (copy, given))
            fill(builder, lambda builder, values: values[0], [source], target)
            context.nrt.decref(builder, kind, copy)
