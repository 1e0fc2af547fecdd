"""bfloat16 as a Zarr data type, found by zarr-python through the entry-point group `zarr.data_type`.

Zarr v3 names the extension type `bfloat16`; zarr-python ships no implementation. The bytes are those of a
little-endian uint16, so `view_dtype` in `lrh_ray.store.views` turns a store into one that needs no package at all.

zarr 3.1 lists the entry point and never loads it, so importing this module registers the type as well.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import ml_dtypes
import numpy as np
from zarr.core.dtype.common import HasEndianness
from zarr.dtype import ZDType, data_type_registry

try:
    from zarr.errors import DataTypeValidationError  # type: ignore[attr-defined,unused-ignore]  # zarr >= 3.2
except ImportError:
    from zarr.dtype import DataTypeValidationError

_DTYPE = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, kw_only=True, slots=True)
class BFloat16(ZDType[Any, Any], HasEndianness):
    """The Zarr v3 data type `bfloat16`; scalars travel through JSON as floats or as "NaN", "Infinity", "-Infinity".

    It has an endianness so that zarr-python writes down the byte order of its `bytes` codec; TensorStore opens no array
    of two-byte elements without it. Only little-endian bytes are read and written.
    """

    dtype_cls: ClassVar[type] = type(_DTYPE)
    _zarr_v3_name: ClassVar[str] = "bfloat16"

    @classmethod
    def from_native_dtype(cls, dtype: Any) -> "BFloat16":
        if dtype == _DTYPE:
            return cls()
        raise DataTypeValidationError(f"Invalid data type: {dtype}. Expected {_DTYPE}.")

    def to_native_dtype(self) -> Any:
        if self.endianness != "little":
            raise DataTypeValidationError(f"bfloat16 is stored little-endian; got {self.endianness!r}.")
        return _DTYPE

    @classmethod
    def _check_native_dtype(cls, dtype: Any) -> TypeGuard[Any]:
        return bool(dtype == _DTYPE)

    @classmethod
    def _from_json_v2(cls, data: Any) -> "BFloat16":
        raise DataTypeValidationError(f"bfloat16 exists in Zarr v3 only; got {data!r}.")

    @classmethod
    def _from_json_v3(cls, data: Any) -> "BFloat16":
        if data == cls._zarr_v3_name:
            return cls()
        raise DataTypeValidationError(f"Invalid data type: {data!r}. Expected 'bfloat16'.")

    def to_json(self, zarr_format: int) -> Any:
        if zarr_format == 3:
            return self._zarr_v3_name
        raise ValueError("bfloat16 exists in Zarr v3 only.")

    def _check_scalar(self, data: object) -> bool:
        return isinstance(data, int | float | np.floating | np.integer | ml_dtypes.bfloat16)

    def cast_scalar(self, data: object) -> Any:
        if self._check_scalar(data):
            return _DTYPE.type(data)
        raise TypeError(f"Cannot cast {data!r} to bfloat16.")

    def default_scalar(self) -> Any:
        return _DTYPE.type(0)

    def from_json_scalar(self, data: Any, *, zarr_format: int) -> Any:
        del zarr_format
        return _DTYPE.type(float(data.replace("Infinity", "inf")) if isinstance(data, str) else data)

    def to_json_scalar(self, data: object, *, zarr_format: int) -> float | str:
        del zarr_format
        value = float(self.cast_scalar(data))
        if np.isnan(value):
            return "NaN"
        if np.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value


data_type_registry.register("bfloat16", BFloat16)
