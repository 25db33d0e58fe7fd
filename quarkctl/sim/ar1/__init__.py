"""The virtual AR1: storage, boot ROM, programmer, boot loader, and the kernel that it boots. Written from the protocols'
specifications, never from the clients in `quarkctl.flash`."""
