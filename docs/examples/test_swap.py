"""Tests of a product team: pytest docs/examples --quark-station sim:s1"""


def test_a_swap_is_seen_and_the_bus_holds(glasses, telemetry):
    with telemetry.listening() as heard:
        heard.wait_for("power")
        glasses.battery("eject", "left")
        heard.wait_for("pack_removed")
        glasses.battery("insert", "left")
        heard.wait_for("pack_inserted")
    power = [s for s in heard.samples if s.message.name == "power"]
    assert min(s.number("bus_mv_min") for s in power) > 3100
    assert len({s.boot for s in heard.samples}) == 1, "the glasses restarted"


def test_the_same_firmware_again_changes_nothing(flash, image):
    flash(image)
    assert flash(image)["result"] == "unchanged"
