"""The colours of a picture, for light paper and for dark.

Pure.
"""

import attrs


@attrs.frozen
class Theme:
    """Colours; those of `lines` are told apart by colour-blind people too."""

    back: str
    text: str
    faint: str
    grid: str
    other: str
    gap: str
    lines: tuple[str, ...]


THEMES = {
    # The lines' colours are those of Okabe and Ito, neighbours far apart.
    "light": Theme(
        back="#ffffff",
        text="#1f2933",
        faint="#66727f",
        grid="#e4e8ed",
        other="#b4bfca",
        gap="#c62828",
        lines=("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"),
    ),
    "dark": Theme(
        back="#0d1117",
        text="#e6edf3",
        faint="#9aa7b4",
        grid="#252c35",
        other="#4d5762",
        gap="#ff7b72",
        lines=("#3d8fd9", "#e69f00", "#1fb58c", "#f07033", "#8fd0f5", "#dd94bd"),
    ),
}
