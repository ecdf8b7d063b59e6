"""In place of PyTorch in the toolkit's environment, where this file is `torch/__init__.py` and `torch/nn/__init__.py`.

rknn-toolkit2 imports PyTorch whatever it is asked to do, and touches two things of it then: the base class
`torch.nn.Module` and the decorator `torch.no_grad`. It computes with it only to read PyTorch models and to quantise
with the algorithm "gdq", and hetero asks for neither. PyTorch would add 0.9 GB, and several times that with the CUDA
libraries that PyPI's build of it brings.
"""

from __future__ import annotations

from typing import Any

# The toolkit compares it.
__version__ = "2.4.0"


class Module:
    """`torch.nn.Module`, to be derived from."""

    def __init__(self, *args: Any, **named: Any) -> None:
        raise RuntimeError(_missing("torch.nn.Module"))


def no_grad() -> Any:
    """`torch.no_grad`, as a decorator."""

    def unchanged(function: Any) -> Any:
        return function

    return unchanged


def __getattr__(name: str) -> Any:
    raise AttributeError(_missing(f"torch.{name}"))


def _missing(what: str) -> str:
    return f"{what} is not here: this environment of hetero has a stand-in for PyTorch, see its docs/compile.md"
