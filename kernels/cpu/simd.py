"""Vector instructions: the register tile of a matrix product, and how its operands are packed.

Everything here works on bare pointers and emits LLVM vector code of one width, chosen once per
process from the host's features. No blocking, no formula of a layer: those live in products.py and
dense.py. docs/cpu.md says what was measured.

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
BLOCK = 8 * 14 if VECTOR_BYTES == 64 else 16 * 6  # columns of a packed block for tile_columns

# A few rows: w is read once and packing it would cost more than it saves. Rows: vectors of columns.
FEW = {1: 8, 2: 8, 4: 6, 8: 3} if VECTOR_BYTES == 64 else {1: 8, 2: 4, 4: 2}
MOST_FEW = max(FEW)
AHEAD = 8  # rows of w that are fetched before they are needed
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

    def multiply_add(self, a, b, c):
        return self.call(f"llvm.fmuladd.{self.suffix}", self.type, a, b, c)

    def larger(self, low, value):
        """max(low, value), and NaN where value is NaN."""
        above = self.builder.fcmp_ordered(">", low, value)
        return self.builder.select(above, low, value)

    def prefetch(self, base, offset, write):
        address = self.builder.bitcast(self.builder.gep(base, [offset]), BYTE_POINTER)
        flags = [ir.Constant(LANE, flag) for flag in (int(write), 3, 1)]  # keep in L1, data
        self.call("llvm.prefetch.p0", ir.VoidType(), address, *flags)


def vectors_of(context, builder, signature, argument):
    return Vectors(builder, context.get_value_type(signature.args[argument].dtype))


@intrinsic
def few_columns(typingctx, pointer, rows):
    """Columns of a tile_in_place of `rows` rows."""

    def codegen(context, builder, signature, args):
        lanes = VECTOR_BYTES // (pointer.dtype.bitwidth // 8)
        columns = constant(0)
        for height, vectors in sorted(FEW.items(), reverse=True):
            fits = builder.icmp_signed("<=", args[1], constant(height))
            columns = builder.select(fits, constant(vectors * lanes), columns)
        return columns

    return types.intp(pointer, types.intp), codegen


@intrinsic
def width(typingctx, pointer):
    """Columns of a panel for the type that the pointer leads to, a constant."""

    def codegen(context, builder, signature, args):
        return constant(PANEL * VECTOR_BYTES // (pointer.dtype.bitwidth // 8))

    return types.intp(pointer), codegen


# The register tile


class Tile:
    """One size of register tile: emits c = max(init + a @ b, floor) for a piece of c.

    `rows` and `columns` are what is valid of it: a row beyond repeats row 0, a column beyond is
    neither read nor written. Offsets count elements.
    """

    def __init__(self, v, height, vectors, steps):
        self.v, self.builder = v, v.builder
        self.height, self.vectors, self.steps = height, vectors, steps

    def emit(self, left, right, turns, init, init_row, c, c_row, rows, columns, floor):
        v = self.v
        masks = [
            v.first(self.builder.sub(columns, constant(j * v.lanes))) for j in range(self.vectors)
        ]
        from_init, to_c = self._offsets(init_row, rows), self._offsets(c_row, rows)
        start = [[v.load_part(init, o, mask) for o, mask in zip(row, masks)] for row in from_init]
        for row in to_c:
            v.prefetch(c, row[0], write=True)
        sums = self._loop(left, right, turns, start, masks)
        low = v.splat(floor)
        for i in reversed(range(self.height)):  # row 0 last: rows beyond were written to it
            for x, offset, mask in zip(sums[i], to_c[i], masks):
                v.store_part(v.larger(low, x), c, offset, mask)

    def _offsets(self, stride, rows):
        result = []
        for i in range(self.height):
            valid = self.builder.icmp_signed("<", constant(i), rows)
            row = self.builder.select(valid, self.builder.mul(stride, constant(i)), constant(0))
            lanes = range(0, self.vectors * self.v.lanes, self.v.lanes)
            result.append([self.builder.add(row, constant(j)) for j in lanes])
        return result

    def _loop(self, left, right, turns, start, masks):
        """The inner loop, `steps` of k per turn, all sums in registers."""
        builder = self.builder
        before, loop = builder.block, builder.append_basic_block("k")
        done = builder.append_basic_block("k_done")
        entering = [constant(0), left.pointer, right.pointer, *(x for row in start for x in row)]
        builder.cbranch(builder.icmp_signed(">", turns, constant(0)), loop, done)
        builder.position_at_end(loop)
        carried = [builder.phi(x.type) for x in entering]
        turn, a, b, *flat = carried
        sums = [flat[i : i + self.vectors] for i in range(0, len(flat), self.vectors)]
        next_turn = builder.add(turn, constant(1))
        for step in range(self.steps):
            row = right.row(b, step, masks)
            for i in range(self.height):
                scalar = self.v.broadcast(a, left.offset(i))
                sums[i] = [self.v.multiply_add(scalar, x, s) for x, s in zip(row, sums[i])]
            a = left.next(a, next_turn, step)
        leaving = [next_turn, a, right.next(b), *(x for row in sums for x in row)]
        for phi, x, y in zip(carried, entering, leaving):
            phi.add_incoming(x, before)
            phi.add_incoming(y, loop)
        builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, done)
        builder.position_at_end(done)
        results = [builder.phi(x.type) for x in entering[3:]]
        for phi, x, y in zip(results, entering[3:], leaving[3:]):
            phi.add_incoming(x, before)
            phi.add_incoming(y, loop)
        return [results[i : i + self.vectors] for i in range(0, len(results), self.vectors)]


class RowsInPanels:
    """Left operand: rows in panels; `jump` leads from a row's end in a panel to the next panel."""

    def __init__(self, v, pointer, jump):
        self.v, self.builder, self.pointer, self.jump = v, v.builder, pointer, jump
        self.wide = PANEL * v.lanes

    def offset(self, i):
        return constant(i * self.wide)  # a constant: row strides in registers would spill them

    def next(self, a, next_turn, step):
        a = self.builder.gep(a, [constant(1)])
        if step < STEPS - 1:
            return a
        within = self.builder.and_(next_turn, constant(self.wide // STEPS - 1))
        at_end = self.builder.icmp_signed("==", within, constant(0))
        return self.builder.gep(a, [self.builder.select(at_end, self.jump, constant(0))])


class ColumnsInBlock:
    """Left operand: the transpose of a block whose rows are BLOCK wide."""

    def __init__(self, v, pointer):
        self.builder, self.pointer = v.builder, pointer

    def offset(self, i):
        return constant(i)

    def next(self, a, next_turn, step):
        return self.builder.gep(a, [constant(BLOCK)])


class RowsInPlace:
    """Left operand: rows of a matrix as the user has it, `stride` apart; row 0 for those beyond."""

    def __init__(self, v, pointer, stride, rows):
        self.builder, self.pointer, self.stride, self.rows = v.builder, pointer, stride, rows

    def offset(self, i):
        valid = self.builder.icmp_signed("<", constant(i), self.rows)
        return self.builder.select(valid, self.builder.mul(self.stride, constant(i)), constant(0))

    def next(self, a, next_turn, step):
        return self.builder.gep(a, [constant(1)])


class Panel:
    """Right operand: a packed panel."""

    def __init__(self, v, pointer, vectors):
        self.v, self.pointer, self.vectors = v, pointer, vectors

    def row(self, b, step, masks):
        first = step * PANEL * self.v.lanes
        return [self.v.load(b, constant(first + j * self.v.lanes)) for j in range(self.vectors)]

    def next(self, b):
        return self.v.builder.gep(b, [constant(STEPS * PANEL * self.v.lanes)])


class InPlace:
    """Right operand: a matrix as the user has it, rows `stride` apart, fetched AHEAD rows early."""

    def __init__(self, v, pointer, vectors, stride):
        self.v, self.pointer, self.vectors, self.stride = v, pointer, vectors, stride
        self.ahead = v.builder.mul(stride, constant(AHEAD))

    def row(self, b, step, masks):
        v = self.v
        offsets = [constant(j * v.lanes) for j in range(self.vectors)]
        for offset in offsets:
            v.prefetch(b, v.builder.add(self.ahead, offset), write=False)
        return [v.load_part(b, offset, mask) for offset, mask in zip(offsets, masks)]

    def next(self, b):
        return self.v.builder.gep(b, [self.stride])


def _switch_on_rows(v, heights, rows, emit):
    """Emit a tile for each height, and a jump to the lowest that holds `rows` rows."""
    builder = v.builder
    end = builder.append_basic_block("tile_end")
    blocks = {height: builder.append_basic_block(f"height_{height}") for height in heights}
    switch = builder.switch(rows, blocks[heights[-1]])
    for count in range(1, heights[-1]):
        switch.add_case(constant(count), blocks[min(h for h in heights if h >= count)])
    for height, block in blocks.items():
        builder.position_at_end(block)
        emit(height)
        builder.branch(end)
    builder.position_at_end(end)


def _packed_tiles(v, left, b, turns, init, init_row, c, c_row, rows, columns, floor):
    """Tiles on a packed panel: of each height, one for a vector of columns and one for two."""
    rest = (turns, init, init_row, c, c_row, rows, columns, floor)

    def emit(height):
        narrow = v.builder.icmp_signed("<=", columns, constant(v.lanes))
        with v.builder.if_else(narrow) as branches:
            for vectors, branch in enumerate(branches, 1):
                with branch:
                    Tile(v, height, vectors, STEPS).emit(left, Panel(v, b, vectors), *rest)

    _switch_on_rows(v, HEIGHTS, rows, emit)


@intrinsic
def tile_rows(typingctx, a, a_jump, b, turns, init, init_row, c, c_row, rows, columns, floor):
    """One tile of c = max(init + a @ b, floor), rows of a in panels."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_jump, b, *rest = args
        _packed_tiles(v, RowsInPanels(v, a, a_jump), b, *rest)
        return context.get_dummy_value()

    return types.void(a, size, a, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_columns(typingctx, a, b, turns, init, init_row, c, c_row, rows, columns, floor):
    """One tile of c = max(init + a.T @ b, floor), a in a block BLOCK wide."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, b, *rest = args
        _packed_tiles(v, ColumnsInBlock(v, a), b, *rest)
        return context.get_dummy_value()

    return types.void(a, a, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_in_place(typingctx, a, a_row, b, b_row, k, init, init_row, c, c_row, rows, columns, floor):
    """One tile of c = max(init + a @ b, floor) for a few rows, nothing packed."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_row, b, b_row, k, *rest = args

        def emit(height):
            vectors = FEW[height]
            right = InPlace(v, b, vectors, b_row)
            Tile(v, height, vectors, 1).emit(RowsInPlace(v, a, a_row, rest[4]), right, k, *rest)

        _switch_on_rows(v, tuple(FEW), rest[4], emit)
        return context.get_dummy_value()

    return types.void(a, size, a, size, size, a, size, a, size, size, size, a.dtype), codegen


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
def transpose_square(typingctx, target, source, source_row, rows, columns):
    """A square of one vector's side: target[p * width + i] = source[i * source_row + p].

    Zeros for i >= rows and p >= columns, where nothing is read.
    """
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        target, source, source_row, rows, columns = args
        square = []
        for i in range(v.lanes):
            inside = builder.icmp_signed("<", constant(i), rows)
            mask = v.first(builder.select(inside, columns, constant(0)))
            square.append(v.load_part(source, builder.mul(source_row, constant(i)), mask))
        # Exchange blocks of 8, 4, 2, 1 lanes between rows that far apart.
        distance = v.lanes // 2
        while distance:
            for i in range(v.lanes):
                if i & distance == 0:
                    low, high = square[i], square[i + distance]
                    upper = [c + v.lanes - distance if c & distance else c for c in range(v.lanes)]
                    lower = [c + v.lanes if c & distance else c + distance for c in range(v.lanes)]
                    for row, picks in ((i, upper), (i + distance, lower)):
                        lanes = ir.Constant(ir.VectorType(LANE, v.lanes), picks)
                        square[row] = builder.shuffle_vector(low, high, lanes)
            distance //= 2
        for p, row in enumerate(square):
            v.store(row, target, constant(p * PANEL * v.lanes))
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


# The limit

BURNT = 24  # independent sums: enough to hide the latency of a multiply-add


@intrinsic
def burn_registers(typingctx, target, turns, seed):
    """BURNT multiply-adds of whole vectors, `turns` times; target[0] = something of them."""

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        target, turns, seed = args
        factor = v.splat(seed)
        before, loop = builder.block, builder.append_basic_block("burn")
        done = builder.append_basic_block("burnt")
        builder.branch(loop)
        builder.position_at_end(loop)
        turn = builder.phi(INT)
        sums = [builder.phi(v.type) for _ in range(BURNT)]
        next_turn = builder.add(turn, constant(1))
        results = [v.multiply_add(x, factor, factor) for x in sums]
        turn.add_incoming(constant(0), before)
        turn.add_incoming(next_turn, loop)
        for i, (x, result) in enumerate(zip(sums, results)):
            x.add_incoming(ir.Constant(v.type, [0.1 * i] * v.lanes), before)
            x.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", next_turn, turns), loop, done)
        builder.position_at_end(done)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        builder.store(builder.extract_element(total, ir.Constant(LANE, 0)), target)
        return context.get_dummy_value()

    return types.void(target, types.intp, target.dtype), codegen
