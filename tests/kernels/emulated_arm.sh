#!/bin/bash
# The CPU kernels for ARM, compiled here and run by an emulator: every instruction set against the
# portable path (agreeing.py). As root, on Debian or Ubuntu on x86; downloads 40 MB into FOLDER.
#
#     tests/kernels/emulated_arm.sh FOLDER
set -euo pipefail
folder=$(realpath -m "${1:?a folder to work in}")
tree=$(realpath "$(dirname "$0")/../..")
mkdir -p "$folder/root" "$folder/tree/tests/kernels"
apt-get install -y --no-install-recommends g++-aarch64-linux-gnu qemu-user >/dev/null
cd "$folder"
if [ ! -e root/usr/bin/python3 ]; then
    dpkg --add-architecture arm64 && apt-get update >/dev/null
    python=$(apt-cache depends python3-minimal:arm64 | grep -o 'python3\.[0-9]*-minimal' | head -1)
    wanted=("$python" "lib$python" "lib${python%-minimal}-stdlib" python3-minimal python3-numpy libblas3)
    wanted+=(liblapack3 libgfortran5 libgcc-s1 libstdc++6 libc6 zlib1g libexpat1 libffi8)
    apt-get download "${wanted[@]/%/:arm64}" >/dev/null
    dpkg --remove-architecture arm64 && apt-get update >/dev/null
    for package in *.deb; do dpkg -x "$package" root; done
fi
cp -r "$tree/kernels/atlasd_kernels" tree/
rm -f tree/atlasd_kernels/cpu/*.so
cp "$tree"/tests/__init__.py tree/tests/
cp "$tree"/tests/kernels/{__init__,agreeing,raw_weights}.py tree/tests/kernels/
libraries=/usr/lib/aarch64-linux-gnu
emulated() {
    qemu-aarch64 -L "$folder/root" -E "PYTHONPATH=$folder/tree" -E CXX=/usr/bin/aarch64-linux-gnu-g++ \
        -E "LD_LIBRARY_PATH=$libraries/blas:$libraries/lapack" "$folder/root/usr/bin/python3" "$@"
}
cd tree
emulated -m atlasd_kernels.cpu.build
emulated -m tests.kernels.agreeing
