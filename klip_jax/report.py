"""The report of a run: its metrics, its pictures and one page that shows them."""

import pathlib

import numpy as np

from klip_jax import comparison, diagnosis, figures, page
from klip_jax.checkpoint import write_atomically
from klip_jax.evaluation import evaluate
from klip_jax.results import (
    natural,
    read_images,
    read_metrics,
    write_metrics,
    write_scores,
)
from klip_jax.workdir import read_config

ALL, MOST, FEW = 40, 24, 8

_ABOUT = (
    "KLIP asks how far the measurements pulled the posterior p(x|y) away from the "
    "prior p(x), which has learned what such images look like. Where an image holds "
    "something the prior does not expect the pull is strong: the map shows where, and "
    "the score says how strong."
)


def finish(workdir) -> tuple[dict, pathlib.Path]:
    """Write scores.csv, metrics.json, the figures and the report of a finished run.

    Returns:
      (metrics, path of report.html).

    Raises:
      FileNotFoundError, ValueError: if config.json or a result is absent or broken.
    """
    record = read_config(workdir)
    config = record["config"]
    metrics = evaluate(read_images(workdir), config["estimator"]["block"])
    write_scores(workdir)
    write_metrics(workdir, metrics)
    facts = {name: _settings(value) for name, value in config.items()}
    facts |= {name: str(value) for name, value in record.get("versions", {}).items()}
    facts["git commit"] = record.get("git") or "not a checkout"
    per_position = config["calibration"]["per_position"]
    path = write_report(
        workdir,
        title=pathlib.Path(workdir).resolve().name,
        facts=facts,
        unit="z-score" if per_position else "score per pixel",
    )
    return metrics, path


def write_report(
    workdir,
    *,
    title: str,
    facts: dict[str, str],
    unit: str = "score per pixel",
    order: str = "score",
) -> pathlib.Path:
    """Write figures/ and report.html from the images and metrics.json of `workdir`.

    Up to 40 images are all on the page; of more, the 24 with the highest scores and 8
    in-distribution ones spread over their scores, and the rest as links.

    Args:
      workdir: folder of the run, with metrics.json.
      title: of the page.
      facts: settings to list, name -> value.
      unit: of the heat maps.
      order: of the images, "score" (highest first) or "name" (natural order).

    Returns:
      The path of report.html.

    Raises:
      ValueError: if a result or metrics.json is absent or broken.
    """
    if order not in ("score", "name"):
        raise ValueError(f"order={order!r}: 'score' or 'name'")
    workdir = pathlib.Path(workdir)
    results, metrics = read_images(workdir), read_metrics(workdir)
    if order == "score":
        results.sort(
            key=lambda r: (-np.nan_to_num(r.score, nan=np.inf), natural(r.image_id))
        )
    inline = _inline(results)
    limits = figures.color_limits(results) if results else None
    pictures = []
    for result in results:
        png = figures.image_figure(result, limits=limits, unit=unit)
        write_atomically(workdir / _file(result), png)
        if result.image_id in inline:
            alt, anchor = f"images of {result.image_id}", f"image-{result.image_id}"
            pictures.append(page.picture(png, alt, anchor=anchor))
    body = [
        _head(title, metrics),
        _headline(metrics, results),
        comparison.tables(metrics),
        _groups(metrics),
        page.section("Left out, and why", page.sentences(metrics["left_out"])),
        _curves(workdir, results, metrics),
        page.section("Scores", _scores(results, inline)),
        page.section("Images", _choice(results, inline, unit, order), *pictures),
        page.section("More numbers", page.facts_list(_numbers(metrics))),
        page.section("Settings", page.facts_list(facts)),
    ]
    path = workdir / "report.html"
    write_atomically(path, page.document(title, filter(None, body)).encode())
    return path


def _head(title, metrics):
    counts = metrics["counts"]
    parts = [f"{counts['images']} images"]
    words = {"id": "in-distribution", "ood": "anomalous", "unknown": "of unknown group"}
    parts += [f"{counts[k]} {word}" for k, word in words.items() if counts[k]]
    parts += [f"{metrics['bad_images']} failed"] if metrics["bad_images"] else []
    return "\n".join(
        [
            f"<h1>{page.text(title)}</h1>",
            page.paragraph(", ".join(parts), "quiet"),
            page.paragraph(_ABOUT),
        ]
    )


def _headline(metrics, results):
    region = metrics.get("localization_region", "")
    notes = {
        "localization_auroc": (
            "Localization AUROC",
            f"mean over images, blocks in {comparison.REGIONS.get(region)}",
            2,
        ),
        "detection_auroc": ("Detection AUROC", "anomalous against in-distribution", 2),
        "psnr": ("Reconstruction, dB", "PSNR, mean over images", 1),
    }
    tiles = [
        page.tile(name, metrics[key], note, places=places)
        for key, (name, note, places) in notes.items()
        if key in metrics
    ]
    lines = [f'<div class="tiles">{"".join(tiles)}</div>'] if tiles else []
    for question in comparison.QUESTIONS:
        sentence, lost = comparison.verdict(metrics, question)
        lines.append(page.paragraph(sentence, "verdict lost" if lost else "verdict"))
    lines.append(page.paragraph(diagnosis.alarms_sentence(results)))
    lines.append(page.paragraph(diagnosis.misfit_sentence(metrics.get("misfit"))))
    return "\n".join(filter(None, lines))


def _groups(metrics):
    """A table of the anomalous groups; one group alone is the headline again."""
    groups = metrics.get("groups", {})
    if len(groups) < 2:
        return ""
    keys = ("localization_auroc", "detection_auroc")
    rows = []
    for name in sorted(groups, key=natural):
        found = groups[name]
        cells = [page.interval(found[k]) if k in found else "" for k in keys]
        rows.append(("", [page.text(name), *cells]))
    head = ["", "localization", "detection, against id"]
    return page.section(
        "By group", page.table(head, rows, numeric=(1, 2), kind="narrow")
    )


def _curves(workdir, results, metrics):
    parts = []
    if "detection_auroc" in metrics:
        png = figures.roc_figure(results)
        write_atomically(workdir / "figures" / "roc.png", png)
        parts.append(page.picture(png, "ROC curves and scores by group"))
    if results:
        png = figures.density_figure(results)
        write_atomically(workdir / "figures" / "density.png", png)
        caption = (
            "Where along the noise levels the information sits, for each of the three "
            "maps: mean over images with its standard error, summed over the image."
        )
        parts.append(page.picture(png, "KL density against sigma", caption=caption))
    return page.section("Curves", *parts)


def _inline(results):
    """Choose the ids of the images whose figures are on the page."""
    if len(results) <= ALL:
        return {r.image_id for r in results}
    by_score = sorted(results, key=lambda r: -np.nan_to_num(r.score, nan=-np.inf))
    own = [r for r in by_score if r.group == "id"]
    spread = np.linspace(0, len(own) - 1, min(FEW, len(own))).round().astype(int)
    return {r.image_id for r in [*by_score[:MOST], *(own[i] for i in spread)]}


def _choice(results, inline, unit, order):
    shown = f"All {len(results)} images"
    if len(inline) < len(results):
        shown = (
            f"The {MOST} highest scores of {len(results)} images and in-distribution "
            "ones spread over their scores; the table links to the rest"
        )
    ordered = "highest score first" if order == "score" else "by name"
    return page.paragraph(
        f"{shown}, {ordered}. Images are shown in [0, 1]; the map in {unit}, on one "
        "colour scale for all images, so a calm map is a calm image.",
        "quiet",
    )


def _scores(results, inline):
    rows = []
    for r in results:
        link = f"#image-{r.image_id}" if r.image_id in inline else _file(r)
        p = page.text(figures.p_text(r.p_value).removeprefix("= "))
        p = p if np.isfinite(r.p_value) else ""
        score = figures.plus_minus(r.score, r.stderr)
        if r.first_bad_step >= 0:
            score += f", not finite from step {r.first_bad_step}"
        name = f'<a href="{page.text(link)}">{page.text(r.image_id)}</a>'
        rows.append(("", [name, page.text(r.group), page.text(score), p]))
    head = ["image", "group", "score", "p"]
    each = -(-len(rows) // 3) if len(rows) > 12 else max(1, len(rows))
    tables = [
        page.table(head, rows[i : i + each], numeric=(2, 3), kind="narrow")
        for i in range(0, len(rows), each)
    ]
    return f'<div class="columns">{"".join(tables)}</div>' if tables else ""


def _numbers(metrics):
    names = {
        "aupr": "AUPR, anomalous positive",
        "fpr95_ood_pos": "in-distribution flagged where 95 % of anomalous are",
        "fpr95_id_pos": "anomalous accepted where 95 % of in-distribution are",
    }
    found = {
        name: f"{metrics[key]:.3f}" for key, name in names.items() if key in metrics
    }
    pixel = metrics.get("pixel", {})
    names = {
        "auroc": "AUROC",
        "ap": "average precision",
        "prevalence": "prevalence of anomalous pixels",
        "aupro30": "AUPRO up to FPR 0.3",
        "aupro05": "AUPRO up to FPR 0.05",
        "dice_best": "best Dice, an oracle's threshold",
        "dice_fpr05_id": "Dice at 5 % of in-distribution pixels",
    }
    where = comparison.REGIONS.get(pixel.get("region"), "")
    found |= {
        f"pixels of {where}: {name}": f"{pixel[key]:.3f}"
        for key, name in names.items()
        if key in pixel
    }
    return found


def _settings(value):
    """Write a nested setting as "views 24, span 180.0"."""
    if not isinstance(value, dict):
        return str(value)
    inner = (
        f"{k} ({_settings(v)})" if isinstance(v, dict) else f"{k} {v}"
        for k, v in value.items()
    )
    return ", ".join(inner)


def _file(result):
    return f"figures/image_{result.image_id}.png"
