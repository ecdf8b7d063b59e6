"""Which device runs a request: the order of candidates, and the one path that every request takes."""
