"""The errors of the hardware layer that a user can mend; each says in one line what is wrong."""


class HardwareError(RuntimeError):
    """Base of the errors of devices, precisions and what stands for them."""
