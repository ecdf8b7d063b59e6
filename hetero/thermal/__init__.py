"""Heat: what the sensors say, and how much work each device may be given so that none gets too hot.

| module | subject |
|---|---|
| `sysfs` | one small file of the kernel's, or why it cannot be read |
| `sensors`, `choosing` | the sensors of a machine; which of them speaks for a device |
| `readings`, `thermometers` | what is believed of a sensor; all of them, read together |
| `npu`, `cpu`, `power` | the NPU's clock and load; work that begins on the CPU; mains or battery |
| `limits`, `profiles` | thresholds and states; what kinds of work want |
| `heating`, `laws` | how much a device heats itself; from temperatures to a duty |
| `control`, `drift` | one device under control; heat guessed from how long calls take |
| `admission`, `steering` | a duty made into admissions; elsewhere or slower |
| `ladder` | the NPU's clock, for root |
| `governor`, `samples`, `sampling` | all of it together; what it saw; a thread that has it look once a second |
| `settings`, `watching` | what a user asks for; the governor of a Runtime |
| `recording` | what was seen, and what would have been done |
"""
