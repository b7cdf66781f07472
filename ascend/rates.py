"""Types of devices and their rates, from ``rates.yaml``."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from ascend.errors import HardwareError

FILE = Path(__file__).with_suffix(".yaml")
VARIANT = {"910B": "910B2"}  # taken where a family is named


class DeviceTypeError(HardwareError):
    """The type of device is unknown, or does not compute in the type that was asked for."""


@dataclass(frozen=True)
class DeviceType:
    """What a device can do at most; ``rates.yaml`` explains the fields and names the sources."""

    name: str
    memory: int  # bytes
    memory_bandwidth: float  # bytes a second
    products: dict[str, float | None]  # number type -> operations a second
    node: int  # devices of a node
    inside: float  # bytes a second to the others of its node
    between: float  # bytes a second to other nodes
    mesh: bool  # whether `inside` is the sum of links to each of the others
    products_reached: float  # share of the peak
    links_reached: float  # share of the peak
    trains: bool = True

    @property
    def number_type(self) -> str:
        """What products are computed in where nothing else is asked for."""
        return next(name for name in ("bfloat16", "float16", "float32") if self.products[name])

    def peak(self, number_type: str) -> float:
        """Operations a second of matrix products of a number type.

        Raises:
            DeviceTypeError: there are none.
        """
        if not self.products.get(number_type):
            known = [name for name, peak in self.products.items() if peak]
            raise DeviceTypeError(
                f"{self.name} has no products in {number_type}; take {', '.join(known)}"
            )
        return self.products[number_type]

    def inside_bandwidth(self, ranks: int) -> float:
        """Bytes a second that one of so many ranks within a node can send to the others."""
        share = (ranks - 1) / (self.node - 1) if self.mesh else 1.0
        return self.inside * self.links_reached * share

    @property
    def between_bandwidth(self) -> float:
        return self.between * self.links_reached


def device_types() -> dict[str, DeviceType]:
    """All known types, by name."""
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {str(name): _read(str(name), row) for name, row in rows.items()}


def find_device_type(name: str) -> DeviceType:
    """The type of a name, in any case; CANN's names of chips are known, too (Ascend910B3).

    Raises:
        DeviceTypeError: there is none.
    """
    types = device_types()
    wanted = name.upper().removeprefix("ASCEND").removeprefix("-")
    if wanted.startswith("910_93"):
        wanted = "A3"
    wanted = VARIANT.get(wanted, wanted)
    if wanted not in types:
        raise DeviceTypeError(f"device type {name!r} is unknown; there are {', '.join(types)}")
    return types[wanted]


def _read(name: str, row: dict) -> DeviceType:
    numbers = {key: float(row[key]) for key in ("memory_bandwidth", "inside", "between")}
    products = {key: peak and float(peak) for key, peak in row["products"].items()}
    return DeviceType(name=name, **{**row, **numbers, "products": products})
