"""Modelled machines that get warm: a plant, the files in which a kernel would show it, and half hours of use.

| module | subject |
|---|---|
| `plant` | die, board, hotspots, sensors, what the kernel does; many machines at once |
| `builds` | the constants of machines, and where each comes from |
| `sysroots` | the folders and files of boards' kernels |
| `machine` | a plant that drives such files, in simulated time or in real, quicker time |
| `scenarios` | what the air, fans and other work do |
| `strategies` | ways to deal with heat, side by side |
| `world` | modelled time for real threads |
| `ways`, `serving` | a Runtime at work on a modelled machine, and what it does about heat |
| `modelled` | a modelled board under a Runtime that gives real answers |
| `bound` | the most that could have been done: a linear program |

Everything that comes out of here is modelled; nothing was measured on hardware.
"""
