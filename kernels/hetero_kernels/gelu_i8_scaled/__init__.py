"""GELU of int8 values whose input and output have steps of their own, by a table that the host hands over."""
