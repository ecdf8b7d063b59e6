"""Optimised graphs kept on disk, so that the next load need not optimise again.

It pays for models of many nodes and few megabytes, as `benchmarks/cpu_graph_cache.py` measures it: of large ones the
weights are read either way, and telling whether the model is still the same costs more than optimising its graph.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hetero.backend import Artifact
from hetero.cache import building, key_of
from hetero_cpu.processor import processor_features

_log = logging.getLogger(__name__)

Session = TypeVar("Session")

SMALLEST = 16 << 10
LARGEST = 6 << 20
TOTAL = 2 << 30

_GRAPH = "graph.onnx"
_ABANDONED = 24 * 3600.0  # seconds after which the half-built graph of a process that was killed is removed


class GraphCache:
    """A folder of optimised graphs, one folder each, the least recently used of which go first.

    Any number of processes may use it at once. Whatever goes wrong with it costs time and nothing else.

    Args:
        folder: Made when the first graph is kept.
        total: Bytes that all graphs may take together.
    """

    def __init__(self, folder: Path, total: int = TOTAL) -> None:
        self.folder = folder
        self.total = total

    def load(
        self, key: str, reopen: Callable[[Path], Session], build: Callable[[Path | None], Session]
    ) -> tuple[Session, str]:
        """A session from a kept graph, or a new one whose graph is kept.

        Args:
            key: Changes when the graph would.
            reopen: Makes a session of a kept, optimised graph.
            build: Makes a session of the original model and, unless it gets None, writes the optimised graph there;
                further files go beside it.

        Returns:
            The session, and where its graph is from: `cache`, `new` (kept now), `not kept: ...`.

        Raises:
            Exception: What `build(None)` raises.
        """
        entry = self.folder / key
        if (entry / _GRAPH).is_file():
            try:
                session = reopen(entry / _GRAPH)
            except Exception as error:  # whatever is wrong with a kept graph, the model is still there
                _log.warning("the kept graph %s cannot be used and is removed: %s", entry, error)
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # a cache that may only be read is good too
                    os.utime(entry)
                return session, "cache"
        try:
            with building(entry) as workspace:
                session = build(workspace / _GRAPH)
                (workspace / _GRAPH).stat()
        except Exception as error:
            # The model may be at fault, or the disk: without keeping anything only the model can be.
            return build(None), f"not kept: {type(error).__name__}"
        self._prune(entry)
        return session, "new"

    def _prune(self, newest: Path) -> None:
        """Remove what was used least recently until all fits, `newest` excepted."""
        graphs: list[tuple[float, int, Path]] = []
        for entry in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may be pruning too
                age = entry.stat().st_mtime
                if not entry.name.startswith("."):
                    graphs.append((age, sum(file.stat().st_size for file in entry.iterdir()), entry))
                elif time.time() - age > _ABANDONED:
                    shutil.rmtree(entry, ignore_errors=True)
        used = sum(size for _, size, _ in graphs)
        for _, size, entry in sorted(graphs):
            if used <= self.total:
                return
            if entry != newest:
                shutil.rmtree(entry, ignore_errors=True)
                used -= size


def worth_keeping(artifact: Artifact) -> bool:
    """Whether a model, its external data included, is of a size for which keeping its graph pays."""
    files = [artifact.file, *artifact.companions.values()]
    return SMALLEST <= sum(file.stat().st_size for file in files) <= LARGEST


def graph_key(artifact: Artifact, version: str, level: str, sysroot: Path) -> str:
    """Changes with the model, the version of onnxruntime, the level of optimisation and the kind of CPU.

    The kind of CPU counts since the optimiser lays out weights for its vector width.
    """
    return key_of("1", artifact.digest, version, level, processor_features(sysroot))
