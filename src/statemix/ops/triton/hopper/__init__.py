"""Kernels for Hopper GPUs, in Triton's Gluon dialect: the warps of a program walk time in relays."""
