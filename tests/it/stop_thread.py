"""Stops one thread of a process and lets it go on.

    stop_thread.py PID NAME

It says `stopped` when the thread of that name stands still, holds it until its standard input ends, and then lets it
go on. If this process dies, the kernel lets the thread go on. All other threads keep running.
"""

import ctypes
import os
import sys

# linux/ptrace.h and linux/wait.h
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_DETACH = 17
WAIT_FOR_A_THREAD = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, thread: int) -> None:
    if libc.ptrace(request, thread, None, None) == -1:
        error = ctypes.get_errno()
        sys.exit(f"ptrace({request:#x}, {thread}): {os.strerror(error)}")


def thread_of(pid: int, name: str) -> int:
    threads = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as comm:
            if comm.read().strip() == name:
                threads.append(int(thread))
    if len(threads) != 1:
        sys.exit(f"{len(threads)} threads of process {pid} are named {name}")
    return threads[0]


def main() -> None:
    thread = thread_of(int(sys.argv[1]), sys.argv[2])
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WAIT_FOR_A_THREAD)
    print("stopped", flush=True)
    sys.stdin.read()
    ptrace(PTRACE_DETACH, thread)


main()
