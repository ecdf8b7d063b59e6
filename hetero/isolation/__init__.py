"""A backend in a process of its own: what crashes there is a lost device here, and no more.

`Runtime(isolate=True)`, or `isolate=["rknn"]` for some; `isolated` wraps one backend by hand.

    backend.py   the parent's side: a Backend and its executables that forward every call
    process.py   the child as the parent sees it: started, asked, ended; why it died
    worker.py    the child's side
    channel.py   one request after the other over a socket, tensors in shared memory
    memory.py    that memory
    failures.py  errors and devices in a form that needs nobody's module to be read
"""

from hetero.isolation.backend import isolated

__all__ = ["isolated"]
