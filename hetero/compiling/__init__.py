"""Compiling: an ONNX model becomes a bundle with artifacts that were built for devices.

| module | subject |
|---|---|
| `report` | what a backend is asked to compile, and what it tells about the result |
| `targets` | which backend compiles for a target |
| `shapes` | the fixed shapes that a compiler needs, several sets of them where buckets are wanted |
| `samples` | calibration data: reading it, and refusing what does not fit |
| `store` | compiled artifacts kept in the cache folder |
| `bundling` | putting artifacts into a bundle |
| `build` | all of it: `compile_program` |
"""
