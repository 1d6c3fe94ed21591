"""Which kernels of the linear algebra library the simulator's controller computes with: they decide the last bits.

OpenBLAS has kernels for every kind of processor, and they round differently. robosuite's controller multiplies and
inverts matrices 500 times a second, so a path differs from the first step on by some 1e-16 metres, and contact with an
object makes more of it.
"""

from __future__ import annotations

import ctypes
from functools import cache

UNKNOWN = "unknown"
NAMED = ("scipy_openblas_get_corename", "openblas_get_corename", "openblas_get_corename64_")


@cache
def kernels() -> str:
    """'SkylakeX' (AVX-512), 'Haswell' (AVX2), ...; 'unknown' where the library is another one than OpenBLAS.

    The controller is compiled by numba, which takes BLAS from scipy; its extension module leads to the library.
    """
    from scipy.linalg import cython_blas

    with_library = ctypes.CDLL(cython_blas.__file__)
    for name in NAMED:
        function = getattr(with_library, name, None)
        if function is not None:
            function.restype = ctypes.c_char_p
            return function().decode()
    return UNKNOWN
