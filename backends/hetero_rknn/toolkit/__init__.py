"""Rockchip's compiler, rknn-toolkit2, driven in an environment and a process of its own.

It wants an old numpy and an old protobuf, prints where others raise, and can take its process down: nothing of it is
ever imported here.

| module | subject |
|---|---|
| `releases` | the toolkit's versions, what they need, what they compile for |
| `interpreters` | a Python that the toolkit has wheels for |
| `environment` | the virtual environment in the cache folder, made on first use |
| `torch_standin` | what takes PyTorch's place in it |
| `worker` | the script that runs in it |
| `process` | that script as a process: questions, answers, its death |
| `words` | the toolkit's ways of saying that something went wrong, as text |
| `compiler` | ONNX to `.rknn`, and the comparison |
| `backend` | the part of the backend that compiles |
| `pc` | the toolkit's simulator as a device, for numerics |
"""
