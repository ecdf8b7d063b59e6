"""GELU of int8 values by a table of 256."""
