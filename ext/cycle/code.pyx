"""Which memory holds the machine code of the core and its constants, for the self-test that sums it up as it runs.

It is found once, before the run. A breakpoint that a debugger or a probe plants is a changed byte as well.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport strlen, strncmp

from tidegate.ext.cycle.loop cimport Core
from tidegate.ext.cycle.selftest cimport SELFTEST_SPANS_MAX, selftest_code_begin, selftest_t

cdef extern from "<link.h>" nogil:
    ctypedef struct segment_t "ElfW(Phdr)":
        uint32_t p_type
        uint32_t p_flags
        uint64_t p_vaddr
        uint64_t p_filesz
    ctypedef struct object_t "struct dl_phdr_info":
        uint64_t dlpi_addr
        const char* dlpi_name
        const segment_t* dlpi_phdr
        uint16_t dlpi_phnum
    int dl_iterate_phdr(int (*look)(object_t*, size_t, void*) noexcept nogil, void* data)
    uint32_t PT_LOAD
    uint32_t PF_W

cdef struct search_t:
    selftest_t* test
    const char* folder
    uint32_t count  # of all spans found, also of those that had no room


cdef int look(object_t* found, size_t size, void* data) noexcept nogil:
    """Of a module in the folder, what is mapped and not to be written."""
    cdef search_t* search = <search_t*>data
    cdef const segment_t* segment
    cdef uint16_t i
    if strncmp(found.dlpi_name, search.folder, strlen(search.folder)) != 0:
        return 0
    for i in range(found.dlpi_phnum):
        segment = &found.dlpi_phdr[i]
        if segment.p_type != PT_LOAD or segment.p_flags & PF_W or segment.p_filesz == 0:
            continue
        if search.count < <uint32_t>SELFTEST_SPANS_MAX:
            search.test.code[search.count].start = <const uint8_t*>(found.dlpi_addr + segment.p_vaddr)
            search.test.code[search.count].size = segment.p_filesz
        search.count += 1
    return 0


def watch(Core core not None, str folder not None):
    """From here on every compiled module of a folder that is loaded now is summed up, a piece a cycle; before the run.

    Returns how many bytes that are. Raises LookupError if no such module is loaded, OverflowError if they are too many.
    """
    cdef selftest_t* test = &core.ptr().selftest
    cdef bytes where = folder.rstrip("/").encode() + b"/"
    cdef search_t search = search_t(test, where, 0)
    cdef uint64_t total = 0
    cdef uint32_t i
    test.code_spans = 0
    dl_iterate_phdr(look, &search)
    if search.count == 0:
        raise LookupError(f"{folder}: no compiled module from there is loaded")
    if search.count > <uint32_t>SELFTEST_SPANS_MAX:
        raise OverflowError(f"{folder}: {search.count} pieces of machine code, there is room for {SELFTEST_SPANS_MAX}")
    test.code_spans = search.count
    for i in range(search.count):
        total += test.code[i].size
    selftest_code_begin(test)
    return total


def spans(Core core not None):
    """(address, bytes) of each piece that is watched, in the order of the look."""
    cdef const selftest_t* test = &core.ptr().selftest
    return [(<size_t>test.code[i].start, test.code[i].size) for i in range(test.code_spans)]
