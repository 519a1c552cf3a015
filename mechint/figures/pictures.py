"""Pictures drawn by a browser that talks to nobody: Plotly's own way to them lets it call home and fetch scripts."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from choreographer.browsers.chromium import Chromium

Drawing = Mapping[str, Any]  # a figure as Plotly's JSON has it: "data" and "layout"
# Nothing in the background; and whatever is asked of the network all the same finds neither names nor a way out, this
# machine's own servers included.
OFFLINE = (
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-features=MediaRouter,OptimizationHints,AutofillServerCommunication,CertificateTransparencyComponentUpdater",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:9",  # the port that discards
    "--proxy-bypass-list=<-loopback>",
)


def write_images(
    figures: Sequence[Drawing],
    files: Sequence[Path],
    *,
    scale: float,
    width: Sequence[int | None],
    height: Sequence[int | None],
) -> None:
    """Draw figures with one browser into files, as the suffix of each says.

    Raises what kaleido does where it, or a browser, is missing; where a figure cannot be drawn there is no file.
    """
    import kaleido

    specs = [
        {
            "fig": figure,
            "path": file,
            "opts": {"format": file.suffix.removeprefix("."), "width": wide, "height": high, "scale": scale},
        }
        for figure, file, wide, high in zip(figures, files, width, height, strict=True)
    ]
    # No figure has formulas, for which a script would be fetched.
    kaleido.write_fig_from_object_sync(specs, kopts={"browser_cls": offline_browser(), "mathjax": False})


@cache
def offline_browser() -> "type[Chromium]":
    """Return the class of a browser that is started with `OFFLINE`; raises ImportError without kaleido."""
    from choreographer.browsers.chromium import Chromium

    class OfflineChromium(Chromium):
        """Chromium, started so that it talks to nobody."""

        def get_cli(self) -> Sequence[str]:
            """Return the command line."""
            return [*super().get_cli(), *OFFLINE]

    return OfflineChromium
