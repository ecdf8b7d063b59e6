"""Stands for a vendor's runtime: imported in the backend's process alone."""

from __future__ import annotations


class VendorError(RuntimeError):
    pass
