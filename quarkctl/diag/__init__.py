"""From samples and limits to findings. Pure: nothing here reads a file or a device, nothing prints."""
