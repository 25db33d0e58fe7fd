#!/bin/sh
# Installs what is missing to build and run quarkctl from a clone, and makes build/venv.
#   ./setup.sh run    what `make demo` needs
#   ./setup.sh vm     what `make test-vm` needs besides that
#   ./setup.sh test   what `make test` needs besides, with build/venv-labgrid
# Debian and Ubuntu: installs packages, as root or through sudo. Elsewhere: says what is missing and how to get it.
set -eu
cd "$(dirname "$0")"
purpose=${1:-run}

PATH=$PATH:/usr/sbin:/sbin # not in everybody's path, and file system tools are there
say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- what is missing: program, Debian package, Fedora package, Homebrew formula
packages= fedora= brew= missing=
need() {
	missing="$missing $1"
	packages="$packages $2"
	fedora="$fedora $3"
	brew="$brew $4"
}
have cmake || need cmake cmake cmake cmake
have ninja || need ninja ninja-build ninja-build ninja
have arm-none-eabi-gcc || need arm-none-eabi-gcc gcc-arm-none-eabi arm-none-eabi-gcc-cs gcc-arm-embedded
case $(arm-none-eabi-gcc -print-file-name=nano.specs 2>/dev/null || true) in
*/*) ;;
*) need newlib libnewlib-arm-none-eabi arm-none-eabi-newlib "" ;;
esac
have qemu-system-arm || need qemu-system-arm qemu-system-arm qemu-system-arm qemu
have_library() { ldconfig -p 2>/dev/null | grep -q "$1" || ls /usr/lib/*/"$1"* >/dev/null 2>&1; }
have_library libusb-1.0.so.0 || need libusb libusb-1.0-0 libusb1 libusb
# What the agent of the virtual AR1 is compiled with, what makes its file systems, and what boots it.
have aarch64-linux-gnu-gcc || need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu gcc-aarch64-linux-gnu ""
[ -e /usr/aarch64-linux-gnu/include/stdio.h ] || [ "$(uname -m)" = aarch64 ] ||
	need libc-arm64 libc6-dev-arm64-cross sysroot-aarch64-fc41-glibc ""
have mke2fs || need mke2fs e2fsprogs e2fsprogs e2fsprogs
have fsck.erofs || need erofs-utils erofs-utils erofs-utils ""
have qemu-system-aarch64 || need qemu-system-aarch64 qemu-system-arm qemu-system-aarch64 qemu
# Applies the overlays of dtbo to the virtual AR1's device tree.
have fdtoverlay || need fdtoverlay device-tree-compiler dtc dtc
if [ "$purpose" = test ]; then
	# Strangers that must get on with the virtual AR1, and the emulated USB on which they see it.
	have fastboot || need fastboot fastboot android-tools android-platform-tools
	have qdl || need qdl qdl qdl ""
	have simg2img || need simg2img android-sdk-libsparse-utils android-tools android-platform-tools
	have_library libumockdev-preload.so.0 || need umockdev umockdev umockdev ""
	have gcc && printf '#include <stdio.h>\nint main(void){return 0;}' | gcc -xc -o /dev/null - 2>/dev/null ||
		need gcc "gcc libc6-dev" gcc gcc
	# serial ports with modem lines that real pyserial drives, without hardware
	have umockdev-run || need umockdev umockdev umockdev ""
	# a PKCS#11 token without hardware: keys in it must give the signatures that key files give
	have softhsm2-util || need softhsm2-util softhsm2 softhsm softhsm
	# history of rigs on PostgreSQL, started in a folder of the test: no server is left running
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || have initdb || need postgresql postgresql postgresql-server postgresql
	# the page of a rig, as a person sees it
	have chromium || need chromium chromium chromium chromium
	# what openssl verifies, it verifies with code that is not ours
	have openssl || need openssl openssl openssl openssl
	# what unzip lists and tests, a release bundle is a ZIP file for everybody
	have unzip || need unzip unzip unzip unzip
	# the tool of libzip, by which qdl reads what it flashes from a ZIP
	have ziptool || need ziptool ziptool libzip-tools libzip
	# strangers that read what we make for the application processor, or must make the same bytes
	have img2simg || need img2simg android-sdk-libsparse-utils android-tools android-platform-tools
	have unpack_bootimg || need unpack_bootimg mkbootimg android-tools ""
	have veritysetup || need veritysetup cryptsetup-bin veritysetup ""
	have fdisk || need fdisk fdisk util-linux util-linux
	have dtc || need dtc device-tree-compiler dtc dtc
	have cpio || need cpio cpio cpio cpio
	# another clock, for builds that must not look at it
	have faketime || need faketime faketime libfaketime libfaketime
	# opens the HTML page of `telemetry plot`, and looks at it
	have chromium || need chromium chromium chromium chromium
	# draws the diagnostic report, light, dark and for paper
	have chromium || have google-chrome || need chromium chromium chromium chromium
fi

if [ "$purpose" = vm ]; then
	# runs this computer's own programs under another kernel, behind an emulated USB controller
	have qemu-system-x86_64 || need qemu-system-x86_64 qemu-system-x86 qemu-system-x86-core qemu
	have gcc || need gcc "gcc libc6-dev" gcc gcc
fi

# --- Python 3.11 or newer
python=
for candidate in python3 python3.13 python3.12 python3.11; do
	if have "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
		python=$candidate
		break
	fi
done
if [ -z "$python" ]; then
	need "python 3.11" "python3 python3-venv" python3 python@3.12
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
	need python-venv python3-venv python3 python@3.12
fi

if [ -n "$missing" ]; then
	if have apt-get; then
		sudo=
		[ "$(id -u)" = 0 ] || sudo=sudo
		if [ -n "$sudo" ] && ! have sudo; then
			say "missing:$missing"
			say "run as root: apt-get install$packages"
			exit 3
		fi
		say "installing$packages"
		$sudo apt-get update -qq
		# shellcheck disable=SC2086 # words are packages
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
		exec "$0" "$purpose" # look again: the new Python may be another one
	fi
	say "missing:$missing"
	if have dnf; then
		say "get them: sudo dnf install$fedora"
	elif have brew; then
		say "get them: brew install$brew"
	else
		say "get them with your package manager; their names in Debian are:$packages"
	fi
	[ "$(uname -s)" = Linux ] || say "virtual glasses and their tests need Linux; building and flashing do not"
	exit 3
fi

# --- virtual environments
# environment FOLDER REQUIREMENT: made anew or brought up to date when pyproject.toml changed
environment() {
	stamp=$1/.$purpose
	# One that was copied or moved with its clone still leads into the clone that it was made in.
	made_in=$(sed -n 's/^command = .* -m venv //p' "$1/pyvenv.cfg" 2>/dev/null || true)
	case $made_in in
	"" | *"$(pwd -P)/$1") ;;
	*)
		say "$1 was made in another place ($made_in): making it anew"
		rm -rf "$1"
		;;
	esac
	if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
		[ -x "$1/bin/python" ] || { mkdir -p build && "$python" -m venv "$1"; }
		say "installing Python packages into $1"
		"$1/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$2"
		touch "$stamp"
	fi
}
if [ "$purpose" = test ]; then
	environment build/venv ".[dev]"
	# labgrid brings a fork that is installed over pyserial: it must not reach what the other tests import.
	environment build/venv-labgrid ".[labgrid]"
elif [ "$purpose" != vm ]; then
	environment build/venv .
fi
