"""What happened to each request: records now, traces and metrics on top of them."""
