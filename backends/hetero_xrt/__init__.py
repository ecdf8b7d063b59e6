"""AMD XDNA NPUs (Ryzen AI) through XRT.

| module | subject |
|---|---|
| `manifest` | `kernel.toml`: what a compiled kernel takes, and in which order |
| `xclbin` | the header of an xclbin, read without the vendor's library |
"""
