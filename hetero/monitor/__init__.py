"""What a running program is doing: snapshots of its Runtimes, and how another process of the same user gets them.

| module | subject |
|---|---|
| `status` | what a snapshot says |
| `looking` | makes one of a Runtime, at any time and without holding anybody up |
| `forms` | snapshots as JSON and back |
| `places` | the folders and names of the sockets |
| `publishing` | the thread that answers, in the program |
| `asking` | finds the programs and asks them, for `hetero top` |
"""
