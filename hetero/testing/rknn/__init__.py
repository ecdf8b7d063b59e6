"""A Rockchip NPU without a board: simulators behind the vendor's two interfaces.

| module | subject |
|---|---|
| `npu` | what is simulated: the platform, its speed, its faults |
| `twin` | `.rknn` files that a simulator can compute: a header as the vendor's, and the ONNX model they stand for |
| `cores` | cores, queueing, modelled time and faults, for `rknnlite` |
| `rknnlite` | `rknnlite.api`: the class RKNNLite, and what it logs |
| `rknnlite_runtime` | what that class opens: a model, its inputs' layouts and dtypes, its runs |
| `library` | `librknnrt.so`: built from the C source beside it |

Both compute real outputs with ONNX Runtime and model time: a time from here is modelled, never measured.
"""
