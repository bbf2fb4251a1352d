SUMMARY = "Controller and carbon accountant for a battery cabinet"
DESCRIPTION = "Reads a battery's BMS and the meters, shaves peaks and follows the load, and accounts for energy and carbon."
SECTION = "net"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
CVE_PRODUCT = "tidegate"

inherit externalsrc systemd useradd python_setuptools_build_meta cython

# The layer stands in a checkout of what it builds.
SRC_URI = ""
EXTERNALSRC = "${@os.path.abspath(os.path.join(d.getVar('THISDIR'), '../../../..'))}"

do_install:append() {
    install -D -m 0644 ${S}/packaging/systemd/tidegate@.service ${D}${systemd_system_unitdir}/tidegate@.service
    install -D -m 0644 ${S}/packaging/udev/60-tidegate.rules ${D}${nonarch_base_libdir}/udev/rules.d/60-tidegate.rules
    install -D -m 0644 ${S}/packaging/tmpfiles/tidegate.conf ${D}${nonarch_libdir}/tmpfiles.d/tidegate.conf
    install -D -m 0644 ${S}/packaging/sysusers/tidegate.conf ${D}${nonarch_libdir}/sysusers.d/tidegate.conf
    install -D -m 0644 ${S}/packaging/debian/default ${D}${sysconfdir}/default/tidegate
    install -D -m 0644 ${S}/packaging/debian/limits.conf ${D}${sysconfdir}/security/limits.d/tidegate.conf
}

FILES:${PN} += "\
    ${nonarch_base_libdir}/udev/rules.d/60-tidegate.rules \
    ${nonarch_libdir}/sysusers.d/tidegate.conf \
    ${nonarch_libdir}/tmpfiles.d/tidegate.conf \
    ${systemd_system_unitdir}/tidegate@.service \
"
CONFFILES:${PN} = "${sysconfdir}/default/tidegate ${sysconfdir}/security/limits.d/tidegate.conf"

RDEPENDS:${PN} += "\
    python3-click \
    python3-modules \
    python3-msgpack \
    python3-msgspec \
    python3-numpy \
    python3-pydantic \
    python3-pyserial \
    python3-pyzmq \
"
# The carbon account; without these the site runs and says that it keeps none.
RRECOMMENDS:${PN} += "\
    python3-cryptography \
    python3-jinja2 \
    python3-sqlalchemy \
    tzdata \
"

# One site a unit, by its name: systemctl enable --now tidegate@NAME.
SYSTEMD_SERVICE:${PN} = "tidegate@.service"
SYSTEMD_AUTO_ENABLE:${PN} = "disable"

# The users of the other processes are made at the first boot, by sysusers.d.
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "\
    --system \
    --user-group \
    --groups dialout \
    --home-dir ${localstatedir}/lib/tidegate \
    --no-create-home \
    --shell ${base_sbindir}/nologin \
    tidegate \
"
