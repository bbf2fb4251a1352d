#!/bin/bash
# Run a command inside a virtual machine with Debian's PREEMPT_RT kernel and real CAN and UART drivers.
#
#   tests/vm/run-vm.sh [-a] [-t SECONDS] [-i] [-d IMAGE [-w LOG]] [-p FILE] [-v] -- COMMAND [ARGUMENT...]
#
# The guest sees the host's file system read-only under a layer in RAM, two virtual CAN interfaces (vcan0, vcan1), two
# emulated Kvaser controllers on one wire (can0, can1), two 16550 UARTs wired to each other (ttyS1, ttyS2) and a
# watchdog card. The command runs there as root in this directory; its status is this script's status.
#
#   -a         an arm64 board instead: the guest's files, kernel and Python are those that tests/vm/arm_guest.py made, with this
#              checkout at its place; the UARTs are left out
#   -i         time in the guest is counted in instructions (1 ns each, one CPU): what the guest measures does not depend
#              on how busy this machine is
#   -d IMAGE   a disk of ext4 (made with mkfs.ext4) that outlives the machine, mounted at /disk
#   -w LOG     an empty file that gets every write and flush of that disk, in order (QEMU's blklogwrites)
#   -p FILE    gets the process number of the emulator, for who cuts the power
#   -v         the guest's kernel log as well
#
#   77   a program is missing here (its Debian package is named)
#   124  not finished within SECONDS (default 420)
#   125  the guest ended without leaving a status (crash, reset); the end of its kernel log is shown
#
# Environment: TIDEGATE_VM_CACHE (default ~/.cache/tidegate-vm: kernel package, unpacked), TIDEGATE_VM_KERNEL (a
# linux-image .deb to use instead of the newest linux-image-rt-amd64), TIDEGATE_VM_JOB (a folder that is made, appears in the
# guest as /run/job, and stays).
set -euo pipefail

limit=420 verbose= same= counted= disk= writes= pidfile= arm=
while getopts at:id:w:p:v option; do
    case $option in
    a) arm=1 ;;
    t) limit=$OPTARG ;;
    i) counted=1 ;;
    d) disk=$OPTARG ;;
    w) writes=$OPTARG ;;
    p) pidfile=$OPTARG ;;
    v) verbose=1 ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
cache=${TIDEGATE_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate-vm}
PATH=$PATH:/sbin:/usr/sbin
emulator=qemu-system-x86_64 board=(-M pc) root=/ near=ttyS0
while read -r tool package; do
    [ -z "$arm" ] || [ "$package" != qemu-system-x86 ] || { tool=qemu-system-aarch64 package=qemu-system-arm; }
    command -v "$tool" >/dev/null || { echo "run-vm: $tool is missing (Debian package $package)" >&2; exit 77; }
done <<'END'
qemu-system-x86_64 qemu-system-x86
busybox busybox-static
cpio cpio
modprobe kmod
dpkg-deb dpkg
apt-get apt
xz xz-utils
ip iproute2
python3 python3
END

scratch=$(mktemp -d)
machine=
cleanup() {
    [ -z "$machine" ] || kill "$machine" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT

# ---- the kernel: unpacked once; only boot/ and lib/modules, nothing is installed ----

mkdir -p "$cache"
package=${TIDEGATE_VM_KERNEL:-} kernel= busybox=$(command -v busybox)
if [ -n "$arm" ]; then
    root=$here/../../build/arm/guest-arm64
    [ -d "$root" ] || { echo "run-vm: no files for an arm64 guest: python tests/vm/arm_guest.py makes them" >&2; exit 77; }
    root=$(cd "$root" && pwd)
    emulator=qemu-system-aarch64 board=(-M virt) near=ttyAMA0 kernel=$root busybox=$root/bin/busybox
    [ -e "$root/lib/modules/$(ls "$root/lib/modules")/modules.dep.bin" ] || depmod -b "$root" "$(ls "$root/lib/modules")"
    cp -u "$root/boot/vmlinuz-$(ls "$root/lib/modules")" "$root/vmlinux" # Debian's is a plain Image on arm64
elif [ -z "$package" ]; then
    name=$(apt-cache depends linux-image-rt-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[^ ]*\)/\1/p' | head -n 1)
    if [ -n "$name" ] && ! ls "$cache/$name"_*.deb >/dev/null 2>&1; then
        echo "run-vm: fetching $name" >&2
        (cd "$cache" && apt-get -qq -o APT::Sandbox::User=root download "$name") || { echo "run-vm: cannot fetch $name" >&2; exit 77; }
    fi
    package=$(ls -t "$cache"/linux-image-*.deb 2>/dev/null | head -n 1 || true)
    [ -n "$package" ] || { echo "run-vm: no linux-image-rt-amd64 (apt-get update first?)" >&2; exit 77; }
fi
[ -n "$kernel" ] || kernel=$cache/$(basename "$package" .deb)
if [ ! -e "$kernel/vmlinux" ]; then
    part=$(mktemp -d "$cache/part.XXXXXX")
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$part" ./boot ./lib/modules
    depmod -b "$part" "$(ls "$part/lib/modules")"
    # QEMU starts a bare ELF directly (PVH), which saves the decompression inside the emulator. Where the compressed
    # payload lies in a bzImage: Documentation/arch/x86/boot.rst, setup_sects, payload_offset, payload_length.
    python3 - "$part" <<'END'
import lzma, pathlib, struct, sys

part = pathlib.Path(sys.argv[1])
image = next((part / "boot").glob("vmlinuz-*")).read_bytes()
setup_sectors = image[0x1F1] or 4
offset, length = struct.unpack_from("<II", image, 0x248)
start = (setup_sectors + 1) * 512 + offset
elf = lzma.LZMADecompressor().decompress(image[start : start + length])
if elf[:4] != b"\x7fELF":
    sys.exit("run-vm: the kernel's payload is no ELF file")
(part / "vmlinux").write_bytes(elf)
END
    rm -rf "$kernel"
    mv "$part" "$kernel"
fi
release=$(ls "$kernel/lib/modules")

# ---- the first root: a static shell, guest-init and the modules in load order ----

first=$scratch/first
mkdir -p "$first/bin" "$first/modules"
cp "$busybox" "$first/bin/busybox"
install -m 755 "$here/guest-init" "$first/init"
modules="virtio_pci virtio_console 9pnet_virtio 9p overlay can_raw vcan kvaser_pci i6300esb${disk:+ virtio_blk ext4 crc32c_generic}"
for module in $modules; do
    modprobe -d "$kernel" -S "$release" --show-depends "$module"
done | while read -r verb path _; do
    [ "$verb" = insmod ] || continue
    plain=$(basename "$path"); plain=${plain%%.ko*}.ko
    [ ! -e "$first/modules/$plain" ] || continue
    case $path in
    *.xz) xz -dc "$path" >"$first/modules/$plain" ;;
    *) cp "$path" "$first/modules/$plain" ;;
    esac
    echo "$plain" >>"$first/modules/order"
done
(cd "$first" && find . | cpio --quiet -o -H newc) >"$scratch/initrd"

# ---- the job: a script in a folder that the guest may write ----

job=${TIDEGATE_VM_JOB:-$scratch/job}
mkdir "$job"
{
    echo "cd $(printf %q "$PWD") || exit 126"
    echo "export TIDEGATE_VM=1 LANG=C.UTF-8 HOME=$(printf %q "$HOME") PATH=$(printf %q "$PATH")"
    printf '%q ' "$@"
    echo
} >"$job/run"
cp "$here/guest-start" "$job/start"
[ -z "$disk" ] || touch "$job/disk"
[ -z "$arm" ] || touch "$job/checkout"

# ---- the machine ----

# KVM only where the CPU really offers it: /dev/kvm can be opened on hosts on which a stock kernel then does not boot.
processor=Nehalem
[ -z "$arm" ] || processor=cortex-a53
accelerator=(-accel "tcg,thread=multi,tb-size=1024" -cpu $processor -smp 2)
if [ -n "$counted" ]; then
    accelerator=(-accel "tcg,thread=single,tb-size=1024" -icount "shift=0,align=off,sleep=off" -cpu $processor -smp 1)
    accelerator+=(-rtc "base=2026-01-01T00:00:00,clock=vm") # the same date in each run, which goes on as the guest's time does
    same=norandmaps                                         # and the same place of each library, stack and heap
elif [ -z "$arm" ] && [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
    accelerator=(-accel kvm -cpu host -smp 2)
fi
more=()
if [ -n "$writes" ]; then
    more+=(-blockdev "driver=file,filename=$disk,node-name=image" -blockdev "driver=file,filename=$writes,node-name=writes"
        -blockdev "driver=blklogwrites,node-name=disk,file=image,log=writes,log-sector-size=512")
elif [ -n "$disk" ]; then
    more+=(-drive "file=$disk,format=raw,if=none,id=disk,cache=writeback")
fi
[ -z "$disk" ] || more+=(-device virtio-blk-pci,drive=disk)
[ -z "$pidfile" ] || more+=(-pidfile "$pidfile")
wire=$scratch/uart
if [ -n "$arm" ]; then
    more+=(-fsdev "local,id=checkout,path=$PWD,security_model=none,readonly=on,multidevs=remap"
        -device virtio-9p-pci,fsdev=checkout,mount_tag=checkout)
else
    more+=(-chardev "socket,id=near,path=$wire,server=on,wait=off" -chardev "socket,id=far,path=$wire"
        -serial chardev:near -serial chardev:far)
fi
timeout -k 5 "$limit" "$emulator" "${accelerator[@]}" "${board[@]}" -m 2048 \
    -nodefaults -no-user-config -display none -no-reboot -action watchdog=reset \
    -kernel "$kernel/vmlinux" -initrd "$scratch/initrd" \
    -append "console=$near quiet panic=-1 mitigations=off nokaslr audit=0 apparmor=0 random.trust_cpu=on no_timer_check tsc=reliable $same" \
    -chardev "file,id=log,path=$scratch/log" -serial chardev:log \
    -device virtio-serial-pci -chardev stdio,id=out,signal=off -device virtconsole,chardev=out \
    -fsdev "local,id=host,path=$root,security_model=none,readonly=on,multidevs=remap" \
    -device virtio-9p-pci,fsdev=host,mount_tag=host \
    -fsdev "local,id=job,path=$job,security_model=none" -device virtio-9p-pci,fsdev=job,mount_tag=job \
    -object can-bus,id=wire -device kvaser_pci,canbus=wire -device kvaser_pci,canbus=wire \
    -device i6300esb "${more[@]}" </dev/null 2>"$scratch/qemu" &
machine=$!
ended=0
wait "$machine" || ended=$?
machine=

[ -z "$verbose" ] || cat "$scratch/log" "$scratch/qemu" >&2
if [ "$ended" -eq 124 ] || [ "$ended" -eq 137 ]; then
    echo "run-vm: not finished within $limit s" >&2
    tail -n 5 "$scratch/log" >&2
    exit 124
fi
if [ ! -s "$job/status" ]; then
    echo "run-vm: the guest left no status" >&2
    tail -qn 20 "$scratch/log" "$scratch/qemu" >&2
    exit 125
fi
exit "$(cat "$job/status")"
