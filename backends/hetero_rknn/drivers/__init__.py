"""The two ways into Rockchip's runtime, behind one contract.

| module | subject |
|---|---|
| `contract` | what a driver is: `Driver`, `Context`, `Timing` |
| `errors` | the vendor's error codes, in hetero's errors |
| `lite` | `rknnlite.api.RKNNLite`, the vendor's Python class |
| `lite_log` | what importing that breaks in `logging`, put back, and what it logs, heard |
| `lite_watch` | what the class does not tell: the code of a run, and where its time went |
| `capi` | `librknnrt.so`, by ctypes |
| `capi_tensors` | how arrays meet its buffers: shared with the NPU, or copied |
| `capi_types` | its declarations, and finding it |
"""
