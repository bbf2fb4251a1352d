#!/bin/sh
# oelint-adv over packaging/meta-tidegate, as it stands on the path or in build/oelint; 77 without it.
# Left out: rules that ask for a published home page, which there is none of (one of them would also call it), and hints.
set -eu
root=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
lint=$(command -v oelint-adv || echo "$root/build/oelint/bin/oelint-adv")
[ -x "$lint" ] || { echo "layer: oelint-adv is missing (make layer installs it in build/oelint)" >&2; exit 77; }
cd "${1:-$root/packaging/meta-tidegate}"
exec "$lint" --quiet --release=scarthgap \
    --suppress oelint.vars.homepageping --suppress oelint.var.mandatoryvar.HOMEPAGE \
    --suppress oelint.var.suggestedvar.BUGTRACKER --suppress oelint.var.suggestedvar.CVE_PRODUCT \
    --suppress oelint.var.suggestedvar.SECTION --suppress oelint.var.bbclassextend \
    recipes-*/*/*.bb recipes-*/*/*.bbappend conf/layer.conf
