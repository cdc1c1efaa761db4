"""Draws the memory of each server over the number of workers; run with an interpreter that has matplotlib.

python plot.py TITLE PICTURE < LINES
"""

import json
import sys

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    """Read lines from standard input, as `report.lines_to_draw` returns them; write the picture."""
    title, picture = sys.argv[1:]
    drawn = json.load(sys.stdin)
    figure, axes = plt.subplots(1, len(drawn), figsize=(5.2 * len(drawn), 4.6), squeeze=False)
    for axis, (application, servers) in zip(axes[0], drawn.items(), strict=True):
        for server, points in servers.items():
            ours = server.startswith("preforkd")
            axis.plot(
                [count for count, _ in points],
                [total for _, total in points],
                label=server,
                marker="o",
                markersize=4,
                linewidth=2.2 if ours else 1.3,
                linestyle="-" if ours else "--",
            )
        axis.set_title(application, fontsize=10)
        axis.set_xlabel("workers")
        axis.set_yscale("log")
        axis.set_xticks(sorted({count for points in servers.values() for count, _ in points}))
        axis.set_yticks([100, 200, 500, 1000, 2000, 5000, 10000])
        axis.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        totals = [total for points in servers.values() for _, total in points]
        axis.set_ylim(min(totals) / 1.3, max(totals) * 1.3)
        axis.grid(visible=True, alpha=0.25)
    axes[0][0].set_ylabel("MB in all (PSS, master included)")
    figure.suptitle(title, fontsize=11)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
