"""Whisper's log-mel spectrum of windows of int16 samples, with integers only."""
