# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/check/paired_stats.txt: what scipy and statsmodels compute, for paired_stats_test.

A line is a function's name, its arguments, and its values after "=". Tango's interval has no function in
either: here the likelihood is maximised numerically and the score inverted by Brent's method, so it
shares no closed form with the code under test.
Run: python tools/golden/make_check_golden.py   (needs numpy, scipy, statsmodels)
"""

import os

import numpy as np
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_power_het
from statsmodels.stats.proportion import proportion_confint

PATH = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden", "check", "paired_stats.txt")


def gains_under(items, lost, gained, loss):
    """The likeliest share of gains when the share of losses is that plus `loss`."""
    low, high = max(0.0, -loss), (1 - loss) / 2
    same = items - lost - gained

    def slope(q):
        total = 0.0
        if lost:
            total += lost / (q + loss)
        if gained:
            total += gained / q
        if same:
            total -= 2 * same / (1 - loss - 2 * q)
        return total

    edge = 1e-14
    if slope(low + edge) <= 0:
        return low
    if slope(high - edge) >= 0:
        return high
    return optimize.brentq(slope, low + edge, high - edge, xtol=1e-16, rtol=8.9e-16, maxiter=500)


def tango(items, lost, gained, error):
    z = stats.norm.ppf(1 - error)

    def score(loss):
        q = gains_under(items, lost, gained, loss)
        return (lost - gained - items * loss) / np.sqrt(items * (2 * q + loss * (1 - loss)))

    edge = 1 - 1e-9
    estimate = (lost - gained) / items

    def bound(target, end):
        return optimize.brentq(lambda loss: score(loss) - target, estimate, end, xtol=1e-15, maxiter=500)

    # Between the estimate and the end; the score at the estimate is 0 up to rounding.
    return bound(z, -edge), bound(-z, edge)


def main():
    lines = []

    def add(name, arguments, values):
        lines.append(f"{name} {' '.join(map(repr, arguments))} = {' '.join(repr(float(v)) for v in values)}")

    for lost, gained in [(1, 0), (0, 3), (5, 5), (12, 5), (40, 22), (7, 0), (250, 205), (1500, 1390)]:
        add("mcnemar", (lost, gained),
            [stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue])
    for k, n in [(0, 10), (10, 10), (1, 164), (7, 500), (250, 1319), (900, 1000)]:
        for error in (0.05, 0.025, 0.01):
            add("clopper_pearson", (k, n, error), proportion_confint(k, n, 2 * error, method="beta"))
    for items, lost, gained in [(44, 1, 2), (100, 7, 3), (275, 6, 5), (500, 12, 5), (1000, 80, 41), (60, 9, 1),
                                (50, 1, 0), (50, 0, 1), (1319, 30, 130), (164, 20, 20)]:
        for error in (0.05, 0.04, 0.025):
            add("tango", (items, lost, gained, error), tango(items, lost, gained, error))
    rng = np.random.default_rng(7)
    for size in (1, 3, 9):
        p_values = [float(p) for p in rng.random(size) ** 3]
        add("holm", p_values, multipletests(p_values, method="holm")[1])
    for items, clusters in [(40, 5), (500, 12), (300, 100)]:
        groups = rng.integers(0, clusters, items)
        pull = rng.normal(0, 0.15, clusters)[groups]
        values = np.where(rng.random(items) < np.clip(0.1 + pull, 0, 1), 1.0,
                          np.where(rng.random(items) < 0.05, -1.0, 0.0))
        fit = sm.OLS(values, np.ones(items)).fit(cov_type="cluster", cov_kwds={"groups": groups})
        reach = stats.t.ppf(0.95, len(set(groups)) - 1) * fit.bse[0]
        arguments = [x for pair in zip(map(int, values), map(int, groups)) for x in pair]
        add("cluster", arguments, [fit.bse[0], fit.params[0] - reach, fit.params[0] + reach])
    for items, flips, loss, delta in [(275, 0.04, 0.0, 0.03), (550, 0.08, 0.01, 0.03), (198, 0.08, 0.0, 0.05),
                                      (500, 0.2, 0.02, 0.03)]:
        deviation = np.sqrt(flips - loss * loss)
        add("power", (items, flips, loss, delta, 0.05),
            [normal_power_het(delta - loss, items, 0.05, std_null=deviation, alternative="larger")])
    for z in (-8.0, -3.1, -1.0, 0.0, 0.3, 2.5):
        add("normal_cdf", (z,), [stats.norm.cdf(z)])
    for p in (1e-12, 0.01, 0.05, 0.5, 0.8, 0.975):
        add("normal_quantile", (p,), [stats.norm.ppf(p)])
    os.makedirs(os.path.dirname(PATH), exist_ok=True)
    with open(PATH, "w", encoding="ascii") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
