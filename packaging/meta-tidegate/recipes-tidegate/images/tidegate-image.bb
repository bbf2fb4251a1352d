SUMMARY = "A board that runs battery cabinets"
DESCRIPTION = "Tidegate with a clock that is kept, CAN tools and a login by key; sites are enabled by name."
LICENSE = "Apache-2.0"

inherit core-image

IMAGE_FEATURES += "ssh-server-openssh"
IMAGE_INSTALL += "\
    can-utils \
    chrony \
    iproute2 \
    rt-tests \
    tidegate \
"
