#!/bin/bash
# root.sh DIR: Debian 12's Python 3.11 and NumPy 1.24 for armel (ARMv6 and older, floats in software)
# unpacked into DIR, once; no package's script is run. The archive is the one this machine's apt uses.
set -euo pipefail
[ ! -x "$1/usr/bin/python3" ] || exit 0
mkdir -p "$(dirname "$1")"
exec 9>"$1.lock" && flock 9 # several tests may ask for it at once
[ ! -x "$1/usr/bin/python3" ] || exit 0
. "$(dirname "$0")/../archive.sh"
mkdir -p "$1.part" "$1.apt"
root=$(cd "$1.part" && pwd) apt=$(cd "$1.apt" && pwd)

archive "$apt" deb bookworm \
    'APT::Architecture "armel"; APT::Architectures "armel"; APT::Install-Recommends "false";' \
    'Dir::Etc::preferencesparts "/dev/null"; Debug::NoLocking "1";'
apt-get -qq -y --download-only install python3-numpy
for package in "$apt"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --no-same-owner \
        --exclude='./usr/share/doc*' --exclude='./usr/share/man*' --exclude='./usr/share/locale*' \
        --exclude='./usr/lib/python3/dist-packages/numpy/*/tests*'
done
# What the packages' scripts would have done.
for library in "$root"/usr/lib/*/{blas/libblas,lapack/liblapack}.so.3; do
    folder=$(dirname "$library")
    ln -sf "$(basename "$folder")/$(basename "$library")" "$(dirname "$folder")/"
done
[ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
mv "$root" "$1"
rm -rf "$apt"
