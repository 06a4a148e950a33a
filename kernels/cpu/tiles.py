"""The register tile of a matrix product, c = max(init + a @ b, floor): all sums stay in registers.

A tile is emitted for each height and width of the tables in simd.py, and for each way its operands
may lie in memory (operands.py). docs/cpu.md says what was measured.
"""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .operands import (
    ColumnsFarApart,
    ColumnsInBlock,
    ColumnsInPlace,
    InPlace,
    InPlaceOnce,
    InPlaceToPanel,
    Panel,
    RowsFarApart,
    RowsInBlock,
    RowsInPanels,
    RowsInPlace,
    lines,
)
from .simd import (
    FEW,
    HEIGHTS,
    HIGH,
    OUTER,
    PANEL,
    STEPS,
    VECTOR_BYTES,
    constant,
    vectors_of,
)


class Tile:
    """One size of register tile: emits c = max(init + a @ b, floor) for a piece of c.

    `rows` and `columns` are what is valid of it: a row beyond repeats row 0, a column beyond is
    neither read nor written. Offsets count elements.
    """

    def __init__(self, v, height, vectors, steps, fetch=None):
        self.v, self.builder, self.fetch = v, v.builder, fetch
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

    def _fetch(self, turn):
        """Fetch a panel's width of the block that is wanted next: down its rows, then across."""
        pointer, number, rows, stride = self.fetch
        number = self.builder.add(number, turn)
        row = self.builder.and_(number, self.builder.sub(rows, constant(1)))
        across = self.builder.sub(number, row)  # rows times the panels before it
        place = self.builder.mul(row, stride)
        shift = self.builder.cttz(rows, ir.Constant(ir.IntType(1), 1))
        across = self.builder.mul(self.builder.lshr(across, shift), constant(PANEL * self.v.lanes))
        first = self.builder.add(place, across)
        for element in lines(self.v, PANEL):
            self.v.prefetch(pointer, self.builder.add(first, constant(element)), write=False)

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
        flat = [x for row in start for x in row]

        def body(turn, carried):
            sums, (b, *a) = carried[: len(flat)], carried[len(flat) :]
            sums = [sums[i : i + self.vectors] for i in range(0, len(sums), self.vectors)]
            if self.fetch:
                self._fetch(turn)
            for step in range(self.steps):
                row = right.row(b, turn, step, masks)
                for i in range(self.height):
                    scalar = self.v.broadcast(*left.place(a, i, step))
                    sums[i] = [self.v.multiply_add(scalar, x, s) for x, s in zip(row, sums[i])]
                a = left.next(a, self.builder.add(turn, constant(1)), step)
            return [*(x for row in sums for x in row), right.next(b), *a]

        entering = [*flat, right.pointer, *left.pointers]
        sums = loop(self.builder, turns, entering, body)[: len(flat)]
        return [sums[i : i + self.vectors] for i in range(0, len(sums), self.vectors)]


class WholeTile(Tile):
    """A tile as wide as a panel; rows beyond those asked for are computed and written, too."""

    def emit(self, left, right, turns, init, c, floor):
        v, rows, parts = self.v, range(self.height), range(self.vectors)
        places = [[constant((i * PANEL + j) * v.lanes) for j in parts] for i in rows]
        start = [[v.load(init, place) for place in row] for row in places]
        sums, low = self._loop(left, right, turns, start, None), v.splat(floor)
        for row, totals in zip(places, sums):
            for place, total in zip(row, totals):
                v.store(v.larger(low, total), c, place)


def loop(builder, turns, entering, body):
    """A loop with its values in registers: body(turn, values) emits what they are a turn later."""
    before, inside = builder.block, builder.append_basic_block("turn")
    done = builder.append_basic_block("turns_done")
    entering = [constant(0), *entering]
    builder.cbranch(builder.icmp_signed(">", turns, constant(0)), inside, done)
    builder.position_at_end(inside)
    carried = [builder.phi(x.type) for x in entering]
    next_turn = builder.add(carried[0], constant(1))
    leaving = [next_turn, *body(carried[0], carried[1:])]
    last = builder.block
    builder.cbranch(builder.icmp_signed("<", next_turn, turns), inside, done)
    builder.position_at_end(done)
    results = [builder.phi(x.type) for x in entering]
    for phis, end in ((carried, last), (results, last)):
        for phi, x, y in zip(phis, entering, leaving):
            phi.add_incoming(x, before)
            phi.add_incoming(y, end)
    return results[1:]


def switch_on(v, sizes, count, emit):
    """Emit code for each of ascending sizes, and a jump to the least that holds `count`."""
    builder = v.builder
    end = builder.append_basic_block("sizes_end")
    blocks = {size: builder.append_basic_block(f"size_{size}") for size in sizes}
    switch = builder.switch(count, blocks[sizes[-1]])
    for i in range(1, sizes[-1]):
        switch.add_case(constant(i), blocks[min(size for size in sizes if size >= i)])
    for size, block in blocks.items():
        builder.position_at_end(block)
        emit(size)
        builder.branch(end)
    builder.position_at_end(end)


def _packed_tiles(
    v, heights, left, right, turns, init, init_row, c, c_row, rows, columns, floor, fetch=None,
    steps=STEPS,
):  # fmt: skip
    """Tiles of each height, for a vector of columns and for two; left(height), right(vectors)."""
    rest = (turns, init, init_row, c, c_row, rows, columns, floor)

    def emit(height):
        for i in range(height):  # the tile below this one begins with what is fetched here
            below = v.builder.mul(c_row, constant(height + i))
            for element in lines(v, PANEL):
                v.prefetch(c, v.builder.add(below, constant(element)), write=False, level=2)
        narrow = v.builder.icmp_signed("<=", columns, constant(v.lanes))
        with v.builder.if_else(narrow) as branches:
            for vectors, branch in enumerate(branches, 1):
                with branch:
                    Tile(v, height, vectors, steps, fetch).emit(left(height), right(vectors), *rest)

    switch_on(v, heights, rows, emit)


@intrinsic
def tile_rows(
    typingctx, a, a_jump, b, turns, init, init_row, c, c_row, rows, columns, floor,
    fetch, fetched, fetch_rows, fetch_row,
):  # fmt: skip
    """One tile of c = max(init + a @ b, floor), rows of a in panels.

    Fetches a panel's width each turn of what the next panel is made of: of the block at `fetch` of
    fetch_rows rows, a power of two, fetch_row apart, from number `fetched` on.
    """
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_jump, b, *rest, fetch, fetched, fetch_rows, fetch_row = args
        _packed_tiles(
            v, HIGH, lambda height: RowsInPanels(v, a, a_jump), partial(Panel, v, b), *rest,
            (fetch, fetched, fetch_rows, fetch_row),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(
        a, size, a, size, a, size, a, size, size, size, a.dtype, a, size, size, size
    ), codegen


@intrinsic
def tile_rows_and_pack(
    typingctx, a, a_jump, b, b_row, panel, turns, init, init_row, c, c_row, rows, columns, floor
):
    """tile_rows with b as it lies in memory, STEPS * turns rows; packs it into `panel`."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_jump, b, b_row, panel, *rest = args
        right = partial(InPlaceToPanel, v, b, stride=b_row, panel=panel)
        _packed_tiles(v, HIGH, lambda height: RowsInPanels(v, a, a_jump), right, *rest)
        return context.get_dummy_value()

    return types.void(a, size, a, size, a, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_rows_far_apart(
    typingctx, a, a_row, b, turns, init, init_row, c, c_row, rows, columns, floor
):
    """tile_rows with STEPS * turns columns of a as it lies in memory."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_row, b, *rest = args
        left = partial(RowsFarApart, v, a, a_row, rest[5])
        _packed_tiles(v, HIGH, left, partial(Panel, v, b), *rest)
        return context.get_dummy_value()

    return types.void(a, size, a, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_columns(typingctx, a, b, turns, init, init_row, c, c_row, rows, columns, floor):
    """One tile of c = max(init + a.T @ b, floor), a in a block BLOCK wide."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, b, *rest = args
        _packed_tiles(v, HEIGHTS, lambda height: ColumnsInBlock(v, a), partial(Panel, v, b), *rest)
        return context.get_dummy_value()

    return types.void(a, a, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_columns_far_apart(
    typingctx, a, a_row, b, turns, init, init_row, c, c_row, rows, columns, floor
):
    """tile_columns with STEPS * turns rows of a as it lies in memory."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_row, b, *rest = args
        left = partial(ColumnsFarApart, v, a, a_row, rest[5])
        _packed_tiles(v, HEIGHTS, left, partial(Panel, v, b), *rest)
        return context.get_dummy_value()

    return types.void(a, size, a, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_of_panel(typingctx, a, b, b_row, k, init, init_row, c, c_row, rows, columns, floor):
    """One tile of c = max(init + a.T @ b, floor), a: k rows of a panel, b as it lies in memory."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, b, b_row, *rest = args
        right = partial(InPlaceOnce, v, b, stride=b_row)
        _packed_tiles(
            v, HEIGHTS, lambda height: ColumnsInBlock(v, a, PANEL * v.lanes), right, *rest, steps=1
        )
        return context.get_dummy_value()

    return types.void(a, a, size, size, a, size, a, size, size, size, a.dtype), codegen


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

        switch_on(v, tuple(FEW), rest[4], emit)
        return context.get_dummy_value()

    return types.void(a, size, a, size, size, a, size, a, size, size, size, a.dtype), codegen


@intrinsic
def tile_outer(typingctx, a, a_row, b, b_row, k, init, init_row, c, c_row, rows, columns):
    """One tile of c = init + a.T @ b of up to OUTER rows and vectors, for a few k."""
    size = types.intp

    def codegen(context, builder, signature, args):
        v = vectors_of(context, builder, signature, 0)
        a, a_row, b, b_row, k, *rest = args
        height, vectors = OUTER
        left = ColumnsInPlace(v, a, a_row, rest[4])
        no_floor = ir.Constant(v.type.element, float("-inf"))
        Tile(v, height, vectors, 1).emit(left, InPlace(v, b, vectors, b_row), k, *rest, no_floor)
        return context.get_dummy_value()

    return types.void(a, size, a, size, size, a, size, a, size, size, size), codegen


@intrinsic
def outer_columns(typingctx, pointer):
    """Columns of a tile_outer, a constant; its rows are OUTER[0]."""

    def codegen(context, builder, signature, args):
        return constant(OUTER[1] * VECTOR_BYTES // (pointer.dtype.bitwidth // 8))

    return types.intp(pointer), codegen


def _whole_tiles(left):
    """c = max(init + op(a) @ b, floor): a in a block; b, init and c rows of a panel."""

    def tile(typingctx, a, b, turns, init, c, rows, floor):
        def codegen(context, builder, signature, args):
            v = vectors_of(context, builder, signature, 0)
            a, b, turns, init, c, rows, floor = args

            def emit(height):
                one = WholeTile(v, height, PANEL, STEPS)
                one.emit(left(v, a), Panel(v, b, PANEL), turns, init, c, floor)

            switch_on(v, HEIGHTS, rows, emit)
            return context.get_dummy_value()

        return types.void(a, a, types.intp, a, a, types.intp, a.dtype), codegen

    return tile


tile_block = intrinsic(_whole_tiles(RowsInBlock))
tile_block_transposed = intrinsic(_whole_tiles(ColumnsInBlock))


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
