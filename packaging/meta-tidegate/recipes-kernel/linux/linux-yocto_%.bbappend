# Only with OVERRIDES .= ":tidegate" in the configuration: to add the layer changes nobody's kernel.
FILESEXTRAPATHS:prepend:tidegate := "${THISDIR}/files:"

SRC_URI:append:tidegate = " file://tidegate.cfg"
