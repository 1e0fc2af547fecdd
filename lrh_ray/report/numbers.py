r"""Numbers and foreign strings as text: aligned, short, and safe to look at.

A page of measures is read by comparing digits, so a number keeps three decimals below ten, real minus signs, and thin
spaces between thousands. Text from documents may hold control characters, bidirectional overrides or half of a
surrogate pair, which change how a page reads or make it invalid; `readable` shows them instead of obeying them.

    number(0.98213)             # 0.982
    interval(0.974, 0.989)      # [0.974, 0.989]
    quantity("bytes", 88309760) # 84.2 MiB
    readable("a\nb", limit=80) # a↵b

What can go wrong: rounding hides digits. The exact value stays in the result on disk, and in the page as the sort key.
"""

import math

from lrh_ray.records import Scalar

NO_VALUE = "—"
ABBREVIATIONS = {
    "auc": "AUC",
    "mse": "MSE",
    "rmse": "RMSE",
    "r2": "R²",
    "kl": "KL",
    "cka": "CKA",
    "mcc": "MCC",
    "fvu": "FVU",
    "ce": "CE",
    "l0": "L0",
}
_THIN = "\u202f"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

_LINE_BREAKS = dict.fromkeys((0x0A, 0x0D, 0x85, 0x2028, 0x2029), "↵")
_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x09: "⇥", 0x7F: "␡"}
_INVALID = dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFFFE, 0xFFFF], "\ufffd")
_VISIBLE = _CONTROLS | _INVALID | _LINE_BREAKS


def number(value: int | float | bool | None) -> str:
    """A number for a column of numbers; a dash where there is none."""
    if value is None:
        return NO_VALUE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _grouped(value)
    return _decimal(value)


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, or a dash when neither end is known."""
    if low is None and high is None:
        return NO_VALUE
    return f"[{number(low)}, {number(high)}]"


def quantity(name: str, value: Scalar) -> str:
    """A value shown under a name: a number of bytes gets a binary prefix, other numbers their usual form."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and name.lower().split("_")[-1].endswith("bytes"):
        return _bytes(value)
    return number(value)


def readable(text: str, limit: int, *, keep: str = "start") -> str:
    """`text` with control characters made visible, shortened to `limit` characters at its end (or at its start)."""
    if len(text) > limit:
        text = text[: limit - 1] + "…" if keep == "start" else "…" + text[len(text) - limit + 1 :]
    shown = text.replace("\r\n", "\n").translate(_VISIBLE)
    return shown.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def label(name: str) -> str:
    """The name of a metric, key or column as a reader writes it: words instead of underscores, usual abbreviations."""
    return readable(" ".join(ABBREVIATIONS.get(word, word) for word in name.split("_")), 80)


def unit_suffix(unit: str) -> str:
    """The unit as it stands behind a name in a header; nothing for a pure number."""
    return "" if unit in ("", "1") else f" ({readable(unit, 40)})"


def _grouped(value: int) -> str:
    digits = f"{abs(value):,}" if abs(value) >= 10_000 else str(abs(value))
    return ("−" if value < 0 else "") + digits.replace(",", _THIN)


def _decimal(value: float) -> str:
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if size != 0 and not 5e-4 <= size < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")
    decimals = next((kept for bound, kept in ((10, 3), (100, 2), (1000, 1)) if size < bound), 0)
    rounded = f"{value:,.{decimals}f}" if size >= 10_000 else f"{value:.{decimals}f}"
    return rounded.replace(",", _THIN).replace("-", "−")


def _bytes(value: int) -> str:
    power = min(max(abs(value).bit_length() - 1, 0) // 10, len(_BYTES) - 1)
    return f"{value} B" if power == 0 else f"{value / 1024**power:.1f} {_BYTES[power]}"
