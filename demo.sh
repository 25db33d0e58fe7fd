#!/bin/sh
# The first five minutes with quarkctl, on virtual glasses. Every line that starts with $ can be typed by hand.
set -eu
cd "$(dirname "$0")"
quarkctl=${1:-quarkctl}
name=demo
device=sim:$name
recording=build/demo.qrec

bold= plain=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() {
	printf '$ quarkctl %s\n' "$*"
	"$quarkctl" "$@"
}
stop() { "$quarkctl" sim stop $name >/dev/null 2>&1 || true; }
trap stop EXIT
trap 'exit 130' INT TERM
stop
rm -f $recording

step "1. Build the microcontroller's firmware, twice: bootloader, kernel, application, signed image."
run build rtos --board s1-virtual --version 1.0.0
run build rtos --board s1-virtual --version 1.1.0

step "2. Start virtual glasses: QEMU runs firmware 1.0.0; two cells, a load and five thermal nodes are simulated."
run sim start $name --image build/s1-virtual/rtos-1.0.0.bin --load camera --ar1 off
run devices

step "3. Flash 1.1.0 over the serial port while 1.0.0 runs: checked, uploaded, tried, confirmed."
run flash build/s1-virtual/rtos-1.1.0.bin --device $device

step "4. Record the telemetry, and pull the left battery while the camera runs."
printf '$ quarkctl telemetry record %s --device %s --seconds 6 &\n' $recording $device
"$quarkctl" telemetry record $recording --device $device --seconds 6 2>build/demo.log &
recorder=$!
until [ -s $recording ]; do
	kill -0 $recorder 2>/dev/null || { cat build/demo.log >&2 && exit 1; }
	sleep 0.1
done
sleep 1.5
run sim battery eject left --name $name
sleep 1.5
run sim battery insert left --name $name
wait $recorder

step "5. Judge what was recorded: was the swap survived, did the bus hold?"
run diag battery --recording $recording

step "6. Build the other chip's images: boot, file system with hash tree and codes, verified boot, partition tables."
run build ar1 --board s1-virtual

step "7. Flash them into the empty AR1 by emergency download, over emulated USB: planned, written, proved by digests."
run sim ar1 edl --name $name
programmer=$("$quarkctl" sim ar1 --name $name | sed -n 's/^its programmer: //p')
run flash build/s1-virtual/ar1 --via edl --device $device --programmer "$programmer" --yes

step "8. It restarted: its boot loader verified what lies there, and Linux runs from it in a second QEMU."
run sim ar1 --wait --name $name
run sim console --ar1 --name $name
run ar1 status --device $device
run telemetry show --device $device/ar1 --seconds 2
run sim list

step "9. Destroy a block of its system, restart: the kernel's dm-verity finds it, our Reed-Solomon codes mend it."
run sim ar1 system --flip system_a+8192:4096 --wait --name $name
run ar1 status --device $device

step "That was it."
cat <<TEXT
The glasses of this demo stop now. To go on by hand:

  . build/venv/bin/activate        # puts quarkctl on the path
  quarkctl sim start               # new glasses; quarkctl sim --help torments them
  quarkctl telemetry show          # live values, Ctrl-C ends it
  quarkctl sim fault               # what can be broken, for instance:
  quarkctl sim fault late_switchover on
  quarkctl diag battery            # listens for 10 s: swap a battery meanwhile
  quarkctl telemetry show --device sim:s1/ar1      # what the other chip says
TEXT
