"""JSON a byte at a time, compiled: the few forms that exchanges write. Whatever has another form is place -1.

Numbers are the same bits as Python's own: a mantissa below 2^53 and a power of ten up to 22 make one correctly rounded
division (Clinger 1990).
"""

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit

Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

MOST: Final = 1e18  # as in ingest.wire
_WRITTEN: Final = (b"true", b"false", b"null", b'{"stream":"', b'","data":{')
TEXTS: Final = np.array([bytearray(text.ljust(11)) for text in _WRITTEN], np.uint8)
_TRUE, _FALSE, _NULL, ENVELOPE, HEAD = range(5)
QUOTE_SIGN, COMMA, _COLON, _POINT, T_SIGN, _OPENING, _CLOSING, END = (ord(sign) for sign in '",:.t[]}')
_IS_PLAIN: Final = np.array(
    [chr(sign).isascii() and chr(sign).isprintable() and chr(sign) not in '"\\' for sign in range(256)]
)
_MOST_DIGITS: Final = 19  # with the quotation mark that ends them: no more fit int64
_IS_LETTER: Final = np.array([chr(sign).isascii() and chr(sign).isalpha() for sign in range(256)])
_MANTISSA: Final = 1 << 53
_POWERS: Final = 10.0 ** np.arange(23)


@njit(cache=True, nogil=True)
def hash_name(data: Bytes, first: int, end: int) -> Any:
    """FNV-1a of the bytes up to the next quotation mark, and where that stands; `end` if there is none."""
    value = np.uint64(14695981039346656037)
    place = first
    while place < end and data[place] != QUOTE_SIGN:
        value = (value ^ np.uint64(data[place])) * np.uint64(1099511628211)
        place += 1
    return value, place


@njit(cache=True, nogil=True)
def integer(data: Bytes, place: int, end: int) -> tuple[int, int]:
    """(value, place behind it) of up to 18 digits without a leading zero; place -1 for anything else."""
    value, first = 0, place
    while place < end and 48 <= data[place] <= 57:
        value = value * 10 + (data[place] - 48)
        place += 1
        if place - first > 18:
            return 0, -1
    if place == first or (data[first] == 48 and place - first > 1):
        return 0, -1
    return value, place


@njit(cache=True, nogil=True)
def decimal(data: Bytes, place: int, end: int) -> tuple[float, int]:
    """(value, place behind it) of a quoted plain decimal that is exact as mantissa / power of ten; -1 for others."""
    first = place + 1
    last = min(end, first + _MOST_DIGITS)
    if last <= first or data[place] != QUOTE_SIGN:
        return 0.0, -1
    place, mantissa = first, 0
    while place < last and 48 <= data[place] <= 57:
        mantissa = mantissa * 10 + (data[place] - 48)
        place += 1
    if place == first or (data[first] == 48 and place - first > 1):
        return 0.0, -1
    scale = 0
    if place < last and data[place] == _POINT:
        point = place
        place += 1
        while place < last and 48 <= data[place] <= 57:
            mantissa = mantissa * 10 + (data[place] - 48)
            place += 1
        scale = place - point - 1
        if scale == 0:
            return 0.0, -1
    if place >= last or data[place] != QUOTE_SIGN:
        return 0.0, -1
    while mantissa >= _MANTISSA and scale > 0 and mantissa % 10 == 0:
        mantissa, scale = mantissa // 10, scale - 1
    return (mantissa / _POWERS[scale], place + 1) if mantissa < _MANTISSA else (0.0, -1)


@njit(cache=True, nogil=True)
def text_end(data: Bytes, place: int, end: int) -> int:
    """Place behind a quoted plain ASCII text that begins at `place`; -1 for anything else."""
    place += 1
    while place < end and _IS_PLAIN[data[place]]:
        place += 1
    return place + 1 if place < end and data[place] == QUOTE_SIGN else -1


@njit(cache=True, nogil=True)
def skip(data: Bytes, place: int, end: int) -> int:
    """Place behind a text, a whole number or a literal that nobody asks for; -1 for anything else."""
    if place >= end:
        return -1
    sign = data[place]
    if sign == QUOTE_SIGN:
        return int(text_end(data, place, end))
    if 48 <= sign <= 57:
        return int(integer(data, place, end)[1])
    return int(literal(data, place, end))


@njit(cache=True, nogil=True)
def literal(data: Bytes, place: int, end: int) -> int:
    """Place behind true, false or null; -1 for anything else."""
    if place < end and data[place] == T_SIGN:
        return int(behind(data, place, end, TEXTS, _TRUE, 4))
    return int(max(behind(data, place, end, TEXTS, _FALSE, 5), behind(data, place, end, TEXTS, _NULL, 4)))


@njit(cache=True, nogil=True)
def side_levels(data: Bytes, place: int, end: int, prices: Floats, count: int) -> tuple[int, int]:
    """(levels so far, place behind) of [["price","qty"], ...]; place -1 for anything else."""
    if place + 1 >= end or data[place] != _OPENING:
        return count, -1
    if data[place + 1] == _CLOSING:
        return count, place + 2
    before = _OPENING  # a bracket before the first level, a comma before the others
    while place + 1 < end and data[place] == before:
        if data[place + 1] != _OPENING:
            return count, -1
        before = COMMA
        price, place = decimal(data, place + 2, end)
        if place < 0 or place >= end or data[place] != COMMA or not 0.0 < price < MOST:
            return count, -1
        qty, place = decimal(data, place + 1, end)
        if place < 0 or place >= end or data[place] != _CLOSING or not qty < MOST:
            return count, -1
        prices[0, count], prices[1, count] = price, qty
        count, place = count + 1, place + 1
    return count, place + 1 if place < end and data[place] == _CLOSING else -1


@njit(cache=True, nogil=True)
def behind(data: Bytes, place: int, end: int, texts: Bytes, row: int, size: int) -> int:
    """Place behind texts[row, :size]; -1 if something else stands there."""
    if place + size > end:
        return -1
    for k in range(size):
        if data[place + k] != texts[row, k]:
            return -1
    return place + size


@njit(cache=True, nogil=True)
def key_code(data: Bytes, place: int, end: int) -> tuple[int, int]:
    """(code of a key of one or two letters, 0 for longer ones; place behind its colon, -1 if it is no plain key)."""
    if place + 4 >= end:
        return 0, -1
    code, after = int(data[place + 1]), place + 2
    if data[place + 2] != QUOTE_SIGN:
        code, after = code + 128 * int(data[place + 2]), place + 3
    if data[after] != QUOTE_SIGN:
        code, after = 0, text_end(data, place, end) - 1
    if after < 0 or after + 1 >= end or data[after + 1] != _COLON:
        return 0, -1
    if code and not (_IS_LETTER[data[place + 1]] and _IS_LETTER[data[after - 1]]):
        return 0, -1
    return code, after + 2
