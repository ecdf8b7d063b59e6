"""This kernel for AIE2 cores."""
