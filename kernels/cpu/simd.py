"""Vector instructions for kernels: one width for the process, and how operands are packed.

Everything here works on bare pointers and emits LLVM vector code; the register tile is in tiles.py.

A packed operand is cut into panels of PANEL vectors' width, `width(pointer)` columns each: b[p, j]
lies at b[p * width + j]. The rows of a lie in such panels too, so that one packed matrix can be the
left operand of one product and the right operand of another.
"""

import os

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _vector_bytes():
    features = llvm.get_host_cpu_features()
    asked = os.environ.get("FASTBP_SIMD", "")
    if asked:
        if asked not in ("128", "256", "512"):
            raise ValueError(f"FASTBP_SIMD: expected 128, 256 or 512 bits, got {asked!r}")
        return int(asked) // 8
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


VECTOR_BYTES = _vector_bytes()
PANEL = 2  # vectors in a panel's row: two loads of b feed all rows of a tile
STEPS = 4  # steps of k per turn of the inner loop; packed operands are zero up to a multiple of it

# Rows of a register tile. The accumulators, one row of b and one broadcast must fit the registers:
# 14 * 2 + 2 + 1 of 32 with AVX-512, 6 * 2 + 2 + 1 of 16 below. Odd heights are rounded up.
HEIGHTS = (1, 2, 4, 6, 8, 10, 12, 14) if VECTOR_BYTES == 64 else (1, 2, 4, 6)
TALLEST = HEIGHTS[-1]
HIGH = tuple(h for h in HEIGHTS if 2 * h > TALLEST)  # all that nearly equal tiles of a batch need
# Columns of a packed block for tile_columns: with the rows of a batch it fits a task's scratch.
BLOCK = {64: 8 * 14, 32: 16 * 6, 16: 12 * 6}[VECTOR_BYTES]

# A few rows: w is read once and packing it would cost more than it saves. Rows: vectors of columns.
FEW = {1: 8, 2: 8, 4: 6, 8: 3} if VECTOR_BYTES == 64 else {1: 8, 2: 4, 4: 2}
MOST_FEW = max(FEW)
OUTER = (4, 6) if VECTOR_BYTES == 64 else (2, 4)  # rows and vectors of a tile of dw for a few rows
AHEAD = 8  # rows of w that a tile fetches before it packs them
FEW_AHEAD, FEW_FAR = 4, 32  # rows of w that a tile of few rows fetches into L1, into L2
WIDEST = PANEL * VECTOR_BYTES // 4  # columns of a panel of the smallest type

INT = ir.IntType(64)
LANE = ir.IntType(32)
BYTE_POINTER = ir.IntType(8).as_pointer()


def constant(value):
    return ir.Constant(INT, value)


class Vectors:
    """Emits vector code for pointers to one float type."""

    def __init__(self, builder, real):
        self.builder = builder
        self.align = 4 if real == ir.FloatType() else 8
        self.lanes = VECTOR_BYTES // self.align
        self.type = ir.VectorType(real, self.lanes)
        self.suffix = f"v{self.lanes}f{8 * self.align}"
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)

    def call(self, name, returns, *args):
        function = ir.FunctionType(returns, [arg.type for arg in args])
        module = self.builder.module
        return self.builder.call(cgutils.get_or_insert_function(module, function, name), args)

    def pointer(self, base, offset):
        address = self.builder.gep(base, [offset])
        return self.builder.bitcast(address, self.type.as_pointer())

    def load(self, base, offset):
        loaded = self.builder.load(self.pointer(base, offset))
        loaded.align = self.align  # users' arrays are aligned to their elements alone
        return loaded

    def store(self, value, base, offset):
        self.builder.store(value, self.pointer(base, offset)).align = self.align

    def splat(self, scalar, vector_type=None):
        vector_type = vector_type or self.type
        first = ir.Constant(LANE, 0)
        undefined = ir.Constant(vector_type, ir.Undefined)
        vector = self.builder.insert_element(undefined, scalar, first)
        lanes = ir.Constant(ir.VectorType(LANE, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(vector, undefined, lanes)

    def broadcast(self, base, offset):
        scalar = self.builder.load(self.builder.gep(base, [offset]))
        scalar.align = self.align
        return self.splat(scalar)

    def first(self, count):
        """A mask of the first `count` lanes; none for a negative count, all for a large one."""
        numbers = ir.VectorType(INT, self.lanes)
        indices = ir.Constant(numbers, list(range(self.lanes)))
        return self.builder.icmp_signed("<", indices, self.splat(count, numbers))

    def load_part(self, base, offset, mask):
        name = f"llvm.masked.load.{self.suffix}.p0"
        align = ir.Constant(LANE, self.align)
        return self.call(name, self.type, self.pointer(base, offset), align, mask, self.zero)

    def store_part(self, value, base, offset, mask):
        name = f"llvm.masked.store.{self.suffix}.p0"
        align = ir.Constant(LANE, self.align)
        self.call(name, ir.VoidType(), value, self.pointer(base, offset), align, mask)

    def sum(self, value):
        """The sum of all lanes."""
        real = value.type.element
        name = f"llvm.vector.reduce.fadd.{self.suffix}"
        function = ir.FunctionType(real, [real, value.type])
        function = cgutils.get_or_insert_function(self.builder.module, function, name)
        # reassoc: a tree; without it the lanes would be added one after the other.
        return self.builder.call(function, [ir.Constant(real, -0.0), value], fastmath=["reassoc"])

    def multiply_add(self, a, b, c):
        return self.call(f"llvm.fmuladd.{self.suffix}", self.type, a, b, c)

    def larger(self, low, value):
        """max(low, value), and NaN where value is NaN."""
        above = self.builder.fcmp_ordered(">", low, value)
        return self.builder.select(above, low, value)

    def prefetch(self, base, offset, write, level=3):
        address = self.builder.bitcast(self.builder.gep(base, [offset]), BYTE_POINTER)
        flags = [ir.Constant(LANE, flag) for flag in (int(write), level, 1)]  # keep in L1, data
        self.call("llvm.prefetch.p0", ir.VoidType(), address, *flags)


def vectors_of(context, builder, signature, argument):
    return Vectors(builder, context.get_value_type(signature.args[argument].dtype))


@intrinsic
def width(typingctx, pointer):
    """Columns of a panel for the type that the pointer leads to, a constant."""

    def codegen(context, builder, signature, args):
        return constant(PANEL * VECTOR_BYTES // (pointer.dtype.bitwidth // 8))

    return types.intp(pointer), codegen


# Packing


@intrinsic
def copy_row(typingctx, target, source):
    """One row of a panel: target[:width] = source[:width]."""

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        for j in range(PANEL):
            v.store(v.load(args[1], constant(j * v.lanes)), args[0], constant(j * v.lanes))
        return context.get_dummy_value()

    return types.void(target, target), codegen


@intrinsic
def copy_part(typingctx, target, source, columns):
    """target[:width] = source[:columns], then zeros; reads nothing beyond `columns`."""

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        for j in range(PANEL):
            offset = constant(j * v.lanes)
            mask = v.first(builder.sub(args[2], offset))
            v.store(v.load_part(args[1], offset, mask), args[0], offset)
        return context.get_dummy_value()

    return types.void(target, target, types.intp), codegen


@intrinsic
def transpose_rows(typingctx, target, source, source_row, rows, columns):
    """Half a vector's lanes of rows: target[p * width + i] = source[i * source_row + p].

    Zeros for i >= rows and p >= columns, where nothing is read. Half, because the rows of a matrix
    whose stride is a power of two share the 8 places of a cache set.
    """
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        target, source, source_row, rows, columns = args
        half = v.lanes // 2
        block = []
        for i in range(half):
            inside = builder.icmp_signed("<", constant(i), rows)
            mask = v.first(builder.select(inside, columns, constant(0)))
            block.append(v.load_part(source, builder.mul(source_row, constant(i)), mask))
        # Exchange blocks of 4, 2, 1 lanes between rows that far apart, in both halves at once.
        distance = half // 2
        while distance:
            for i in range(half):
                if i & distance == 0:
                    low, high = block[i], block[i + distance]
                    upper = [c + v.lanes - distance if c & distance else c for c in range(v.lanes)]
                    lower = [c + v.lanes if c & distance else c + distance for c in range(v.lanes)]
                    for row, picks in ((i, upper), (i + distance, lower)):
                        lanes = ir.Constant(ir.VectorType(LANE, v.lanes), picks)
                        block[row] = builder.shuffle_vector(low, high, lanes)
            distance //= 2
        for p in range(v.lanes):
            row = block[p % half]
            picks = [p // half * half + c for c in range(half)]
            lanes = ir.Constant(ir.VectorType(LANE, half), picks)
            part = builder.shuffle_vector(row, row, lanes)
            place = builder.gep(target, [constant(p * PANEL * v.lanes)])
            place = builder.bitcast(place, part.type.as_pointer())
            builder.store(part, place).align = v.align
        return context.get_dummy_value()

    return types.void(target, target, size, size, size), codegen


@intrinsic
def add_column_sums(typingctx, sums, panel, turns, columns):
    """sums[:columns] += the sums over the STEPS * turns rows of a panel."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        sums, panel, turns, columns = args
        before, loop = builder.block, builder.append_basic_block("rows")
        done = builder.append_basic_block("rows_done")
        builder.branch(loop)
        builder.position_at_end(loop)
        # One accumulator per row of a turn: a single one would wait for each addition.
        entering = [constant(0), panel] + [v.zero] * (STEPS * PANEL)
        carried = [builder.phi(x.type) for x in entering]
        for phi, x in zip(carried, entering):
            phi.add_incoming(x, before)
        turn, panel, *totals = carried
        totals = [
            builder.fadd(total, v.load(panel, constant(i * v.lanes)))
            for i, total in enumerate(totals)
        ]
        next_turn = builder.add(turn, constant(1))
        panel = builder.gep(panel, [constant(STEPS * PANEL * v.lanes)])
        for phi, x in zip(carried, [next_turn, panel, *totals]):
            phi.add_incoming(x, loop)
        builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, done)
        builder.position_at_end(done)
        for j in range(PANEL):
            offset = constant(j * v.lanes)
            mask = v.first(builder.sub(columns, offset))
            total = v.load_part(sums, offset, mask)
            for step in range(STEPS):
                total = builder.fadd(total, totals[step * PANEL + j])
            v.store_part(total, sums, offset, mask)
        return context.get_dummy_value()

    return types.void(sums, sums, size, size), codegen
