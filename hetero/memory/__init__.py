"""Pools of buffers that are used again and again, on the host and on devices."""
