"""The part of the backend that compiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hetero.backend import Backend, CompileReport, CompileRequest, Option
from hetero.compiling.report import Progress
from hetero_rknn.toolkit import compiler
from hetero_rknn.toolkit.environment import version_of
from hetero_rknn.toolkit.releases import TARGETS


class CompilingBackend(Backend):
    """A backend that compiles with rknn-toolkit2; what it runs on is for the class that derives from it."""

    targets: ClassVar[tuple[str, ...]] = TARGETS
    compile_options: ClassVar[tuple[Option, ...]] = compiler.OPTIONS

    def compiler(self, options: Mapping[str, Any]) -> str:
        """See `Backend.compiler`."""
        return f"rknn-toolkit2 {version_of(self.host)}"

    def compile(self, request: CompileRequest, out: Path, progress: Progress) -> CompileReport:
        """See `Backend.compile`. On first use the toolkit's environment is made, which takes minutes and 0.65 GB."""
        return compiler.compile_program(request, out, self.host, progress)
