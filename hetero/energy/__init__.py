"""What a run costs in joules: the machine's power meters, and measuring a program on one device with them.

| module | subject |
|---|---|
| `meters` | the meters that the kernel shows, and what each of them counts |
| `choice` | which of them counts a device |
| `measuring` | joules per item of a session: at work, less idle |
| `aside` | the same in the pauses of an application |
"""
