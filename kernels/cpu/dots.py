"""Products of rows, c = a @ b.T: along the sum all lanes are full, then the lanes are summed.

For few outputs, and for dw of a panel that has the batch along its vectors.
"""

from itertools import product

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import FEW, LANE, OUTER, PANEL, constant, vectors_of
from .tiles import loop, switch_on


@intrinsic
def tile_dots(typingctx, a, a_row, b, b_row, k, c, c_row, c_column, rows, columns):
    """One tile of c = a @ b.T for a few rows: products of rows, summed lane by lane.

    FEW gives the rows of b for the rows of a; an index beyond repeats index 0.
    """
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_row, b, b_row, k, c, c_row, c_column, rows, columns = args

        def offsets(count, valid, stride):
            inside = [builder.icmp_signed("<", constant(i), valid) for i in range(count)]
            return [
                builder.select(one, builder.mul(stride, constant(i)), constant(0))
                for i, one in enumerate(inside)
            ]

        def emit(height):
            width = FEW[height]
            left, right = offsets(height, rows, a_row), offsets(width, columns, b_row)
            to_row, to_column = offsets(height, rows, c_row), offsets(width, columns, c_column)
            sums = _dots(v, a, left, b, right, k)
            for i in reversed(range(height)):  # index 0 last: those beyond were written to it
                totals = [
                    _sums_of_lanes(v, sums[i][j : j + v.lanes]) for j in range(0, width, v.lanes)
                ]
                for j in reversed(range(width)):
                    total = builder.extract_element(totals[j // v.lanes], constant(j % v.lanes))
                    place = builder.gep(c, [builder.add(to_row[i], to_column[j])])
                    builder.store(total, place).align = v.align

        switch_on(v, tuple(FEW), rows, emit)
        return context.get_dummy_value()

    return types.void(a, size, a, size, size, a, size, size, size, size), codegen


def _dots(v, a, left, b, right, k):
    """Vectors whose lanes' sums are the products of each row of a with each row of b."""
    builder = v.builder
    lanes = constant(v.lanes)

    def add(sums, p, mask):
        rows = [v.load_part(a, builder.add(offset, p), mask) for offset in left]
        columns = [v.load_part(b, builder.add(offset, p), mask) for offset in right]
        return [
            v.multiply_add(row, column, total)
            for (row, column), total in zip(product(rows, columns), sums)
        ]

    whole = builder.sdiv(k, lanes)
    every = ir.Constant(ir.VectorType(ir.IntType(1), v.lanes), [1] * v.lanes)
    entering = [v.zero] * (len(left) * len(right))
    sums = loop(
        builder, whole, entering, lambda turn, sums: add(sums, builder.mul(turn, lanes), every)
    )
    rest = builder.mul(whole, lanes)
    sums = add(sums, rest, v.first(builder.sub(k, rest)))
    return [sums[i : i + len(right)] for i in range(0, len(sums), len(right))]


@intrinsic
def tile_along(typingctx, a, a_jump, b, b_jump, turns, init, init_row, c, c_row, rows, columns):
    """One tile of c = init + a @ b.T of up to OUTER rows and columns, summed lane by lane.

    a and b: rows of `turns` panels each, a jump apart. Rows beyond are read, and left out of c.
    """
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_jump, b, b_jump, turns, init, init_row, c, c_row, rows, columns = args
        height, width = OUTER

        def body(turn, carried):
            *sums, a, b = carried
            for part in range(PANEL):
                pairs = product(_part_of_rows(v, a, height, part), _part_of_rows(v, b, width, part))
                sums = [v.multiply_add(x, y, total) for (x, y), total in zip(pairs, sums)]
            return [*sums, builder.gep(a, [a_jump]), builder.gep(b, [b_jump])]

        *sums, _, _ = loop(builder, turns, [v.zero] * (height * width) + [a, b], body)

        def row_of(stride, i):
            inside = builder.icmp_signed("<", constant(i), rows)
            return builder.select(inside, builder.mul(stride, constant(i)), constant(0))

        for i in reversed(range(height)):  # row 0 last: those beyond were written to it
            before = builder.gep(init, [row_of(init_row, i)])
            after = builder.gep(c, [row_of(c_row, i)])
            _store_sums(v, sums[i * width : (i + 1) * width], before, after, columns)
        return context.get_dummy_value()

    return types.void(a, size, a, size, size, a, size, a, size, size, size), codegen


@intrinsic
def sums_along(typingctx, a, a_jump, turns, init, c, rows):
    """c = init + the sums of up to OUTER[1] rows of `turns` panels, a jump apart."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_jump, turns, init, c, rows = args

        def body(turn, carried):
            *sums, a = carried
            for part in range(PANEL):
                sums = map(builder.fadd, sums, _part_of_rows(v, a, OUTER[1], part))
            return [*sums, builder.gep(a, [a_jump])]

        *sums, _ = loop(builder, turns, [v.zero] * OUTER[1] + [a], body)
        _store_sums(v, sums, init, c, rows)
        return context.get_dummy_value()

    return types.void(a, size, size, a, a, size), codegen


def _part_of_rows(v, panel, rows, part):
    """A vector of each of the first rows of a panel."""
    return [v.load(panel, constant((i * PANEL + part) * v.lanes)) for i in range(rows)]


def _store_sums(v, sums, init, c, columns):
    """c[:columns] = init[:columns] + the sums over the lanes of so many vectors."""
    for j in range(0, len(sums), v.lanes):
        mask = v.first(v.builder.sub(columns, constant(j)))
        before = v.load_part(init, constant(j), mask)
        total = v.builder.fadd(before, _sums_of_lanes(v, sums[j : j + v.lanes]))
        v.store_part(total, c, constant(j), mask)


def _sums_of_lanes(v, vectors):
    """A vector of the sums over the lanes of up to so many vectors, by halves of all together.

    Each turn of the loop joins two vectors to one, in which each sum has half as many lanes.
    """
    builder = v.builder

    def joined(a, b, lanes):
        halves = [range(i, i + lanes // 2) for i in range(0, 2 * v.lanes, lanes // 2)]
        low, high = (
            builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(LANE, v.lanes), numbers))
            for numbers in ([i for half in halves[first::2] for i in half] for first in (0, 1))
        )
        return builder.fadd(low, high)

    lanes = v.lanes
    while lanes > 1:
        vectors = [*vectors, v.zero] if len(vectors) % 2 and len(vectors) > 1 else vectors
        pairs = zip(vectors[::2], vectors[1::2]) if len(vectors) > 1 else [(vectors[0], v.zero)]
        vectors = [joined(a, b, lanes) for a, b in pairs]
        lanes //= 2
    return vectors[0]
