"""The operands of a register tile: where in memory its next row of b and its numbers of a lie.

A left operand has `pointers`, which a tile carries round its loop: `place(a, i, step)` is the
pointer and the offset of row i's number, `next` moves them to the next step. A right operand has a
`pointer`: `row` loads the vectors of a step, `next` moves it to the next turn.
"""

from .simd import AHEAD, BLOCK, FEW_AHEAD, FEW_FAR, PANEL, STEPS, constant


def lines(v, vectors):
    """Elements of a row that lie on all of its cache lines, wherever the first of them begins."""
    return [*range(0, vectors * v.lanes, v.lanes), vectors * v.lanes - 1]


class RowsInPanels:
    """Left operand: rows in panels; `jump` leads from a row's end in a panel to the next panel."""

    def __init__(self, v, pointer, jump):
        self.v, self.builder, self.pointers, self.jump = v, v.builder, [pointer], jump
        self.wide = PANEL * v.lanes

    def place(self, a, i, step):
        return a[0], constant(i * self.wide)  # row strides in registers would spill them

    def next(self, a, next_turn, step):
        pointer = self.builder.gep(a[0], [constant(1)])
        if step < STEPS - 1:
            return [pointer]
        within = self.builder.and_(next_turn, constant(self.wide // STEPS - 1))
        at_end = self.builder.icmp_signed("==", within, constant(0))
        return [self.builder.gep(pointer, [self.builder.select(at_end, self.jump, constant(0))])]


class ColumnsInBlock:
    """Left operand: the transpose of a block, or of a panel, whose rows are so wide."""

    def __init__(self, v, pointer, wide=BLOCK):
        self.builder, self.pointers, self.wide = v.builder, [pointer], wide

    def place(self, a, i, step):
        return a[0], constant(i)

    def next(self, a, next_turn, step):
        return [self.builder.gep(a[0], [constant(self.wide)])]


class RowsInBlock:
    """Left operand: rows of a block."""

    def __init__(self, v, pointer):
        self.builder, self.pointers = v.builder, [pointer]

    def place(self, a, i, step):
        return a[0], constant(i * BLOCK)

    def next(self, a, next_turn, step):
        return [self.builder.gep(a[0], [constant(1)])]


class RowsInPlace:
    """Left operand: rows of a matrix as the user has it, `stride` apart; row 0 for those beyond."""

    def __init__(self, v, pointer, stride, rows):
        self.builder, self.stride, self.rows = v.builder, stride, rows
        self.pointers = [pointer]

    def place(self, a, i, step):
        valid = self.builder.icmp_signed("<", constant(i), self.rows)
        row = self.builder.mul(self.stride, constant(i))
        return a[0], self.builder.select(valid, row, constant(0))

    def next(self, a, next_turn, step):
        return [self.builder.gep(a[0], [constant(1)])]


class RowsFarApart:
    """RowsInPlace for a tall tile: a pointer for each four rows, which strides in two registers
    reach. Of the tile's rows the last one alone may lie beyond.
    """

    def __init__(self, v, pointer, stride, rows, height):
        self.builder, self.stride = v.builder, stride
        four = self.builder.mul(stride, constant(4))
        self.pointers = [pointer]
        for _ in range(4, height, 4):
            self.pointers.append(self.builder.gep(self.pointers[-1], [four]))
        self.offsets = [self.builder.mul(stride, constant(i)) for i in range(4)]
        valid = self.builder.icmp_signed("==", rows, constant(height))
        last = self.offsets[(height - 1) % 4]
        self.last = height - 1, self.builder.select(valid, last, constant(0))

    def place(self, a, i, step):
        offset = self.last[1] if i == self.last[0] else self.offsets[i % 4]
        return self.builder.gep(a[i // 4], [constant(step)]), offset

    def next(self, a, next_turn, step):
        if step < STEPS - 1:
            return a
        return [self.builder.gep(pointer, [constant(STEPS)]) for pointer in a]


class ColumnsInPlace:
    """Left operand: columns of a matrix as the user has it; column 0 for those beyond."""

    def __init__(self, v, pointer, stride, columns):
        self.builder, self.stride, self.columns = v.builder, stride, columns
        self.pointers = [pointer]

    def place(self, a, i, step):
        valid = self.builder.icmp_signed("<", constant(i), self.columns)
        return a[0], self.builder.select(valid, constant(i), constant(0))

    def next(self, a, next_turn, step):
        return [self.builder.gep(a[0], [self.stride])]


class ColumnsFarApart:
    """ColumnsInPlace for a tall tile: of its columns the last one alone may lie beyond."""

    def __init__(self, v, pointer, stride, columns, height):
        self.builder, self.stride, self.pointers = v.builder, stride, [pointer]
        valid = self.builder.icmp_signed("==", columns, constant(height))
        last = self.builder.select(valid, constant(height - 1), constant(0))
        self.offsets = [*map(constant, range(height - 1)), last]

    def place(self, a, i, step):
        return a[0], self.offsets[i]

    def next(self, a, next_turn, step):
        return [self.builder.gep(a[0], [self.stride])]


class Panel:
    """Right operand: a packed panel."""

    def __init__(self, v, pointer, vectors):
        self.v, self.pointer, self.vectors = v, pointer, vectors

    def row(self, b, turn, step, masks):
        first = step * PANEL * self.v.lanes
        return [self.v.load(b, constant(first + j * self.v.lanes)) for j in range(self.vectors)]

    def next(self, b):
        return self.v.builder.gep(b, [constant(STEPS * PANEL * self.v.lanes)])


class InPlace:
    """Right operand: a matrix as the user has it, rows `stride` apart, fetched into L1 and L2."""

    ahead: tuple[tuple[int, int], ...] = ((FEW_AHEAD, 3), (FEW_FAR, 2))  # llvm.prefetch's locality

    def __init__(self, v, pointer, vectors, stride):
        self.v, self.pointer, self.vectors, self.stride = v, pointer, vectors, stride

    def row(self, b, turn, step, masks):
        v = self.v
        offsets = [constant(j * v.lanes) for j in range(self.vectors)]
        for rows, level in self.ahead:
            ahead = v.builder.mul(self.stride, constant(rows))
            for element in lines(v, self.vectors):
                v.prefetch(b, v.builder.add(ahead, constant(element)), write=False, level=level)
        return [v.load_part(b, offset, mask) for offset, mask in zip(offsets, masks)]

    def next(self, b):
        return self.v.builder.gep(b, [self.stride])


class InPlaceOnce(InPlace):
    """InPlace for rows that are in cache."""

    ahead = ()


class InPlaceToPanel(InPlace):
    """InPlace, `STEPS` rows per turn, and a panel that is filled with them on the way."""

    ahead = ((AHEAD, 3),)

    def __init__(self, v, pointer, vectors, stride, panel):
        super().__init__(v, pointer, vectors, stride)
        self.panel = panel

    def row(self, b, turn, step, masks):
        v, wide = self.v, PANEL * self.v.lanes
        b = v.builder.gep(b, [v.builder.mul(self.stride, constant(step))])
        row = super().row(b, turn, step, masks)
        first = v.builder.mul(turn, constant(STEPS * wide))
        for j, x in enumerate(row):
            v.store(x, self.panel, v.builder.add(first, constant(step * wide + j * v.lanes)))
        return row

    def next(self, b):
        return self.v.builder.gep(b, [self.v.builder.mul(self.stride, constant(STEPS))])
