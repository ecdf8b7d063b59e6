"""Layer normalisation of rows of int16 values to int8, for any width that is a multiple of 64."""
