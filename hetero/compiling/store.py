"""Compiled artifacts in the cache folder, by what they were made of."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hetero.cache import building, key_of
from hetero.compiling.report import CompileReport, CompileRequest
from hetero.compiling.samples import digest_of

_log = logging.getLogger(__name__)

#: In the cache folder.
FOLDER = "compiled"
_REPORT = "report.json"


@dataclass(frozen=True)
class Entry:
    """A compiled artifact.

    Attributes:
        folder: Of the entry.
        report: About it.
        kept: It was there already.
    """

    folder: Path
    report: CompileReport
    kept: bool

    @property
    def artifact(self) -> Path:
        """The file."""
        return self.folder / self.report.file


def request_key(request: CompileRequest, compiler: str) -> str:
    """Changes with the model, the target, the shapes, the data, the options and the compiler's version.

    Compilers need not write the same bytes twice, so what they read is the key, not what they write.
    """
    shapes = json.dumps({name: list(shape) for name, shape in request.shapes.items()})
    options = json.dumps(dict(request.options), sort_keys=True, default=str)
    return key_of(
        "1",
        compiler,
        request.target,
        request.program.artifact("onnx").digest,
        shapes,
        digest_of(request.calibration) if request.int8 else "",
        digest_of(request.checks),
        options,
    )


class Store:
    """The folder of compiled artifacts. Any number of processes may use it at once.

    Args:
        cache: hetero's cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self.folder = cache / FOLDER

    def get(
        self,
        request: CompileRequest,
        compiler: str,
        compile_into: Callable[[Path], CompileReport],
        *,
        anew: bool = False,
    ) -> Entry:
        """The artifact of a request: the kept one, or a new one that is kept.

        Args:
            request: What is wanted.
            compiler: Its name and version.
            compile_into: Compiles into an empty folder.
            anew: Compile although there is one, and keep the new one in its place.

        Raises:
            Exception: What `compile_into` raises; nothing is kept then.
        """
        folder = self.folder / request_key(request, compiler)
        kept = None if anew else _read(folder)
        # A kept one that falls short was perhaps good enough when it was made, and its layers were not looked at.
        if kept is not None and (kept.layers or not request.int8 or kept.reaches(request.min_cosine)):
            return Entry(folder, kept, kept=True)
        _retire(folder)
        with building(folder) as workspace:
            report = compile_into(workspace)
            (workspace / _REPORT).write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
        # Another process may have been quicker, and then its artifact is the one that is there.
        return Entry(folder, _read(folder) or report, kept=False)


def describe(entry: Path) -> str:
    """What an entry of the store is, for people; empty when it cannot be told."""
    report = _read(entry)
    if report is None:
        return ""
    shapes = " ".join("x".join(map(str, shape)) for shape in report.shapes.values())
    return f"{report.kind} for {report.target}, {report.precision}, {shapes}, by {report.compiler}"


def _read(folder: Path) -> CompileReport | None:
    """The report of a whole entry, else None."""
    try:
        report = CompileReport.from_dict(json.loads((folder / _REPORT).read_text(encoding="utf-8")))
        return report if (folder / report.file).is_file() else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("the compiled artifact %s cannot be used and is made again: %s", folder, error)
        return None


def _retire(folder: Path) -> None:
    """Take an entry out of the way in one step, so that nobody finds half of it."""
    if not folder.exists():
        return
    graveyard = Path(tempfile.mkdtemp(prefix=".retired-", dir=folder.parent))
    try:
        folder.rename(graveyard / folder.name)
    except FileNotFoundError:
        pass  # another process did
    finally:
        shutil.rmtree(graveyard, ignore_errors=True)
