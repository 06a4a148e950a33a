"""Sizes of blocks and tiles: what a GPU wants, and small ones for the simulator.

The simulator runs a Python thread for each thread of a block. With its sizes small data span
several blocks and leave tails, so the same kernels are tried at every edge.

Every choice depends on shapes alone, never on the GPU: a sum has the same bits on each call.
"""

from collections import namedtuple

from .target import SIMULATED


class Tile(
    namedtuple("Tile", "rows columns depth part_rows part_columns precision", defaults=["float32"])
):
    """A tile of a product.

    Its size, the depth of one step in words of shared memory, the part of a thread or, on tensor
    cores, of a warp, and the precision in which it multiplies.
    """

    def __str__(self):
        return f"{self.rows}x{self.columns}" + f" {self.precision}" * (self.precision != "float32")


class Sweep(
    namedtuple("Sweep", "inputs outputs panel thread_inputs thread_outputs chunk thread_rows")
):
    """A sweep over the batch.

    Columns of x and of dz in a block, rows of a panel, the part of dw that a thread has, columns
    of w in shared memory at a time, and rows of dx that a thread has.
    """

    def __str__(self):
        return f"{self.inputs}x{self.outputs}"


TILES: dict[int, tuple[Tile, ...]]
SWEEPS: dict[int, tuple[Sweep, ...]]

# By bytes of a float. In float64 a large tile takes all registers of a thread; the chunks of sweeps
# are such that they fit into the 48 KB of shared memory that every GPU has.
if SIMULATED:
    FLAT, FLAT_BLOCKS = 4, 3
    LANES, ROW_THREADS = 2, 4
    SUM_OUTPUTS, SUM_SLICES, SUM_BLOCKS = 2, 2, 3
    TILES = dict.fromkeys((4, 8), (Tile(16, 8, 4, 8, 4), Tile(8, 8, 4, 4, 4)))
    SWEEPS = dict.fromkeys((4, 8), (Sweep(8, 4, 4, 4, 4, 4, 2), Sweep(8, 8, 4, 4, 4, 4, 2)))
    NARROW, SWEEP_THREADS, SLICE_PANELS = 16, 8, 1
    LARGE_BLOCKS, SPLIT_BLOCKS, SPLIT_ROWS = 2, 8, 8
    TENSOR = 32, 16, 8, 32, 16
    NARROW_THREADS, NARROW_SLICES, NARROW_WIDTH = 4, 3, 8
else:
    FLAT, FLAT_BLOCKS = 256, 1024
    LANES, ROW_THREADS = 32, 256
    SUM_OUTPUTS, SUM_SLICES, SUM_BLOCKS = 32, 8, 2**16
    TILES = {
        4: (Tile(128, 128, 8, 8, 8), Tile(64, 64, 16, 4, 4)),
        8: (Tile(64, 64, 16, 4, 4),),
    }
    SWEEPS = {
        4: (
            Sweep(32, 32, 16, 4, 4, 32, 4),
            Sweep(64, 64, 16, 8, 8, 32, 4),
            Sweep(128, 128, 16, 8, 8, 16, 4),
            Sweep(64, 256, 16, 8, 8, 16, 4),
        ),
        8: (
            Sweep(32, 32, 16, 4, 4, 32, 4),
            Sweep(64, 64, 16, 4, 4, 32, 4),
            Sweep(64, 128, 16, 4, 8, 16, 4),
            Sweep(64, 256, 16, 8, 8, 8, 4),
        ),
    }
    NARROW, SWEEP_THREADS, SLICE_PANELS = 256, 2**16, 4
    LARGE_BLOCKS, SPLIT_BLOCKS, SPLIT_ROWS = 132, 264, 256
    TENSOR = 128, 128, 8, 64, 32
    NARROW_THREADS, NARROW_SLICES, NARROW_WIDTH = 256, 264, 128

SHARED = 46 * 1024  # bytes of a block that a launch may ask for beside what its kernel declares
PRECISIONS = ("float32", "tf32", "bf16")
TENSOR_TILES = {precision: Tile(*TENSOR, precision) for precision in PRECISIONS[1:]}


def blocks(size, each):
    """How many blocks cover `size` elements."""
    return -(-size // each)


def flat_grid(size):
    """Blocks for a kernel that goes over flat arrays in strides of the whole grid."""
    return min(blocks(size, FLAT), FLAT_BLOCKS)


def threads_of(tile):
    """Threads of a block that computes a tile."""
    parts = tile.rows // tile.part_rows * (tile.columns // tile.part_columns)
    return parts if tile.precision == "float32" else 32 * parts


def step_of(tile):
    """Elements along the depth in one step: a word holds two of bf16."""
    return tile.depth * (2 if tile.precision == "bf16" else 1)


def threads_of_sweep(sweep):
    """Threads of a block that sweeps over rows."""
    return sweep.inputs // sweep.thread_inputs * (sweep.outputs // sweep.thread_outputs)


def grid_of(tile, rows, columns):
    """The blocks that cover a product."""
    return blocks(rows, tile.rows), blocks(columns, tile.columns)


def tile_for(itemsize, rows, columns, precision="float32"):
    """The large tile where it gives every multiprocessor a block; only that has tensor cores."""
    large, small = TILES[itemsize][0], TILES[itemsize][-1]
    down, across = grid_of(large, rows, columns)
    if down * across < LARGE_BLOCKS or columns <= small.columns:
        return small
    return in_precision(large, itemsize, precision)


def in_precision(large, itemsize, precision):
    """The tile of a product in float32 on tensor cores, where they are asked for."""
    return TENSOR_TILES.get(precision, large) if itemsize == 4 else large


def sweep_for(itemsize, k, m):
    """The sweep of a narrow layer, or None. With few outputs dy is small beside x, whatever k."""
    sweeps = SWEEPS[itemsize]
    if k > NARROW and m > sweeps[0].outputs:
        return None
    return next((sweep for sweep in sweeps if m <= sweep.outputs), None)


def sweep_slices(sweep, n, k):
    """(slices of the batch, rows of each) of a sweep."""
    most = SWEEP_THREADS // threads_of_sweep(sweep) // blocks(k, sweep.inputs)
    panels = max(blocks(blocks(n, sweep.panel), max(most, 1)), SLICE_PANELS)
    return blocks(n, panels * sweep.panel), panels * sweep.panel


def split(itemsize, n, k, m, precision="float32"):
    """(tile, slices of the batch, rows of each) of dw of a wide layer."""
    large, small = TILES[itemsize][0], TILES[itemsize][-1]
    tile = in_precision(large, itemsize, precision) if min(k, m) > small.columns else small
    down, across = grid_of(tile, k, m)
    slices = max(1, min(SPLIT_BLOCKS // (down * across), n // SPLIT_ROWS))
    rows = blocks(blocks(n, slices), step_of(tile)) * step_of(tile)
    return tile, blocks(n, rows) if n else 0, rows
