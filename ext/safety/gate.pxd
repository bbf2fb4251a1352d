# ext/safety/gate.pxd: contents page of gate.pyx, the way into the gate; its structs: safety.pxd.
from libc.stdint cimport int32_t, uint32_t

from tidegate.ext.abi.image cimport point_t
from tidegate.ext.abi.program cimport program_t
from tidegate.ext.safety.safety cimport fault_set_t, gate_input_t


# The one place where doubles become the gate's integers. A reading counts as valid only when it is good or held,
# finite and in its range; what the unit's map does not have is neither valid nor required. The request, dt_us, ack,
# arm and faults are left to the caller (set to "no request, nothing ordered, nothing wrong").
cdef void gate_input_from_image(const program_t* program, int unit, const point_t* image, gate_input_t* out) noexcept nogil

# A power as the gate's integer, towards zero; clears VALID_REQUEST for what is no number or beyond 2 GW.
cdef int32_t gate_request(double request_w, uint32_t* valid) noexcept nogil

# Rows given by Python as the bits of one whole number. Raises OverflowError for a row that the table cannot have.
cdef fault_set_t fault_set(bits) except *
