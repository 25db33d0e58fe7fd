"""SMP servers of others, where one is given: MCUboot's serial recovery, a Zephyr application.

QUARKCTL_TEST_SMP_PORT is its port (or rfc2217://, socket://), QUARKCTL_TEST_SMP_IMAGE an image that may be uploaded to it,
QUARKCTL_TEST_SMP_FRAMING its framing if it is raw.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quarkctl.flash import device
from quarkctl.flash.smp import Client
from quarkctl.flash.upload import upload
from quarkctl.formats import mcuboot_image
from quarkctl.link.identity import Device

PORT = os.environ.get("QUARKCTL_TEST_SMP_PORT", "")
IMAGE = os.environ.get("QUARKCTL_TEST_SMP_IMAGE", "")


@pytest.mark.skipif(not (PORT and IMAGE), reason="QUARKCTL_TEST_SMP_PORT and _IMAGE name no SMP server of others")
def test_another_smp_server_takes_an_image_and_lists_it() -> None:
    data = Path(IMAGE).read_bytes()
    link = (
        Device(PORT, PORT, "", lambda: PORT, baud=int(os.environ.get("QUARKCTL_TEST_SMP_BAUD", "115200")))
        .opener()
        .open()
    )
    try:
        client = Client(link, os.environ.get("QUARKCTL_TEST_SMP_FRAMING", "console"))
        client.negotiate()
        upload(client, data, lambda done, eta: None)
        assert mcuboot_image.parse(data).digest in [i.hash for i in device.read_images(client)]
    finally:
        link.close()
