"""Layer normalisation of rows of 256 int8 values."""
