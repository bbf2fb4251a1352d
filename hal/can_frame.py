"""The kernel's CAN frames as bytes: struct can_frame and struct canfd_frame of linux/can.h, and the flags of an id."""

import struct

CLASSIC = struct.Struct("=IB3x8s")  # struct can_frame
FD = struct.Struct("=IBB2x64s")  # struct canfd_frame
CAN_EFF_FLAG, CAN_RTR_FLAG, CAN_ERR_FLAG = 0x80000000, 0x40000000, 0x20000000
CAN_EFF_MASK = 0x1FFFFFFF
CANFD_BRS, CANFD_ESI = 0x01, 0x02
