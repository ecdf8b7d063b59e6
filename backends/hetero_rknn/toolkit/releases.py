"""The toolkit's versions, what they need, and what they compile for."""

from __future__ import annotations

from dataclasses import dataclass

#: SoCs that run what the toolkit compiles, as far as `librknnrt` and this backend go.
TARGETS = ("rk3588", "rk3576", "rk3566", "rk3568", "rk3562")

#: Versions of Python that the toolkit has wheels for and that its dependencies still have.
PYTHONS = ("3.11", "3.12", "3.10", "3.9")

#: Machines that it has wheels for.
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Release:
    """A version of rknn-toolkit2.

    Attributes:
        version: As on PyPI.
        requirements: Its dependencies, for pip. PyTorch is left out: see `torch_standin`.
    """

    version: str
    requirements: tuple[str, ...]


_COMMON = (
    "numpy==1.26.4",
    "protobuf==4.25.4",
    "psutil>=5.9.0",
    "ruamel.yaml>=0.17.21",
    "scipy>=1.9.3",
    "tqdm>=4.64.1",
    # The build without windows, and the last one for numpy 1.
    "opencv-python-headless==4.11.0.86",
    "fast-histogram>=0.11",
    # Later ones want a newer numpy or protobuf; without the limit pip fetches several before it finds that out.
    "onnxruntime>=1.17.0,<1.27",
    # The toolkit imports pkg_resources, which later ones no longer have.
    "setuptools<81",
)

RELEASES: tuple[Release, ...] = (Release("2.5.0", ("onnx==1.18.0", *_COMMON)),)

#: What is used where the user says nothing: the newest.
NEWEST = RELEASES[0]


def release(version: str) -> Release:
    """The release of a version of `RELEASES`."""
    return next(release for release in RELEASES if release.version == version)
