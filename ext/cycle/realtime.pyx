"""What a process asks of the kernel before its loop starts: locked memory, a CPU of its own, FIFO priority.

Every call answers with an errno (0 = granted) and never raises: what the machine refuses is told to the user in
plain words by the caller, and the loop runs all the same.
"""

from libc.errno cimport errno
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef extern from "<sys/mman.h>" nogil:
    int mlockall(int flags)
    int mlock(const void* start, size_t size)
    int MCL_CURRENT
    int MCL_FUTURE
    int MCL_ONFAULT

cdef extern from "<malloc.h>" nogil:
    int mallopt(int parameter, int value)
    int malloc_trim(size_t pad)
    int M_TRIM_THRESHOLD
    int M_MMAP_MAX
    int M_ARENA_MAX

cdef extern from "<sched.h>" nogil:
    struct sched_param:
        int sched_priority
    int sched_setscheduler(int pid, int policy, const sched_param* param)
    int sched_getscheduler(int pid)
    int SCHED_FIFO
    int SCHED_OTHER


def keep_heap() -> None:
    """Give back what start-up left over, then never again: unmapping interrupts every CPU of the process."""
    malloc_trim(0)
    mallopt(M_TRIM_THRESHOLD, -1)
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_ARENA_MAX, 1)


def prefault_heap(int size=1 << 20) -> None:
    """Touch `size` bytes of heap once, so that no later allocation of that size meets a page fault."""
    cdef void* block = malloc(<size_t>size)
    if block != NULL:
        memset(block, 0, <size_t>size)
        free(block)


def lock_memory() -> int:
    """Lock every page as soon as it is touched, now and in future. Returns 0 or errno (ENOMEM, EPERM).

    The interpreter's pages that nobody touches stay out of memory; what the loop runs on is fetched whole by
    `lock_range`.
    """
    return 0 if mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0 else errno


def lock_range(size_t start, size_t size) -> int:
    """Fetch and lock the pages from address `start`. Returns 0 or errno."""
    return 0 if mlock(<const void*>start, size) == 0 else errno


def set_fifo(int priority) -> int:
    """Give the calling thread SCHED_FIFO at `priority`. Returns 0 or errno (EPERM: no rtprio limit)."""
    cdef sched_param param
    param.sched_priority = priority
    return 0 if sched_setscheduler(0, SCHED_FIFO, &param) == 0 else errno


def is_fifo() -> bool:
    """Whether the calling thread runs at SCHED_FIFO now."""
    return sched_getscheduler(0) == SCHED_FIFO
