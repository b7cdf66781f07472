"""What a run on the digits must reach at least; a report shows it beside the figure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Floors:
    """Floors of shares between 0 and 1, by modality.

    Attributes:
        accuracy: of naming the digit without having been trained to.
        untrained: R@1 by digit of media that were never trained as a pair.
        captioning: modality -> figure -> floor.
        agreement: of generated media with a classifier of real ones.
    """

    accuracy: dict[str, float]
    untrained: float
    captioning: dict[str, dict[str, float]]
    agreement: dict[str, float]

    def of(self, section: str, name: str, figure: str) -> float | None:
        """The floor of metrics[section][name][figure], None where there is none."""
        if section == "zero_shot" and figure == "accuracy":
            return self.accuracy.get(name)
        if section == "retrieval" and figure == "R@1":
            return None if "text" in name else self.untrained
        if section == "captioning":
            return self.captioning.get(name, {}).get(figure)
        if section == "generation" and figure == "agreement":
            return self.agreement.get(name)
        return None


DEMO = Floors(
    accuracy={"image": 0.85, "audio": 0.95, "video": 0.70, "shape3d": 0.75},
    untrained=0.55,
    captioning={name: {"digit": 0.80, "exact": 0.50} for name in ("image", "video")},
    agreement={"image": 0.50, "audio": 0.60, "video": 0.40, "shape3d": 0.40},
)
FULL = Floors(
    accuracy={"image": 0.95, "audio": 0.98, "video": 0.90, "shape3d": 0.92},
    untrained=0.80,
    captioning={name: {"digit": 0.92, "exact": 0.75} for name in ("image", "video")},
    agreement={"image": 0.80, "audio": 0.80, "video": 0.70, "shape3d": 0.70},
)
FLOORS = {"demo": DEMO, "full": FULL}
