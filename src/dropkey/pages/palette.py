"""Colors and dashes that tell lines apart, also in print and with any kind of color vision."""

__all__ = ["DARK", "DASHES", "LIGHT", "ON_PICTURES", "color", "look", "palette_css"]

# Told apart by every kind of color vision, and against the page: tests hold them to both.
LIGHT = ("#7d848d", "#b87410", "#1153f9", "#22914f", "#a01db1", "#5a0812", "#124f5e", "#665600")
DARK = ("#8d959f", "#d8820f", "#5b97dc", "#34d98b", "#b93df0", "#e0354b", "#bdeaf6", "#f1de1d")
ON_PICTURES = ("#c3cad4", "#ff9130", "#4ba3ff", "#3fe07c", "#e07cf5", "#ff4b55", "#4fdcf2", "#ffe02e")
DASHES = ("none", "7 3", "2 3", "9 3 2 3")


def color(number: int) -> str:
    """Return the class of the color of that number."""
    return f"c{number % len(LIGHT)}"


def look(number: int) -> str:
    """Return the classes of the line of that number: color and dashes, all different for the first 32."""
    return f"{color(number)} d{(number + number // len(LIGHT)) % len(DASHES)}"


def palette_css(root: str = ":root", colors: tuple[str, ...] = LIGHT) -> str:
    """Return the rule that gives an element and what is inside of it these colors."""
    return f"{root} {{ {' '.join(f'--c{number}: {color};' for number, color in enumerate(colors))} }}"
