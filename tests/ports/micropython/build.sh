#!/bin/bash
# build.sh DIR unix | build.sh DIR qemu HEAP_BYTES [MANIFEST]: MicroPython 1.25 with 32-bit floats
# from Debian's source package, once; prints what was built: an interpreter for this machine, or a
# firmware for a bare Cortex-M3 with a heap of exactly so many bytes and the manifest's modules
# frozen in. The archive is the one that this machine's apt uses.
set -euo pipefail
mkdir -p "$1"
dir=$(cd "$1" && pwd) target=$2 heap=${3:-} manifest=${4:-}
exec 9>"$dir/lock"
flock 9 # one build at a time

. "$(dirname "$0")/../archive.sh"

fetch() {
    local apt=$dir/apt
    archive "$apt" deb-src trixie
    (cd "$apt" && apt-get -qq source --download-only micropython)
    rm -rf "$dir/src.part"
    mkdir "$dir/src.part"
    tar -xf "$apt"/micropython_*.orig.tar.* -C "$dir/src.part" --strip-components=1
    mkdir -p "$dir/src.part/lib/micropython-lib"
    touch "$dir/src.part/lib/micropython-lib/README.md"
    mv "$dir/src.part" "$dir/src"
}

make_quietly() { make -s -j"$(nproc)" "$@" >"$dir/make.log" 2>&1 || { tail -n 20 "$dir/make.log" >&2; exit 1; }; }

[ -d "$dir/src" ] || fetch >&2
[ -x "$dir/src/mpy-cross/build/mpy-cross" ] || make_quietly -C "$dir/src/mpy-cross"

if [ "$target" = unix ]; then
    made=$dir/unix/micropython
    # -I: without gcc-multilib the 32-bit compiler does not find the kernel's headers.
    [ -x "$made" ] || make_quietly -C "$dir/src/ports/unix" BUILD="$dir/unix" \
        MICROPY_FORCE_32BIT=1 MICROPY_PY_SSL=0 MICROPY_PY_FFI=0 MICROPY_PY_BTREE=0 \
        MICROPY_PY_THREAD=0 MICROPY_PY_SOCKET=0 MICROPY_PY_TERMIOS=0 FROZEN_MANIFEST= \
        MICROPY_VFS_FAT=0 MICROPY_VFS_LFS1=0 MICROPY_VFS_LFS2=0 \
        CFLAGS_EXTRA="-DMICROPY_FLOAT_IMPL=MICROPY_FLOAT_IMPL_FLOAT -I/usr/include/$(gcc -print-multiarch)"
else
    made=$dir/firmware-$heap.elf
    if [ -n "$manifest" ]; then
        sum=$(cat "$manifest" "$(dirname "$manifest")"/*/*.py | cksum | cut -d ' ' -f 1)
        made=$dir/firmware-$heap-$sum.elf
    else
        manifest=$dir/empty.py
        : >"$manifest"
    fi
    if [ ! -f "$made" ]; then
        touch "$dir/src/ports/qemu/main.c" # the one file that knows the heap
        make_quietly -C "$dir/src/ports/qemu" BUILD="$dir/qemu" BOARD=MPS2_AN385 \
            MICROPY_HEAP_SIZE="$heap" FROZEN_MANIFEST="$manifest"
        cp "$dir/qemu/firmware.elf" "$made"
    fi
fi
echo "$made"
