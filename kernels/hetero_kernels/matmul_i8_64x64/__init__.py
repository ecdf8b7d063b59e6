"""Products of 64x64 int8 matrices."""
