"""Virtual glasses: the real firmware in QEMU, fed by a model of batteries, load and heat."""
