"""What Python takes out of the shared memory: pictures of all points, and histograms."""
import collections
from array import array

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from tidegate.ext.abi.shared cimport HISTOGRAM_BUCKETS, histogram_edge

Point = collections.namedtuple("Point", "value t_ns quality changes")


def histogram_bucket_edge(index):
    """Lower edge of a histogram bucket, ns."""
    if not 0 <= index <= HISTOGRAM_BUCKETS:
        raise IndexError(f"histogram bucket {index}: expected 0..{HISTOGRAM_BUCKETS}")
    return histogram_edge(index)


cdef class Picture:
    """All points at one cycle. `raw` is the rows as bytes: numpy.frombuffer(raw, image.POINT_FIELDS)."""

    def __init__(self):
        raise TypeError("pictures come from Shared.read_image, next_snapshot and next_meter")

    @property
    def values(self):
        """array('d'), NaN where there was never a reading."""
        cdef const point_t* rows = <const point_t*>PyBytes_AS_STRING(self.raw)
        return array("d", [rows[i].value for i in range(self.n_points)])

    @property
    def qualities(self):
        """bytes, one enum point_quality a point."""
        cdef const point_t* rows = <const point_t*>PyBytes_AS_STRING(self.raw)
        return bytes([rows[i].quality for i in range(self.n_points)])

    @property
    def times_ns(self):
        """array('Q'), CLOCK_MONOTONIC of each reading, 0 = never."""
        cdef const point_t* rows = <const point_t*>PyBytes_AS_STRING(self.raw)
        return array("Q", [rows[i].t_ns for i in range(self.n_points)])

    @property
    def changes(self):
        """array('I'), advancing readings so far."""
        cdef const point_t* rows = <const point_t*>PyBytes_AS_STRING(self.raw)
        return array("I", [rows[i].changes for i in range(self.n_points)])

    def __len__(self):
        return self.n_points

    def __getitem__(self, Py_ssize_t index):
        if not 0 <= index < <Py_ssize_t>self.n_points:
            raise IndexError(f"point {index} of {self.n_points}")
        cdef const point_t* row = <const point_t*>PyBytes_AS_STRING(self.raw) + index
        return Point(row.value, row.t_ns, row.quality, row.changes)


cdef Picture picture_of(uint64_t number, uint64_t cycle, uint64_t t_ns, const point_t* rows, uint32_t n_points):
    cdef Picture picture = Picture.__new__(Picture)
    picture.number = number
    picture.cycle = cycle
    picture.t_ns = t_ns
    picture.n_points = n_points
    picture.raw = PyBytes_FromStringAndSize(<const char*>rows, n_points * sizeof(point_t))
    return picture


cdef class Histogram:
    """Copy of one log-linear histogram, ns. Percentiles are upper edges of 3 % buckets, never above the true maximum."""

    @property
    def mean(self):
        return self.h.sum / <double>self.h.count if self.h.count else 0.0

    @property
    def count(self):
        return self.h.count

    @property
    def min(self):
        return self.h.min

    @property
    def max(self):
        return self.h.max

    @property
    def sum(self):
        return self.h.sum

    @property
    def buckets(self):
        """(lower edge in ns, count) of every bucket that is not empty."""
        return [(histogram_edge(i), self.h.buckets[i]) for i in range(HISTOGRAM_BUCKETS) if self.h.buckets[i]]

    def percentile(self, double percent):
        """Value that `percent` of the entries do not exceed, ns; 0 when there are none."""
        if not 0.0 <= percent <= 100.0:
            raise ValueError(f"percentile {percent}: expected 0..100")
        cdef double wanted = self.h.count * percent / 100.0
        cdef uint64_t below = 0
        for i in range(HISTOGRAM_BUCKETS):
            below += self.h.buckets[i]
            if self.h.buckets[i] and below >= wanted:
                return min(histogram_edge(i + 1) - 1, self.h.max) if i + 1 < HISTOGRAM_BUCKETS else self.h.max
        return self.h.max

    def summary(self):
        """count, min, mean, p50, p99, p999 and max, ns."""
        return {
            "count": self.count,
            "min": self.min,
            "mean": self.mean,
            "p50": self.percentile(50),
            "p99": self.percentile(99),
            "p999": self.percentile(99.9),
            "max": self.max,
        }

    def since(self, Histogram earlier):
        """What came between `earlier` and this copy. Minimum and maximum are then bucket edges."""
        cdef Histogram rest = Histogram()
        first = last = -1
        for i in range(HISTOGRAM_BUCKETS):
            if self.h.buckets[i] < earlier.h.buckets[i]:
                raise ValueError("the earlier copy is of another run")
            rest.h.buckets[i] = self.h.buckets[i] - earlier.h.buckets[i]
            if rest.h.buckets[i]:
                first = i if first < 0 else first
                last = i
        rest.h.count = self.h.count - earlier.h.count
        rest.h.sum = self.h.sum - earlier.h.sum
        rest.h.min = histogram_edge(first) if first >= 0 else 0
        rest.h.max = min(histogram_edge(last + 1) - 1, self.h.max) if last >= 0 else 0
        return rest


cdef Histogram histogram_of(const histogram_t* source):
    cdef Histogram copy = Histogram()
    copy.h = source[0]
    return copy
