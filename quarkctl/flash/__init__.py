"""From images to devices: plan first, then act, then prove."""
