"""Whisper models: found by name, id or folder, checked, and converted to ONNX once."""

from hetero.whisper.models.dims import Dims
from hetero.whisper.models.model import WhisperModel
from hetero.whisper.models.opening import KnownModel, known_models, open_model

__all__ = ["Dims", "KnownModel", "WhisperModel", "known_models", "open_model"]
