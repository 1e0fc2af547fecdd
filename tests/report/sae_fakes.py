"""A result of autoencoders, made of arithmetic: two sites, three kinds, of which one has no number of codes."""

import numpy as np
from report_fakes import fake_result

from lrh_ray.records import Measure, Result, Table

SITES, NAMES, SPARSE = ("resid.5", "resid.15"), ("topk", "relu", "conca"), ("topk", "relu")
FACTS = ("loss", "penalty", "l0", "dead")
LATENTS, DIMENSIONS, POINTS, LAST = 400, 64, 21, 100
SPENT = {"topk": 16.0, "relu": 40.0}
LEFT = {"topk": 0.3, "relu": 0.2, "conca": 3.0}
TEXTS = ("def open(path):", "the socket\nis closed", "naïve 言葉 here")


def components() -> np.ndarray:
    return 1 - np.arange(DIMENSIONS + 1) / DIMENSIONS


def density(site: str, name: str) -> np.ndarray:
    """Shares of 1000 rows; a tenth of the latents never fires."""
    rng = np.random.default_rng([SITES.index(site), NAMES.index(name)])
    fired = np.ceil(10 ** rng.uniform(0, 3, LATENTS))
    return np.where(np.arange(LATENTS) % 10 == 0, 0.0, fired / 1000)


def curves() -> np.ndarray:
    """Loss falls by a factor of 100, dead latents come and go; one point was never made."""
    steps = np.linspace(0, 1, POINTS)
    one = np.stack([100.0**-steps, 0 * steps, 30 - 10 * steps, np.round(8 * steps * (1 - steps))], axis=1)
    found = np.stack([one * (1 + index / 10) for index in range(len(SITES) * len(NAMES))])
    found[0, 7] = np.nan
    return found


def measures() -> tuple[Measure, ...]:
    found = []
    for layer, site in ((5, SITES[0]), (15, SITES[1])):
        for name in NAMES:
            keys = {"site": site, "layer": layer, "autoencoder": name}
            left = LEFT[name] + layer / 1000
            controls = {"untrained": 0.9}
            if name in SPARSE:
                controls["principal_components"] = float(np.interp(SPENT[name], range(DIMENSIONS + 1), components()))
            found.append(
                Measure(
                    name="fvu", value=left, unit="", keys=keys, low=left - 0.02, high=left + 0.02, controls=controls
                )
            )
            if name in SPARSE:
                spent = SPENT[name]
                found.append(Measure(name="l0", value=spent, unit="", keys=keys, low=spent - 1, high=spent + 1))
    return tuple(found)


def training_table() -> Table:
    """Three points of each curve."""
    rows = []
    for curve, (site, name) in zip(curves(), [(site, name) for site in SITES for name in NAMES], strict=True):
        rows += [(site, name, LAST * point // (POINTS - 1), *curve[point].tolist()) for point in (0, 10, POINTS - 1)]
    return Table(name="training", description="", columns=("site", "autoencoder", "step", *FACTS), rows=tuple(rows))


def density_table() -> Table:
    rows = tuple((site, name, int((density(site, name) == 0).sum())) for site in SITES for name in SPARSE)
    return Table(name="density", description="", columns=("site", "autoencoder", "never"), rows=rows)


def passages() -> tuple[Table, dict[str, np.ndarray]]:
    """Two latents of each autoencoder with a passage for each text, whose words are the tokens."""
    rows, starts, spans, codes = [], [0], [], []
    for site in SITES:
        for name in NAMES:
            for latent in (3, 170):
                for index, text in enumerate(TEXTS):
                    ends = [i for i in range(1, len(text) + 1) if i == len(text) or text[i] == " "]
                    spans += zip([0, *ends[:-1]], ends, strict=True)
                    codes += [0.0, *(latent * (index + 1) / 10 for _ in ends[1:])]
                    starts.append(len(codes))
                    rows.append((site, name, latent, 0.01, 51.0, "strongest", codes[-1], f"doc-{index}", text))
    columns = ("site", "autoencoder", "latent", "share of rows", "largest code", "shown as", "code", "document", "text")
    table = Table(name="latents", description="Chosen by a rule.", columns=columns, rows=tuple(rows))
    arrays = {"starts": np.array(starts), "spans": np.array(spans, np.int32), "codes": np.array(codes, np.float32)}
    return table, {f"latents/{name}": array for name, array in arrays.items()}


def sae_result(**changes: object) -> Result:
    table, of_passages = passages()
    arrays = {f"{site}/{name}/density": density(site, name) for site in SITES for name in NAMES}
    arrays |= {f"{site}/{name}/density_untrained": np.full(LATENTS, 0.5) for site in SITES for name in NAMES}
    arrays |= {f"{site}/principal_components": components() for site in SITES}
    fields: dict[str, object] = {
        "kind": "sae",
        "title": "Sparse autoencoders of a model",
        "measures": measures(),
        "tables": (density_table(), training_table(), table),
        "arrays": {"training": curves(), **arrays, **of_passages},
    }
    return fake_result(**{**fields, **changes})
