#!/usr/bin/env bash
# Builds pycaffe (CPU only) and installs it into a virtual environment, for `dreamer.py --engine caffe`.
#
#     scripts/build_caffe.sh [VENV]         VENV: default .venv in the project's folder
#
# The source is brocolli-caffe 9.0.2 from PyPI, a fork of Caffe 1.0. It needs Debian's or Ubuntu's packages, which
# apt-get installs where they are missing, and about five core minutes. The finished build is kept in
# $DEEPDREAM_CAFFE_CACHE (default: ~/.cache/deepdream-caffe); the next environment takes it from there in seconds.
# Of the project's folder nothing is touched but the environment.

set -euo pipefail

source_package=brocolli-caffe==9.0.2
source_sha256=c6410cc60bdd6db685d441b66be7df05410f8850ac88d6b75d48ef9b2315c08a
recipe=1 # raise it when what build makes changes: older builds in the cache are then left alone

debian_packages=(g++ cmake make protobuf-compiler libprotobuf-dev libboost-system-dev libboost-thread-dev
    libboost-filesystem-dev libboost-python-dev libboost-regex-dev libgflags-dev libgoogle-glog-dev libhdf5-dev
    libopenblas-dev)
python_packages=(numpy==2.4.6 protobuf==7.36.2 scikit-image==0.26.0 six==1.17.0)

say() { printf 'build_caffe: %s\n' "$*"; }

fail() {
    : >"$log" # the reason is known, so the log has nothing to add
    say "$*" >&2
    exit 1
}

logged() { nice -n 10 "$@" >>"$log" 2>&1; }

clean_up() {
    local status=$?
    rm -rf -- "$work" "$unfinished"
    if [[ $status -ne 0 && -s $log ]]; then
        tail -n 20 -- "$log" >&2
        say "failed; the whole log is $log" >&2
    else
        rm -f -- "$log"
    fi
}

install_debian_packages() {
    local package command missing=() as_root=()
    for package in "${debian_packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    [[ $EUID -eq 0 ]] || as_root=(sudo)
    for command in apt-get "${as_root[@]}"; do
        command -v "$command" >/dev/null || fail "please install these Debian packages first: ${missing[*]}"
    done
    say "apt-get installs ${missing[*]}"
    logged "${as_root[@]}" apt-get update
    logged "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}"
}

install_python_packages() {
    local missing
    mapfile -t missing < <("$python" - "${python_packages[@]}" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

for pin in sys.argv[1:]:
    try:
        version(pin.partition("==")[0])
    except PackageNotFoundError:
        print(pin)
PYTHON
    )
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "pip installs ${missing[*]}"
    # Whatever the environment has stays at its version: pip may add packages, not change any.
    "$python" -m pip list --format=freeze >"$work/installed.txt" 2>>"$log"
    logged "$python" -m pip install --constraint "$work/installed.txt" "${missing[@]}"
}

fetch_source() {
    # pip knows the user's index and proxy, and compares the sum before it opens the archive.
    printf '%s --hash=sha256:%s\n' "$source_package" "$source_sha256" >"$work/source.txt"
    logged "$python" -m pip download --no-deps --no-binary "${source_package%%=*}" -r "$work/source.txt" -d "$work"
    mkdir "$work/source"
    tar -xzf "$work"/brocolli-caffe-*.tar.gz -C "$work/source" --strip-components 1 --exclude .git
}

# Makes the fork build with today's compiler and run with today's packages.
mend_source() {
    # Another protoc's output, which the compiler would prefer to what this machine's protoc makes.
    rm -f include/caffe/proto/caffe.pb.h src/caffe/proto/caffe.pb.cc python/caffe/proto/caffe_pb2.py
    # A header of the tests; it wants gtest.
    sed -i '/test_caffe_main\.hpp/d' src/caffe/net.cpp
    # Debian names the library after its Python.
    sed -i "s/-lboost_python\b/-l$boost_python/" python/CMakeLists.txt
    # Names that numpy and scikit-image have dropped, and an import that the fork lost.
    sed -i -e 's/as_grey=/as_gray=/' -e 's/\.tostring()/.tobytes()/' -e 's/np\.fromstring(/np.frombuffer(/' \
        -e 's/^import skimage\.io$/&\nfrom skimage.transform import resize/' python/caffe/io.py
}

# Leaves the package in the folder $1/caffe.
build() (
    say "fetching $source_package"
    fetch_source
    cd "$work/source"
    mend_source

    # Folders are handed over in variables rather than flags, so that a blank in a path does no harm.
    export CPLUS_INCLUDE_PATH="$python_include:$numpy_include:/usr/include/hdf5/serial"
    LIBRARY_PATH="/usr/lib/$(g++ -print-multiarch)/hdf5/serial"
    export LIBRARY_PATH
    # Debian's libraries want Debian's protoc and cmake, whatever else the user's PATH offers.
    export PATH="/usr/bin:/bin:$PATH"
    say "compiling on $(nproc) cores, about five core minutes; the log is $log"
    # setup.py would insist on conda. CMake is content once its ANACONDA_HOME leads nowhere.
    # The flags silence thousands of warnings, under which an error would be hard to find.
    logged cmake -S . -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_SKIP_RPATH=ON -DANACONDA_HOME=/nonexistent \
        -DCMAKE_CXX_FLAGS='-w -DBOOST_ALLOW_DEPRECATED_HEADERS -DBOOST_BIND_GLOBAL_PLACEHOLDERS'
    logged cmake --build build --target pycaffe -j "$(nproc)"

    mkdir "$1/caffe"
    cp -L LICENSE python/caffe/*.py python/caffe/_caffe.so "$1/caffe"
    cp -R python/caffe/proto python/caffe/imagenet "$1/caffe"
)

# Imports caffe, the one in folder $1 if there is one, and works it both ways. Prints the folder of the package.
prove() (
    cd /
    env -u LD_LIBRARY_PATH PYTHONPATH="$1" GLOG_minloglevel=2 "$python" - "$work/net.prototxt" <<'PYTHON'
import os
import sys

import caffe

with open(sys.argv[1], "w") as prototxt:
    prototxt.write("""
        force_backward: true
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 5 dim: 5 } } }
        layer { name: "sum" type: "Convolution" bottom: "data" top: "sum" convolution_param {
            num_output: 2 kernel_size: 3 weight_filler { type: "constant" value: 1 } } }
    """)
net = caffe.Net(sys.argv[1], caffe.TEST)
net.blobs["data"].data[...] = 2
assert (net.forward()["sum"] == 2 * 3 * 3 * 3).all()
net.blobs["sum"].diff[...] = 1
assert net.backward()["data"][0, 0, 2, 2] == 2 * 3 * 3
print(os.path.dirname(caffe.__file__))
PYTHON
)

if [[ $# -gt 1 || ${1-} == -* ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    exit 2
fi
venv=${1:-$(cd "$(dirname "$0")/.." && pwd)/.venv}
cache=${DEEPDREAM_CAFFE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/deepdream-caffe}

work=$(mktemp -d)
log=$(mktemp "${TMPDIR:-/tmp}/build_caffe.XXXXXX.log")
unfinished=$work # a folder beside its final place, to which it moves when it is whole
trap clean_up EXIT

[[ -x $venv/bin/python ]] || fail "there is no virtual environment in $venv: make one with python3 -m venv"
python=$(cd "$venv/bin" && pwd)/python

install_debian_packages
python_version=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
boost_python=boost_python${python_version/./}
if [[ $(g++ -print-file-name="lib$boost_python.so") != /* ]]; then
    fail "$venv has Python $python_version, and this system no Boost.Python for it (Debian 12 has 3.11 only)"
fi
python_include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[[ -f $python_include/Python.h ]] || fail "Python's headers are missing: there is no $python_include/Python.h"
install_python_packages
numpy_include=$("$python" -c 'import numpy; print(numpy.get_include())')

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
# numpy's binary interface changes with its major version, and so may every library with the system's.
numpy_major=$("$python" -c 'import numpy; print(numpy.__version__.split(".")[0])')
# shellcheck source=/dev/null
system=$(. /etc/os-release && printf '%s%s-%s' "$ID" "${VERSION_ID-}" "$(uname -m)")
kept=$cache/$system-python$python_version-numpy$numpy_major-${source_sha256:0:12}-recipe$recipe
if [[ -d $kept ]]; then
    say "taking the finished build $kept"
else
    unfinished=$(mktemp -d "$cache/.unfinished.XXXXXX")
    build "$unfinished"
    prove "$unfinished" >/dev/null || fail "it compiled, but does not work"
    # Where another run has been faster, its build is as good.
    mv -T "$unfinished" "$kept" 2>/dev/null || rm -rf -- "$unfinished"
fi

site_packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
unfinished=$(mktemp -d "$site_packages/.caffe.XXXXXX")
cp -R "$kept/caffe" "$unfinished"
rm -rf -- "$site_packages/caffe"
mv "$unfinished/caffe" "$site_packages/caffe"
place=$(prove "") || fail "it does not work in $venv; without $kept the next run builds it afresh"
say "caffe installed in $place"
