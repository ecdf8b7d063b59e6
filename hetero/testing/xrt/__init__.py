"""A Phoenix NPU (XDNA1, `npu1`) without a laptop: a simulator behind the vendor's Python interface.

| module | subject |
|---|---|
| `phoenix` | what is simulated: the XRT version, limits, modelled times, faults |
| `pyxrt` | `simulated_pyxrt`: the vendor's module, as a version of XRT has it |
| `loading`, `running`, `bound` | its classes: `device` to `kernel`; `bo`, `run`, `runlist`; what they share |
| `npu` | the machine behind it: contexts, columns, commands, faults, counters |
| `launch` | one launch: its arguments, and the mistakes in them |
| `crash` | what a program did wrong, counted; where the vendor's library would take the process down |
| `memory` | buffers, with host and device memory apart |
| `design` | what a stand-in xclbin computes, with the kernels' exact references |
| `kernels` | finding the kernels' references through plugins |
| `enums` | the vendor's enumerations |
| `modelled` | how long a launch takes |
| `stand_in` | stand-in files: an xclbin with a valid header, instructions, a `kernel.toml` |
| `clock` | real time, or a clock that a test controls; waiting with the GIL held |

It computes real results and models time: a time from here is modelled, never measured. What cannot be seen is not
imitated: there is no simulation of ELF modules (`ext.kernel`, `module`), callbacks, or sensors.
"""
