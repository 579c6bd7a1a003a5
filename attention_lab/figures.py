"""Draw the laboratory's figures.

    python -m attention_lab.figures                                             # (a) to (e), and Performer's error
    python -m attention_lab.figures --model RUN/finetune --data RUN/data/FOLDER # and (f) and (g) of a trained model

Writes SVG into attention_lab/figures/ (`--output`), the same bytes each time on one machine. With a model, also its
numbers, into attention_lab/results/NAME.{json,md}. Of the data folder only the training questions and the biographies
are read.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from attention_lab.heads import attend, copy_bound, copy_margin, pair_error, pair_weight
from attention_lab.noise import (
    draw_keys,
    flip_probability,
    isotropic,
    one_head,
    one_head_errors,
    one_head_variance,
    one_head_weight,
    pair_share,
    stretched,
    two_head_variance,
    two_heads,
)
from attention_lab.output import open_folder
from attention_lab.routing import B, D, question_matrices, question_vectors, report_matrices, self_attend
from configuration.errors import UserError, run_main
from evaluation.plots import BLACK, BLUE, GREEN, ORANGE, PINK, label_plainly, label_sizes, new_figure, save_figure

HERE = Path(__file__).parent
COUNT = 8  # keys, the axes of a space as wide; their values are the axes too
PAIR = (0, 1)  # a and b
MISS = r"|c - ½(v_a + v_b)|"  # the error of an average of two, as mathematics


def draw_copying(path: Path) -> None:
    """(a) The error of copying against the margin, of random heads, below its bound."""
    rng = np.random.default_rng(0)
    margins = []
    errors = []
    for _ in range(500):
        count = rng.integers(2, 30)
        width = rng.integers(1, 20)
        keys = rng.standard_normal((count, width))
        values = rng.standard_normal((count, 4))
        query = rng.standard_normal(width) * rng.uniform(0, 12)
        index = int(np.argmax(keys @ query))
        margin = copy_margin(keys, query, index)
        error = np.linalg.norm(attend(keys, query, values) - values[index])
        margins.append(margin)
        errors.append(error / copy_bound(values, 0.0))
    figure, axes = new_figure(1, 1, width=5.6, height=3.6)
    axes.plot(margins, errors, ".", color=BLUE, ms=3, label="random heads")
    reach = np.linspace(0, 30)
    axes.plot(reach, np.exp(-reach), color=ORANGE, label=r"bound: $e^{-m}$")
    axes.set(
        xlabel="margin $m$ of the largest score, nats", ylabel=r"$|c - v_j|\ /\ (2\,\max|v|\,(n - 1))$", yscale="log"
    )
    axes.set(xlim=(0, 30), ylim=(1e-14, 2))
    axes.legend(frameon=False)
    save_figure(figure, path)


def draw_averaging(path: Path) -> None:
    """(b) The weights and the error of an average of two against β."""
    figure, (left, right) = new_figure(1, 2, width=8.6, height=3.4)
    beta = np.linspace(0, 20, 81)
    for count, color in zip((4, 32, 256), (BLUE, ORANGE, GREEN), strict=True):
        left.plot(beta, [pair_weight(size, count) for size in beta], color=color, label=f"$n = {count}$")
        errors = [np.linalg.norm(pair_error(np.eye(count), *PAIR, size)) for size in beta]
        right.plot(beta, errors, color=color)
    right.plot(beta[20:], np.exp(-beta[20:]), color=BLACK, linestyle=":", label=r"$e^{-\beta}$")
    left.set(xlabel=r"$\beta$", ylabel="weight of $v_a$, and of $v_b$")
    right.set(xlabel=r"$\beta$", ylabel=f"${MISS}$", yscale="log")
    left.legend(frameon=False)
    right.legend(frameon=False)
    save_figure(figure, path)


def draw_regime(path: Path) -> None:
    """(c1, d1) The error under noise αI over β and α, of one head and of two, and where it is due to what."""
    beta = np.geomspace(0.5, 200, 25)
    alpha = np.geomspace(1e-6, 1, 25)
    means = np.eye(COUNT)
    target = (np.eye(COUNT)[PAIR[0]] + np.eye(COUNT)[PAIR[1]]) / 2
    found = np.zeros((2, len(alpha), len(beta)))
    for row, noise in enumerate(alpha):
        keys = draw_keys(means, isotropic(means, noise), 300, np.random.default_rng(row))
        for column, size in enumerate(beta):
            for which, heads in enumerate((one_head, two_heads)):
                c = heads(keys, means, means, *PAIR, size)
                found[which, row, column] = np.sqrt(np.mean(np.sum((c - target) ** 2, axis=-1)))
    parts = np.array([[one_head_errors(means, *PAIR, size, noise) for size in beta] for noise in alpha])
    figure, axes = new_figure(1, 2, width=9.0, height=3.8)
    for plot, errors, title in zip(
        axes,
        found,
        (r"one head, $q = \beta(\mu_a + \mu_b)$", r"two heads, $\beta\mu_a$ and $\beta\mu_b$"),
        strict=True,
    ):
        image = plot.pcolormesh(beta, alpha, errors, cmap="cividis", vmin=0, vmax=0.75, rasterized=True)
        plot.set(xscale="log", yscale="log", xlabel=r"$\beta$", ylabel=r"$\alpha$", title=title)
    axes[0].contour(beta, alpha, parts[..., 0], [0.1], colors="white", linestyles="--")
    axes[0].contour(beta, alpha, parts[..., 1], [0.1], colors="white")
    axes[0].text(0.62, 3e-6, "leak\nabove 0.1", color="white", fontsize="small")
    axes[0].text(16, 0.1, "noise\nabove 0.1", color="black", fontsize="small")
    figure.colorbar(image, ax=axes, label=f"root mean square ${MISS}$")
    save_figure(figure, path)


def draw_bimodal(path: Path) -> None:
    """(c2) The weight on v_a when k_a is stretched: samples and the derived density."""
    means = np.eye(COUNT)
    keys = draw_keys(means, stretched(means, PAIR[0], 0.0), 40_000, np.random.default_rng(0))
    figure, axes = new_figure(1, 3, width=9.6, height=3.0)
    place = np.linspace(0.002, 0.998, 250)
    for plot, beta in zip(axes, (2.0, 8.0, 40.0), strict=True):
        weight = one_head(keys, means, means, *PAIR, beta)[:, PAIR[0]]  # its values are the axes
        derived = one_head_weight(beta, COUNT)
        plot.hist(weight, bins=40, range=(0, 1), density=True, color=BLUE, alpha=0.6, label="sampled")
        plot.plot(place, derived.pdf(place), color=ORANGE, label="derived")
        between = derived.cdf(0.9) - derived.cdf(0.1)
        title = rf"$\beta = {beta:g}$: {100 * between:.0f} % between 0.1 and 0.9"
        plot.set(xlabel="weight on $v_a$", ylim=(0, 6))
        plot.set_title(title, fontsize="medium")
    axes[0].set_ylabel("density")
    axes[0].legend(frameon=False)
    save_figure(figure, path)


def total_variance(outputs: np.ndarray) -> float:
    """Return E|c - Ec|² of samples (draws, e)."""
    return float(outputs.var(axis=0).sum())


def draw_two_heads(path: Path) -> None:
    """(d) Variance of c for one and two heads against β, under both noises, and what γ < 0 does to two heads."""
    means = np.eye(COUNT)
    alpha = 0.01
    figure, (left, middle, right) = new_figure(1, 3, width=11.6, height=3.5)
    beta = np.geomspace(1, 100, 13)
    fine = np.geomspace(1, 100, 61)
    for plot, covariances, title in (
        (left, isotropic(means, alpha), rf"(1) $\Sigma = \alpha I$, $\alpha = {alpha:g}$"),
        (middle, stretched(means, PAIR[0], 0.0), r"(2) $k_a = \gamma\mu_a$, $\gamma \sim N(1, ½)$"),
    ):
        keys = draw_keys(means, covariances, 10_000, np.random.default_rng(0))
        for heads, marker, color, label in ((one_head, "o", BLUE, "one head"), (two_heads, "s", ORANGE, "two heads")):
            variances = [total_variance(heads(keys, means, means, *PAIR, size)) for size in beta]
            plot.plot(beta, variances, marker, color=color, ms=4, label=f"{label}, sampled")
        plot.set(xscale="log", yscale="log", ylim=(1e-6, 1), xlabel=r"$\beta$", title=title)
    left.plot(fine, [2 * pair_share(size, alpha).variance for size in fine], color=BLUE, label="one head, derived")
    middle.plot(fine, [one_head_variance(means, *PAIR, size) for size in fine], color=BLUE, label="one head, derived")
    middle.plot(fine, [two_head_variance(means, 0, size) for size in fine], color=ORANGE, label="two heads, derived")
    left.set_ylabel(r"$\mathrm{E}\,|c - \mathrm{E}c|^2$")
    middle.legend(frameon=False, fontsize="small", loc="lower right")
    gamma = keys[:1500, 0, 0]
    beta = 12.0
    for heads, color, label in ((one_head, BLUE, "one head"), (two_heads, ORANGE, "two heads")):
        c = heads(keys[:1500], means, means, *PAIR, beta)
        order = np.argsort(gamma)
        errors = np.linalg.norm(c - (means[0] + means[1]) / 2, axis=-1)
        right.plot(gamma[order], errors[order], color=color, label=label)
    right.axvspan(
        gamma.min(), 0, color=PINK, alpha=0.25, lw=0, label=rf"$\gamma < 0$: {100 * flip_probability():.1f} % of draws"
    )
    right.set(xlabel=r"$\gamma$", ylabel=f"${MISS}$", title=rf"(2) at $\beta = {beta:g}$")
    right.set(xlim=(gamma.min(), gamma.max()), ylim=(-0.03, 1.1))  # the curves end at 0.71, the legend is above
    right.legend(frameon=False, fontsize="small", loc="upper right")
    save_figure(figure, path)


def draw_routing(path: Path) -> None:
    """(e) What each position returns, in coordinates along u_a … u_d, four ways."""
    u, inputs = question_vectors(3.0)
    changed = inputs.copy()
    changed[1] += u[D]
    cases = {
        "$v = k = q = x$": self_attend(inputs),
        "the same, $u_d$ added to $x_2$": self_attend(changed),
        r"solution: $c_1 \approx u_b - u_c$, $c_2 \approx u_b$": self_attend(inputs, question_matrices(u)),
        "the report's matrices": self_attend(inputs, report_matrices(u, inputs)),
    }
    figure, axes = new_figure(1, 4, width=12.4, height=2.9)
    for plot, (title, outputs) in zip(axes, cases.items(), strict=True):
        shares = outputs @ u.T / (u[B] @ u[B])
        image = plot.imshow(shares, cmap="cividis", vmin=-1, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            color = "black" if share > 0.2 else "white"
            plot.text(
                column, row, f"{round(share, 2) + 0.0:.2f}", ha="center", va="center", color=color, fontsize="small"
            )
        plot.set_title(title, fontsize="small")
        plot.set_xticks(range(4), ["$u_a$", "$u_b$", "$u_c$", "$u_d$"])
        plot.set_yticks(range(3), ["$c_1$", "$c_2$", "$c_3$"])
    figure.colorbar(image, ax=axes, label="coordinate", shrink=0.8)
    figure.supxlabel("along", fontsize="small")
    save_figure(figure, path)


def draw_performer(path: Path) -> None:
    """(g) Performer's error against the number of its features, orthogonal and independent; needs torch."""
    import torch

    from attention_lab.structure import performer_error

    generator = torch.Generator().manual_seed(0)
    sizes = (16, 32, 64, 128, 256, 512, 1024)
    query, key = (torch.randn(1, 4, 32, 16, generator=generator) / 2 for _ in range(2))
    figure, axes = new_figure(1, 1, width=5.6, height=3.6)
    for orthogonal, marker, color in ((False, "o-", BLUE), (True, "s-", ORANGE)):
        errors = [performer_error(query, key, size, orthogonal).square().mean().sqrt().item() for size in sizes]
        axes.plot(sizes, errors, marker, color=color, label="orthogonal" if orthogonal else "independent")
    axes.plot(
        sizes, [errors[-1] * (sizes[-1] / size) ** 0.5 for size in sizes], ":", color=BLACK, label=r"$1/\sqrt{m}$"
    )
    axes.set(xlabel="random features $m$", ylabel=r"$|\hat{A} - A|\ /\ |A|$")
    label_sizes(axes, sizes)
    label_plainly(axes)
    axes.legend(frameon=False)
    save_figure(figure, path)


FIGURES = {
    "copying": draw_copying,
    "averaging": draw_averaging,
    "noise_regime": draw_regime,
    "stretched_key": draw_bimodal,
    "two_heads": draw_two_heads,
    "routing": draw_routing,
    "performer": draw_performer,
}


def file_name(text: str) -> str:
    """Return what figures and results are named after, for argparse: a name, not a path."""
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a name without a folder, found {text!r:.200}")
    return text


def main(argv: list[str] | None = None) -> int:
    """Draw the figures, and those of a model; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), metavar="NAME")
    parser.add_argument("--model", type=Path, help="a folder with a finetuned MiniGPT")
    parser.add_argument("--data", type=Path, help="the folder of its training questions and biographies")
    parser.add_argument("--name", type=file_name, default="quickstart", help="what to call the model (%(default)s)")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for figures/ and results/")
    arguments = parser.parse_args(argv)
    if (arguments.model is None) != (arguments.data is None):
        parser.error("--model and --data go together")

    def command() -> None:
        folder = open_folder(arguments.output / "figures")
        if arguments.model is not None:
            open_folder(arguments.output / "results")
        for name in arguments.only:
            FIGURES[name](folder / f"{name}.svg")
        if arguments.model is not None:
            from attention_lab.model_report import report_model

            try:
                report_model(arguments.model, arguments.data, arguments.name, arguments.output)
            except ValueError as error:
                raise UserError(error) from error

    return run_main(command)


if __name__ == "__main__":
    sys.exit(main())
