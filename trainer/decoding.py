"""What sampling does at every step besides the large products, compiled.

- `attend`: attention of one new token of each answer. PyTorch's own kernels prepare each product of
  matrices, which for the few query heads of one key head costs more than the product itself. Here
  queries and keys are turned by their position, keys and values written to their place, and the
  prompt's tokens and the answer's own attended to, in one pass.
- `norm`: RMSNorm in one operation.

Both take float32 or bfloat16 and sum in float32.

Choices
- numba compiles it at the first call and keeps the result beside this file, or in the user's cache
  folder. Only the sums of a product, which must stay in registers, are written in LLVM's own terms.
- Keys lie in blocks of LANES columns side by side (t / LANES, d, LANES), values with their numbers
  side by side (t, d): both products read memory from one end to the other. Both are filled up to
  `padded` sizes with zeros.
- A prompt's tokens are read once for those of its answers that stand one below the other (Juravsky
  et al. 2024, Hydragen).
- The threads are those of PyTorch's operations; their number changes no bit of the result.
Non-goals: gradients; several new tokens at once; GPUs.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from torch import Tensor
from torch.nn.functional import pad

#: numbers that are computed together
LANES = 16
#: answers of one prompt that read its tokens together: their weights should fit into a near cache
TOGETHER = 8
#: rows of a product that are summed together, and into how many parts each, by the number of rows:
#: a sum that waits for the one before leaves half of the processor idle
PARTS = {1: 4, 2: 4, 3: 2, 4: 1, 5: 1, 6: 1}
#: rows that a norm takes at once, and numbers from which on several threads share them
NORM_ROWS, NORM_NUMBERS = 16, 2**17
#: what is added to the score of a hidden column is below this
HIDDEN = np.float32(-1e30)

U = np.uintp  # indices without a sign need no look whether they count from the end
ZERO, ONE = U(0), U(1)
F = np.float32
SUMS = {"contract", "reassoc", "nsz"}  # what sums may do to be taken side by side


class NormJob(ctypes.Structure):
    """What the threads are told of a norm: how many parts are taken, sizes, addresses."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("taken", "rows", "d", "x", "weight", "out")),
        ("epsilon", ctypes.c_float),
    )


class AttentionJob(ctypes.Structure):
    """The same of attention."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("taken", "b", "h", "kv", "d", "deep", "wide")),
        *((name, ctypes.c_size_t) for name in ("room", "columns", "new", "heads", "cos", "sin")),
        *((name, ctypes.c_size_t) for name in ("mask", "prompt_keys", "prompt_values")),
        *((name, ctypes.c_size_t) for name in ("prompt_of", "own_keys", "own_values", "out")),
        ("scale", ctypes.c_float),
    )


NORM, ATTENTION = np.dtype(NormJob), np.dtype(AttentionJob)


def padded(size: int) -> int:
    """The next multiple of LANES."""
    return -(-size // LANES) * LANES


def attend(
    heads: Tensor,
    turns: tuple[Tensor, Tensor],
    mask: Tensor,
    prompts: tuple[Tensor, Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    place: int,
    scale: float,
) -> Tensor:
    """softmax(scale · q kᵀ + mask) v of one new token of each answer, (b, h, d).

    `heads` (b, h + 2 kv, d) are its queries, keys and values, of which the first two are turned by
    `turns`, cosines and sines (b, d) (Su et al. 2021; halves of d paired). `prompts` are keys
    (p, kv, t'/LANES, d', LANES) and values (p, kv, t', d') of the prompts (`blocks` and `lines`
    make them) and which of them each answer has (b,) int64; `own` the same of the answers' own
    tokens, for b and T, into which the new ones are written at column `place`. The primed sizes are
    `padded`, T is so by itself. `mask` (b, t + T) is added to the scores, float32; the t columns of
    the prompt come first. All else has one format, float32 or bfloat16.

    Raises ValueError where memory is not laid out like this.
    """
    (keys, values), (prompt_keys, prompt_values, prompt_of) = own, prompts
    kv, room, deep = values.shape[1:]
    b, h, d = len(heads), heads.shape[1] - 2 * kv, heads.shape[2]
    wide = prompt_values.shape[2]
    out = heads.new_empty((b, h, d))
    memory = (heads, *turns, mask, prompt_keys, prompt_values, prompt_of, keys, values, out)
    _check(memory, [one for one in memory if one is not mask and one is not prompt_of])
    if (mask.dtype, prompt_of.dtype) != (torch.float32, torch.int64):
        raise ValueError("the mask must be float32 and the prompts' numbers int64")
    if not (0 < mask.shape[1] - room <= wide and 0 <= place < room):
        raise ValueError("the mask must cover prompts and answers, and the place lie among these")
    sizes = (b, h, kv, d, deep, wide, room, mask.shape[1], place)
    job = AttentionJob(0, *sizes, *(one.data_ptr() for one in memory), scale)
    _side_by_side(_worker("attend", heads.dtype), job, torch.get_num_threads())
    return out


def norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """w · x / √(mean x² + ε) of each row of x (…, d), w (d,); the quotient is rounded to x's format
    before it is multiplied, as the families' own code does it.

    Raises ValueError as `attend` does.
    """
    out = torch.empty_like(x)
    memory = (x, weight, out)
    _check(memory, memory)
    d = x.shape[-1]
    job = NormJob(0, x.numel() // d, d, *(one.data_ptr() for one in memory), epsilon)
    threads = torch.get_num_threads() if x.numel() >= NORM_NUMBERS else 1
    _side_by_side(_worker("norm", x.dtype), job, threads)
    return out


def _check(memory: Sequence[Tensor], numbers: Sequence[Tensor]) -> None:
    """Refuse what would be read otherwise than it is meant: the threads see addresses alone."""
    if not all(one.is_contiguous() and one.is_cpu for one in memory):
        raise ValueError("compiled operations want contiguous tensors in the CPU's memory")
    if len({one.dtype for one in numbers}) > 1 or numbers[0].dtype not in WORKERS["norm"]:
        raise ValueError("compiled operations want numbers of one format, float32 or bfloat16")


def blocks(keys: Tensor) -> Tensor:
    """Keys (n, kv, t, d) as `attend` wants them: (n, kv, t'/LANES, d', LANES)."""
    return lines(keys).unflatten(2, (-1, LANES)).transpose(3, 4).contiguous()


def lines(values: Tensor) -> Tensor:
    """Values (n, kv, t, d) as `attend` wants them: (n, kv, t', d')."""
    _, _, t, d = values.shape
    return pad(values, (0, padded(d) - d, 0, padded(t) - t)).contiguous()


# --- threads ------------------------------------------------------------------------------------


@lru_cache
def _team() -> Any:
    """What starts the threads that PyTorch's own operations use; None where it is not found.

    Threads of another kind would compete with these, which stay busy for a while after their work.
    """
    try:
        team = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD).GOMP_parallel
    except (OSError, AttributeError):
        return None
    team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    return team


def _side_by_side(worker: Any, job: ctypes.Structure, threads: int) -> None:
    """Let so many threads call the worker at once; it shares the work out."""
    team = _team()
    if team is None or threads == 1:
        worker(ctypes.byref(job))
    else:
        team(worker, ctypes.byref(job), threads, 0)


@lru_cache
def _worker(name: str, dtype: torch.dtype) -> Any:
    """What does `attend` or `norm` in a format, compiled, to be called with its job."""
    function = WORKERS[name][dtype]
    signature = types.void(types.voidptr)
    try:
        compiled = cfunc(signature, cache=True)(function)
    except RuntimeError:  # there is no folder to keep it in
        compiled = cfunc(signature)(function)
    return compiled.ctypes


def _attend_float32(told):
    _attend(carray(told, 1, ATTENTION)[0], told, F(0))


def _attend_bfloat16(told):
    _attend(carray(told, 1, ATTENTION)[0], told, np.uint16(0))


def _norm_float32(told):
    _norm(carray(told, 1, NORM)[0], told, F(0))


def _norm_bfloat16(told):
    _norm(carray(told, 1, NORM)[0], told, np.uint16(0))


WORKERS = {
    "attend": {torch.float32: _attend_float32, torch.bfloat16: _attend_bfloat16},
    "norm": {torch.float32: _norm_float32, torch.bfloat16: _norm_bfloat16},
}


@intrinsic
def _pointer(_: Any, address: Any, like: Any) -> Any:
    """A pointer to numbers of that format."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), build


@njit
def _line(address, like):
    """The memory from an address on, as numbers of that format."""
    return carray(_pointer(address, like), 1)


@intrinsic
def _take(_: Any, taken: Any) -> Any:
    """The number there, which is one more from now on; no two threads get the same."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.get_value_type(types.uintp)
        counter = builder.bitcast(args[0], number.as_pointer())
        return builder.atomic_rmw("add", counter, number(1), "monotonic")

    return types.uintp(taken), build


# --- formats ------------------------------------------------------------------------------------


def widen(x: Any) -> Any:
    """A number of either format as float32."""
    raise NotImplementedError


@overload(widen)
def _widen(x):
    if isinstance(x, types.Integer):
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


def narrow(x: Any, like: Any) -> Any:
    """A float32 in the format of `like`."""
    raise NotImplementedError


@overload(narrow)
def _narrow(x, like):
    if isinstance(like, types.Integer):
        return lambda x, like: _rounded(x)
    return lambda x, like: x


@njit
def _rounded(x):
    """The upper half of a float32's bits, rounded to the nearest; halves to even."""
    bits = F(x).view(np.uint32)
    odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
    near = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    return near if x == x else np.uint16(0x7FC0)


# --- products -----------------------------------------------------------------------------------


@intrinsic
def _spot(_: Any, array: Any, index: Any) -> Any:
    """The address of a number of a line of memory."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(builder.gep(data, [args[1]]), args[1].type)

    return types.uintp(array, index), build


def _tile(rows: int) -> Any:
    """c[r, :LANES] = Σ_i a[r, i] · b[i, :LANES] for so many rows, the sums in registers.

    Of a (float32), b (the format of `like`) and c (float32) it is told the address and how far rows
    are apart; `depth` is how many i there are, a multiple of four.
    """
    number, half, lane = ir.FloatType(), ir.IntType(16), ir.IntType(32)
    numbers, halves, lanes = (ir.VectorType(kind, LANES) for kind in (number, half, lane))
    empty, nothing = ir.Constant(numbers, ir.Undefined), ir.Constant(numbers, [0.0] * LANES)
    parts = PARTS[rows]

    def row_at(builder: Any, address: Any, step: Any, row: Any, kind: Any) -> Any:
        """A pointer to the beginning of a row of numbers of that kind."""
        start = builder.inttoptr(address, kind.as_pointer())
        return builder.gep(start, [builder.mul(step, row)])

    def line_of(builder: Any, source: Any, kind: Any) -> Any:
        """LANES numbers of either format as float32."""
        if kind is number:
            return builder.load(builder.bitcast(source, numbers.as_pointer()), align=4)
        bits = builder.load(builder.bitcast(source, halves.as_pointer()), align=2)
        upper = builder.shl(builder.zext(bits, lanes), ir.Constant(lanes, [16] * LANES))
        return builder.bitcast(upper, numbers)

    def spread(builder: Any, one: Any) -> Any:
        """The number in every lane."""
        first = builder.insert_element(empty, one, ir.Constant(lane, 0))
        return builder.shuffle_vector(first, empty, ir.Constant(lanes, [0] * LANES))

    @intrinsic
    def tile(
        _: Any, a: Any, a_step: Any, b: Any, b_step: Any, like: Any, c: Any, c_step: Any, depth: Any
    ) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            a, a_step, b, b_step, _, c, c_step, depth = args
            count = depth.type
            kind = half if isinstance(signature.args[4], types.Integer) else number
            left = [row_at(builder, a, a_step, count(row), number) for row in range(rows)]
            sums = [
                [cgutils.alloca_once(builder, numbers) for _ in range(parts)] for _ in range(rows)
            ]
            for each in sums:
                for part in each:
                    builder.store(nothing, part)
            with cgutils.for_range(builder, builder.udiv(depth, count(parts))) as loop:
                for n in range(parts):
                    i = builder.add(builder.mul(loop.index, count(parts)), count(n))
                    line = line_of(builder, row_at(builder, b, b_step, i, kind), kind)
                    for start, each in zip(left, sums, strict=True):
                        factor = spread(builder, builder.load(builder.gep(start, [i])))
                        more = builder.fmul(factor, line, flags=["contract"])
                        total = builder.fadd(builder.load(each[n]), more, flags=["contract"])
                        builder.store(total, each[n])
            for row, each in enumerate(sums):
                total = builder.load(each[0])
                for part in each[1:]:
                    total = builder.fadd(total, builder.load(part))
                target = row_at(builder, c, c_step, count(row), number)
                builder.store(total, builder.bitcast(target, numbers.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(a, a_step, b, b_step, like, c, c_step, depth), build

    return tile


_one, _two, _three, _four, _five, _six = map(_tile, sorted(PARTS))
_MOST = U(max(PARTS))
_LANES = U(LANES)


@njit
def _product(a, b, c, rows, depth, columns):
    """c (rows, columns) = a (rows, depth) · b (depth, columns), each (line of memory, where it
    begins, how far rows are apart); b with how far LANES columns are from the next, too.
    """
    like, step_a, step_b, step_c = b[0][0], a[2], b[2], c[2]
    for column in range(ZERO, columns, _LANES):
        right = _spot(b[0], b[1] + column // _LANES * b[3])
        row = ZERO
        while row < rows:
            left = _spot(a[0], a[1] + row * step_a)
            found = _spot(c[0], c[1] + row * step_c + column)
            more = min(rows - row, _MOST)
            if more == U(6):
                _six(left, step_a, right, step_b, like, found, step_c, depth)
            elif more == U(5):
                _five(left, step_a, right, step_b, like, found, step_c, depth)
            elif more == U(4):
                _four(left, step_a, right, step_b, like, found, step_c, depth)
            elif more == U(3):
                _three(left, step_a, right, step_b, like, found, step_c, depth)
            elif more == U(2):
                _two(left, step_a, right, step_b, like, found, step_c, depth)
            else:
                _one(left, step_a, right, step_b, like, found, step_c, depth)
            row += more


# --- one row ------------------------------------------------------------------------------------


@njit(fastmath={"contract", "nsz"})
def _exp(x):
    """e to a power that is not positive, to 2 units in the last place; 0 below the smallest normal
    number (the polynomial of Cephes' expf).
    """
    n = np.floor(x * F(1.4426950408889634) + F(0.5))
    r = x - n * F(0.693359375) - n * F(-2.12194440e-4)
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    power = np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    return F(0) if x < F(-87.0) else (p * r * r + r + F(1)) * power


@njit
def _ordered(bits):
    """The bits of a float32 as a whole number of the same order, and back again."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit
def _top(s, begin, count):
    """The largest of a row: NaN if there is one. Whole numbers are compared, side by side."""
    top = np.int32(-(2**31))
    for i in range(count):
        top = max(top, _ordered(F(s[begin + i]).view(np.int32)))
    return np.int32(_ordered(top)).view(np.float32)


@njit(fastmath=SUMS)
def _softmax(s, begin, count):
    """Scores become weights that are not normalised; gives their sum."""
    top = _top(s, begin, count)
    total = F(0)
    for i in range(count):
        weight = _exp(s[begin + i] - top)
        s[begin + i] = weight
        total += weight
    return total


@njit(fastmath=SUMS)
def _turn(x, begin, cos, sin, angle, half, scale, out, to):
    """A head turned by its position and scaled: float32 at `to` of out."""
    for i in range(half):
        left, right = widen(x[begin + i]), widen(x[begin + half + i])
        out[to + i] = scale * (left * widen(cos[angle + i]) - right * widen(sin[angle + i]))
    for i in range(half):
        left, right = widen(x[begin + i]), widen(x[begin + half + i])
        out[to + half + i] = scale * (
            right * widen(cos[angle + half + i]) + left * widen(sin[angle + half + i])
        )


@njit
def _add(s, begin, count, mask, at):
    """Add the mask to a row of scores."""
    for i in range(count):
        s[begin + i] += mask[at + i]


@njit(fastmath=SUMS, error_model="numpy")
def _norm_row(x, weight, out, begin, d, epsilon, wide, like):
    """One row of `norm`; `wide` is room for it as float32."""
    total = F(0)
    for i in range(d):
        number = widen(x[begin + i])
        wide[i] = number
        total += number * number
    inverse = F(1) / np.sqrt(total / F(d) + epsilon)
    for i in range(d):
        unit = widen(narrow(wide[i] * inverse, like))
        out[begin + i] = narrow(widen(weight[i]) * unit, like)


# --- the work of one of several threads ---------------------------------------------------------


@njit(error_model="numpy")
def _norm(told, taken, like):
    """`norm`: some rows after the others, as long as there are any left."""
    x, weight = _line(told.x, like), _line(told.weight, like)
    out, wide = _line(told.out, like), np.empty(told.d, F)
    many = U(NORM_ROWS)
    row = _take(taken) * many
    while row < told.rows:
        for r in range(row, min(row + many, told.rows)):
            _norm_row(x, weight, out, r * told.d, told.d, F(told.epsilon), wide, like)
        row = _take(taken) * many


@njit(error_model="numpy")
def _attend(told, taken, like):
    """`attend`: some answers and one key head after the other, as long as there are any left.
    `like` is a number of the format.
    """
    # 1. sizes, and everything as one line of memory
    b, h, kv, d, deep, new = told.b, told.h, told.kv, told.d, told.deep, told.new
    wide, room, columns = told.wide, told.room, told.columns
    far, group, half = columns - room, h // kv, d // U(2)
    near = (new + _LANES) // _LANES * _LANES  # own columns that are looked at
    width, rows = wide + near, U(TOGETHER) * group
    x, cos, sin = _line(told.heads, like), _line(told.cos, like), _line(told.sin, like)
    hide, prompt_of = _line(told.mask, F(0)), _line(told.prompt_of, ZERO)
    far_k, far_v = _line(told.prompt_keys, like), _line(told.prompt_values, like)
    own_k, own_v = _line(told.own_keys, like), _line(told.own_values, like)
    result = _line(told.out, like)
    q, key = np.zeros(rows * deep, F), np.zeros(deep, F)
    s, total = np.empty(rows * width, F), np.empty(rows, F)
    far_out, own_out = np.empty(rows * deep, F), np.empty(rows * deep, F)
    lots = (b + U(TOGETHER) - ONE) // U(TOGETHER)
    part = _take(taken)
    while part < lots * kv:
        row, k = part // kv * U(TOGETHER), part % kv
        end = min(row + U(TOGETHER), b)
        while row < end:
            # 2. the next answers of one prompt, and the first column of it that they see
            prompt, many = prompt_of[row], ONE
            while row + many < end and prompt_of[row + many] == prompt:
                many += ONE
            first = ZERO
            while first < far and hide[row * columns + first] < HIDDEN:
                first += ONE
            first = first // _LANES * _LANES
            # 3. queries are turned, keys and values put to their place
            for n in range(many):
                at, angle = (row + n) * (h + U(2) * kv), (row + n) * d
                for r in range(group):
                    to = (n * group + r) * deep
                    _turn(x, (at + k * group + r) * d, cos, sin, angle, half, F(told.scale), q, to)
                _turn(x, (at + h + k) * d, cos, sin, angle, half, F(1), key, ZERO)
                own = ((row + n) * kv + k) * deep * room
                block = own + new // _LANES * deep * _LANES + new % _LANES
                for i in range(d):
                    own_k[block + i * _LANES] = narrow(key[i], like)
                    own_v[own + new * deep + i] = x[(at + h + kv + k) * d + i]
            # 4. scores: the prompt's tokens for all of its answers, then each answer's own
            shared, seen = (prompt * kv + k) * deep * wide + first * deep, wide - first
            _product(
                (q, ZERO, deep), (far_k, shared, _LANES, deep * _LANES), (s, first, width),
                many * group, deep, seen,
            )  # fmt: skip
            for n in range(many):
                own = ((row + n) * kv + k) * deep * room
                _product(
                    (q, n * group * deep, deep), (own_k, own, _LANES, deep * _LANES),
                    (s, n * group * width + wide, width), group, deep, near,
                )  # fmt: skip
            # 5. weights
            for r in range(many * group):
                line, at = r * width, (row + r // group) * columns
                _add(s, line + first, far - first, hide, at + first)
                _add(s, line + wide, new + ONE, hide, at + far)
                for i in range(far, wide):
                    s[line + i] = HIDDEN
                for i in range(new + ONE, near):
                    s[line + wide + i] = HIDDEN
                total[r] = _softmax(s, line + first, width - first)
            # 6. values by their weights
            _product(
                (s, first, width), (far_v, shared, deep, _LANES), (far_out, ZERO, deep),
                many * group, seen, deep,
            )  # fmt: skip
            for n in range(many):
                own = ((row + n) * kv + k) * deep * room
                _product(
                    (s, n * group * width + wide, width), (own_v, own, deep, _LANES),
                    (own_out, n * group * deep, deep), group, near, deep,
                )  # fmt: skip
                for r in range(group):
                    found, to = (n * group + r) * deep, ((row + n) * h + k * group + r) * d
                    for i in range(d):
                        both = far_out[found + i] + own_out[found + i]
                        result[to + i] = narrow(both / total[n * group + r], like)
            row += many
        part = _take(taken)
