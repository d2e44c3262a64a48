"""How all pictures look, and how they are written."""

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Text stays text, also a name with dollars, and the same data give the same bytes.
plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fbnet", "text.parse_math": False})
plt.rcParams.update({"font.size": 8, "font.family": "sans-serif"})


def put_title(figure, text: str) -> None:
    """Set a figure's title, in as many lines as its width asks for."""
    characters = int(figure.get_size_inches()[0] * 15)
    figure.suptitle(textwrap.fill(text, characters), fontsize=8)


def save(figure, path: Path, caption: str = "") -> None:
    """Write a figure, and close it; in an SVG the caption is the description, so that it goes where the picture goes."""
    metadata = {"Date": None} | ({"Description": caption} if caption else {})
    figure.savefig(path, metadata=metadata if str(path).endswith(".svg") else None, dpi=150)
    plt.close(figure)
