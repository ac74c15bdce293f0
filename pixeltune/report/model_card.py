"""The model card of an exported trial: Markdown with the front matter that model hubs read, and the row's numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import yaml

from pixeltune.config import Scalar, TrialConfig
from pixeltune.format import hours
from pixeltune.published.nearest import comparison_lines
from pixeltune.results.manifest import SearchManifest
from pixeltune.results.own_keys import names_of_own
from pixeltune.results.parquet_io import Row

_FAMILIES = {
    "pixelcnn": "PixelCNN (van den Oord et al. 2016, arXiv 1601.06759)",
    "gated": "Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328)",
    "pixelcnnpp": "PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517)",
    "pixelvae": "PixelVAE (Gulrajani et al. 2016, arXiv 1611.05013)",
}

_LOAD = """```python
import pixeltune as pt

model = pt.load_model("model.safetensors")
images = pt.sample(model, 16, seed=0)
```"""


class _Quoted(str):
    """A quoted text: some YAML readers take a checksum such as 12e34567 for a number."""


class _HeadDumper(yaml.SafeDumper):  # type: ignore[misc]
    """A dumper that writes `_Quoted` texts in quotes."""


_HeadDumper.add_representer(
    _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def model_card(row: Row, config: TrialConfig, manifest: SearchManifest, ended_trials: int) -> str:
    """Return the text of `README.md`, which is stored next to an exported model.

    ended_trials: number of ended trials of the search, from which validation chose; a lowest of many is a little too
        low.
    """
    parts = [
        _front_matter(row),
        f"# {row['search']}/{row['trial']}\n",
        "\n".join(_what(row, config)) + "\n",
        "## Use\n",
        _LOAD + "\n",
        f"`pixeltune evaluate model.safetensors{_which_images(row, config)}` measures the number below again. "
        f"The weights are safetensors: nothing in this folder is unpickled when it is loaded.{_code_needed(row)}\n",
        "## Numbers\n",
        "\n".join(_numbers(row)) + "\n",
        "\n".join(_how_chosen(row, manifest, ended_trials)) + "\n",
        "## Comparison with published results\n",
        "```\n" + "\n".join(comparison_lines(row)) + "\n```\n",
        "## Provenance\n",
        "\n".join(_provenance(row)) + "\n",
        "## Configuration\n",
        _how_trained(row),
        "```toml\n" + config.to_toml() + "```\n",
    ]
    return "\n".join(parts)


def _front_matter(row: Row) -> str:
    """Return the head as YAML, in the form of model hubs."""
    name = {"name": _Quoted("upper bound")} if row["is_bound"] else {}
    results = [
        {
            "task": {"type": "unconditional-image-generation"},
            "dataset": {
                "name": _Quoted(row["data.name"]),
                "type": _Quoted(row["data.name"]),
                "split": split,
                "revision": _Quoted(row["data_checksum"]),
            },
            "metrics": [
                {"type": metric, "value": row[f"{split}_{metric}"]} | name for metric in ("bits_per_dim", "nats")
            ],
        }
        for split in ("valid", "test")
        if row[f"{split}_bits_per_dim"] is not None
    ]
    tags = ("density-estimation", "autoregressive", "image", row["model.family"])
    head = {
        "library_name": "pixeltune",
        "tags": [_Quoted(tag) for tag in tags],
        "model-index": [{"name": _Quoted(f"{row['search']}/{row['trial']}"), "results": results}],
    }
    text = yaml.dump(head, Dumper=_HeadDumper, sort_keys=False, allow_unicode=True, width=math.inf)
    return f"---\n{text}---\n"


def _code_needed(row: Row) -> str:
    """Return what code of the author's own the model needs, with a space before it; "" where it needs none."""
    names = names_of_own(row)
    if not names:
        return ""
    return (
        f" The model is built by code that is not part of pixeltune or of this folder: `{names}`, fingerprint "
        f"{row['own_code']}. It is imported from where Python finds it when the model is loaded."
    )


def _what(row: Row, config: TrialConfig) -> Iterator[str]:
    flat = config.flat()
    family = str(flat["model.family"])
    form = f"{row['image_channels']}×{row['image_height']}×{row['image_width']}, {row['levels']} levels"
    yield (
        f"A {_FAMILIES.get(family, family)} with likelihood `{flat['likelihood.name']}`: "
        f"{row['num_parameters']:,} parameters, for images of {form} (channels × height × width)."
    )
    exactness = "Its numbers are a bound on −log p." if row["is_bound"] else "Its likelihoods are exact."
    yield f"{exactness} Before training, an audit found it causal and its probabilities to sum to 1."
    if row.get("bits_verified") is not None:
        confirmed = "took the bits that it claims" if row["bits_verified"] else "did not take the bits that it claims"
        yield f"{row['bits_verified_images']} images that were really coded with it {confirmed}."


def _numbers(row: Row) -> Iterator[str]:
    yield "| split | bits/dim | nats per image | images seen in training |"
    yield "|---|---|---|---|"
    sign = "≤ " if row["is_bound"] else ""
    for split, name in (("valid", "validation"), ("test", "test")):
        bits, nats = row[f"{split}_bits_per_dim"], row[f"{split}_nats"]
        if bits is not None:
            seen = row["best_images_seen"] if split == "valid" else row["images_seen"]
            yield f"| {name} | {sign}{bits:.5f} | {sign}{nats:.4f} | {seen:,} |"
    if row["baseline_bits_per_dim"] is not None:
        yield f"\nOrder-0 baseline on {row['evaluated_split']}: {row['baseline_bits_per_dim']:.4f} bits/dim."


def _how_chosen(row: Row, manifest: SearchManifest, ended_trials: int) -> Iterator[str]:
    if manifest.final is not None:
        yield (
            f"The configuration was chosen on validation by the search {row['from_search']} "
            f"(trial {row['from_trial']}) and retrained on train and validation with seed {row['seed']}; the test set "
            "was read once, at the end of this run."
        )
        yield "One seed of several: quote the mean of the final with its standard error (`pt.read_final`)."
    else:
        yield (
            f"One of {ended_trials:,} ended trials of a search, whose validation numbers chose among them and which "
            "stopped at its best report: no test set was read, and a number chosen as the lowest of many is a little "
            "too low. `pixeltune final` makes numbers that can be quoted."
        )


def _provenance(row: Row) -> Iterator[str]:
    facts: Mapping[str, object] = {
        "data": f"{row['data.name']}, version {row['data_version']}, checksum {row['data_checksum']}, "
        f"{row['num_train']:,} training and {row['num_valid'] or 0:,} validation images",
        "trained": f"{row['started_at']:%Y-%m-%d}, {_seconds(row)}, {_machine(row)}",
        "precision in training": row["precision"],
        "pixeltune": f"{row['pixeltune_version']}" + (f", commit {row['git_commit']}" if row["git_commit"] else ""),
        "torch": row["torch_version"],
        "python": row["python_version"],
        "configuration": row["config_key"],
        "seed": row["seed"],
    }
    yield from (f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _seconds(row: Row) -> str:
    gpu = f" and {hours(row['gpu_seconds'])} GPU-hours" if row["gpu_seconds"] else ""
    return f"{row['train_seconds'] or 0:,.0f} s of training{gpu}"


def _machine(row: Row) -> str:
    workers = f"{row['workers']} workers on " if (row["workers"] or 1) > 1 else ""
    return workers + str(row["gpu_name"] or row["cpu_name"] or row["device"])


def _which_images(row: Row, config: TrialConfig) -> str:
    path: Scalar = config.flat()["data.path"]
    split = " --split test" if row["evaluated_split"] == "test" else ""
    return split + ("" if path is None else " --set data.path=…")


def _how_trained(row: Row) -> str:
    if row["from_search"] is not None:
        return f"Trained by `pixeltune final {row['from_search']}`, on the validation images too.\n"
    return "`pixeltune train --config config.toml` trains it again from scratch.\n"
