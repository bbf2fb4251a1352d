# ext/bus/io_thread.pxd: what the I/O threads of the buses need of the kernel (io_thread.h).
from libc.stdint cimport uint32_t, uint64_t

from tidegate.ext.abi.port_mail cimport port_mail_t

cdef extern from "bus/io_thread.h" nogil:
    ctypedef unsigned long pthread_t
    int CLOCK_MONOTONIC
    uint64_t clock_ns(int clock) noexcept
    void sleep_until(uint64_t t_ns) noexcept
    void bell_wait(uint32_t* bell, uint32_t count, uint64_t t_ns) noexcept
    uint32_t bell_count(uint32_t* bell) noexcept
    void bell_sleeping(uint32_t* flag, uint32_t on) noexcept
    void bell_hang(port_mail_t* mail) noexcept
    void bell_take_down(port_mail_t* mail) noexcept
    void bell_ring(port_mail_t* mail) noexcept
    int readable_within(int fd, uint64_t ns) noexcept
    void flag_set(uint32_t* flag, uint32_t value) noexcept
    uint32_t flag_get(const uint32_t* flag) noexcept
    int thread_create(pthread_t* thread, void* (*run)(void*) noexcept nogil, void* arg, int priority, int cpu,
                      uint32_t* fifo) noexcept
    void thread_settle(const char* name) noexcept
    uint64_t thread_cpu_ns(pthread_t thread) noexcept
    int no_wait(int fd) noexcept
    int pthread_join(pthread_t thread, void** result) noexcept
    ssize_t read(int fd, void* bytes, size_t size) noexcept
    ssize_t write(int fd, const void* bytes, size_t size) noexcept
    void errno_set(int value) noexcept
