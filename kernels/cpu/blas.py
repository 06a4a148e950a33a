"""The engine of BLAS: a dense layer from SciPy's matrix product and fused passes around it.

Forward: a block of y = x @ w, then bias, z and activation in one pass over the block. Backward: dz
of a panel of the batch with its column sums in one pass, then dw += x.T @ dz and dx = dz @ w.T.

The passes run on the threads of the pool; their tasks are cut by the shapes alone, so that a sum
has the same bits for every number of threads. The products run on BLAS's own threads.

The whole engine is compiled, or loaded from the disk, when a layer first runs on it.
"""

from functools import partial

from llvmlite import ir
from numba import carray, int64, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.linalg import ensure_blas

from ..codes import IDENTITY
from .activations import activate_and_keep, activation_gradient
from .binding import addressed, call
from .jit import inline
from .pointers import address, at, get, new_job, number_of, pointer_to, put
from .threads import run, task, useful_tasks

PANEL = 2**18  # elements of y or dz between two products: in L2 or near it
LEAST_ROWS = 512  # of a panel: with 256, packing w each time costs 5 % at k = m = 1024
CHUNK = 4096  # elements that a pass works on at once, in L1
TASK = 2**14  # elements of a task
LEAST_TASK = 16  # rows of a task


@intrinsic
def xxgemm(typingctx, transpose_a, a, a_row, transpose_b, b, b_row, m, n, k, add, c, c_row):
    """c (m, n) = op(a) @ op(b), or += with `add`: the symbol behind Numba's np.dot.

    a_row, b_row, c_row: elements between two rows in memory.
    """
    ensure_blas()
    size, flag = types.intp, types.boolean

    def codegen(context, builder, signature, args):
        transpose_a, a, a_row, transpose_b, b, b_row, m, n, k, add, c, c_row = args
        char = ir.IntType(8)
        real = context.get_value_type(signature.args[1].dtype)
        kind = "s" if real == ir.FloatType() else "d"
        one, zero = ir.Constant(real, 1.0), ir.Constant(real, 0.0)

        def letter(transpose):
            yes, no = ir.Constant(char, ord("t")), ir.Constant(char, ord("n"))
            return builder.select(transpose, yes, no)

        def memory(pointer):
            return builder.bitcast(pointer, cgutils.voidptr_t)

        def slot(value):
            return memory(cgutils.alloca_once_value(builder, value))

        # BLAS counts in columns: a C-ordered product is the product of the transposes, b first.
        values = [
            ir.Constant(char, ord(kind)), letter(transpose_b), letter(transpose_a), n, m, k,
            slot(one), memory(b), b_row, memory(a), a_row,
            slot(builder.select(add, one, zero)), memory(c), c_row,
        ]  # fmt: skip
        function = ir.FunctionType(ir.IntType(32), [value.type for value in values])
        gemm = cgutils.get_or_insert_function(builder.module, function, "numba_xxgemm")
        builder.call(gemm, values)
        return context.get_dummy_value()

    return types.void(flag, a, size, flag, a, size, size, size, size, flag, a, size), codegen


@inline
def panel_rows(n, m):
    """Rows of y or dz between two products."""
    return min(n, max(LEAST_ROWS, PANEL // max(m, 1)))


@inline
def task_rows(m):
    """Rows of a task."""
    return max(LEAST_TASK, TASK // max(m, 1))


@inline
def parts(rows, step):
    """How many parts of `step` rows; range(0, rows, step) may raise, which each caller checks."""
    return (rows + step - 1) // step


@inline
def forward_work(n, k, m):
    """Elements of `work` that `forward` needs: a pointer to none."""
    return 1


# The words of a forward job
B, Z, Y, M, ACTIVATION, BEGIN, END = range(7)


@inline
def forward(x, w, b, activation, work, z, y):
    """z = x @ w + b, y = f(z)."""
    n, k, m, scratch = x.shape[0], x.shape[1], w.shape[1], address(work, 0)
    sizes = n, k, m, int64(activation), b.size, z.size
    operands = address(x, 0), address(w, 0), address(b, 0), address(z, 0), address(y, 0)
    call(forward_at(scratch), (*sizes, scratch, *operands))


def forward_memory(n, k, m, activation, b_size, z_size, scratch, x, w, b, z, y):
    """`forward` for pointers."""
    if n == 0 or m == 0:
        return
    job = new_job()
    put(job, B, number_of(b) if b_size > 0 else 0)
    put(job, Z, number_of(z) if z_size > 0 else 0)
    put(job, Y, number_of(y))
    put(job, M, m)
    put(job, ACTIVATION, activation)
    bare = activation == IDENTITY and b_size == 0 and z_size == 0
    step = panel_rows(n, m)
    for panel in range(parts(n, step)):
        begin = panel * step
        rows = min(step, n - begin)
        c = at(y, begin * m)
        if k > 0:
            xxgemm(False, at(x, begin * k), k, False, w, m, rows, m, k, False, c, m)
        else:
            carray(c, rows * m)[:] = 0
        if not bare:
            put(job, BEGIN, begin)
            put(job, END, begin + rows)
            worth = useful_tasks(rows * m, CHUNK) > 1
            run(finish_rows(scratch), job, parts(rows, task_rows(m)), scratch, worth)


@partial(task, group="_blas")
def finish_rows(job, number, scratch):
    """Bias, z and activation for some rows of y = x @ w."""
    m, step = get(job, M), task_rows(get(job, M))
    begin = get(job, BEGIN) + number * step
    end = min(begin + step, get(job, END))
    for column in range(0, m, CHUNK):
        columns = min(CHUNK, m - column)
        together = CHUNK // m if columns == m else 1  # rows that lie one behind the other
        for row in range(begin, end, together):
            place, count = row * m + column, min(together, end - row)
            y = carray(at(pointer_to(get(job, Y), scratch), place), count * columns)
            if get(job, B) != 0:
                b = carray(at(pointer_to(get(job, B), scratch), column), columns)
                for i in range(count):
                    for j in range(columns):
                        y[i * columns + j] += b[j]
            z = at(pointer_to(get(job, Z), scratch), place)
            kept = carray(z, y.size if get(job, Z) != 0 else 0)
            activate_and_keep(get(job, ACTIVATION), kept, y)


# The words of a backward job; those of the forward job that it shares keep their places.
DY, SAVED, DZ = range(3)
SUMS = 7


@inline
def backward_work(n, k, m):
    """Elements of `work` that `backward` needs: dz of one panel, and column sums of its tasks."""
    rows = panel_rows(n, m)
    return 1 + (rows + parts(rows, task_rows(m))) * m


@inline
def backward(add, dy, x, w, saved, activation, work, dw, db, dx):
    """dz = dy * f'(z), dw = x.T @ dz, db = dz.sum(0), dx = dz @ w.T; dw += and db += with `add`."""
    n, k, m, dz = x.shape[0], x.shape[1], w.shape[1], address(work, 0)
    sizes = int64(add), n, k, m, int64(activation), db.size, dx.size
    inputs = address(dy, 0), address(x, 0), address(w, 0), address(saved, 0)
    call(backward_at(dz), (*sizes, *inputs, dz, address(dw, 0), address(db, 0), address(dx, 0)))


def backward_memory(
    add, n, k, m, activation, db_size, dx_size, dy, x, w, saved, dz, dw, db_place, dx
):
    """`backward` for pointers."""
    db = carray(db_place, db_size)
    if not add:
        db[:] = 0
    if n == 0 or m == 0:
        if not add:
            carray(dw, k * m)[:] = 0
        carray(dx, dx_size)[:] = 0
        return
    step = panel_rows(n, m)
    job, sums = new_job(), at(dz, step * m)
    put(job, DY, number_of(dy))
    put(job, SAVED, number_of(saved))
    put(job, DZ, number_of(dz))
    put(job, SUMS, number_of(sums) if db_size > 0 else 0)
    put(job, M, m)
    put(job, ACTIVATION, activation)
    for panel in range(parts(n, step)):
        begin = panel * step
        rows = min(step, n - begin)
        tasks = parts(rows, task_rows(m))
        put(job, BEGIN, begin)
        put(job, END, begin + rows)
        run(gradient_rows(dz), job, tasks, dz, useful_tasks(rows * m, CHUNK) > 1)
        if db_size > 0:
            for i in range(tasks):
                own = carray(at(sums, i * m), m)
                for j in range(m):
                    db[j] += own[j]
        if k > 0:
            more = add or begin > 0
            xxgemm(True, at(x, begin * k), k, False, dz, m, k, m, rows, more, dw, m)
        if dx_size > 0:
            xxgemm(False, dz, m, True, w, m, rows, k, m, False, at(dx, begin * k), k)


@partial(task, group="_blas")
def gradient_rows(job, number, scratch):
    """dz = dy * f'(z) for some rows of a panel, and their column sums."""
    m, step, first = get(job, M), task_rows(get(job, M)), get(job, BEGIN)
    begin = first + number * step
    end = min(begin + step, get(job, END))
    for column in range(0, m, CHUNK):
        columns = min(CHUNK, m - column)
        together = CHUNK // m if columns == m else 1  # rows that lie one behind the other
        sums_place = number * m + column
        if get(job, SUMS) != 0:
            carray(at(pointer_to(get(job, SUMS), scratch), sums_place), columns)[:] = 0
        for row in range(begin, end, together):
            place, size = row * m + column, min(together, end - row) * columns
            dy = carray(at(pointer_to(get(job, DY), scratch), place), size)
            saved = carray(at(pointer_to(get(job, SAVED), scratch), place), size)
            dz = carray(at(pointer_to(get(job, DZ), scratch), place - first * m), size)
            activation_gradient(get(job, ACTIVATION), saved, dy, dz)
            if get(job, SUMS) != 0:
                sums = carray(at(pointer_to(get(job, SUMS), scratch), sums_place), columns)
                for i in range(0, size, columns):
                    for j in range(columns):
                        sums[j] += dz[i + j]


def _arguments(numbers, pointers):
    return lambda real: (types.intp,) * numbers + (types.CPointer(real),) * pointers


forward_at = addressed(forward_memory, _arguments(6, 6), group="_blas")
backward_at = addressed(backward_memory, _arguments(7, 8), group="_blas")


@inline
def ready(work):
    """Compile the engine now: a task may not, whose caller may hold Python's lock."""
    return forward_at(address(work, 0)) != 0
