"""Operators: what shaders compute, as lists of dispatches over tensors in buffers.

Each operator takes tensors that are there already and gives dispatches, to be recorded with others: barriers are set by
the recorder, by what each one reads and writes. What an operator needs besides, it asks a `Scratch` for.
"""
