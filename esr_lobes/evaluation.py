"""One call from embeddings to a report of how well styles are found.

`evaluate` takes embeddings of clips and of prompts, or ready scores such as
the logits of a classifier, and counts everything the report shows: Recall@k
in trials, rankings of the whole corpus with confidence intervals, single
prompts, recall by duration, and beside them chance and random embeddings.
All systems go through the same trials. `evaluate_retriever` embeds first.

Authors
 * The esr_lobes contributors
"""

import numpy as np

from esr_lobes.bootstrap import bootstrap_ranking, bootstrap_recall
from esr_lobes.metrics import (
    DURATION_EDGES,
    as_array,
    chance_metrics,
    chance_recall,
    mean_over_styles,
    rank_styles,
    ranking_metrics,
    recall_by_duration,
    relevant_positions,
    score_clips,
    unit_rows,
)
from esr_lobes.reports import FORMAT, Report, mean_name
from esr_lobes.trials import (
    DEFAULT_KS,
    evaluate_trials,
    make_trials,
)

CONFIDENCE = 0.95


def evaluate(
    clip_embeddings,
    rows,
    prompt_embeddings=None,
    prompt_texts=None,
    scores=None,
    trials=None,
    styles=None,
    n_trials=1000,
    n_distractors=400,
    seed=42,
    ks=DEFAULT_KS,
    n_resamples=1000,
    duration_edges=DURATION_EDGES,
    duration_ks=(1, 5),
):
    """Returns the report of some embeddings, or of ready scores, or both.

    The order of the rows does not matter. A clip's score for a style is the
    mean cosine with all prompts of the style.

    Arguments
    ---------
    clip_embeddings : array or torch.Tensor
        Embeddings of shape [clip, dimension]; None if only scores are given.
    rows : list of dict
        Manifest rows of the clips; `ID`, `style` and `duration` are used.
    prompt_embeddings : dict
        Bank to style to embeddings of shape [prompt, dimension]. A bank
        named `train` and one named `held_out` are also compared.
    prompt_texts : dict
        Bank to style to the texts of those prompts, to name the worst one.
    scores : dict
        Name of a system, such as a classifier, to style to the score of
        each clip in the order of `rows`; more is better.
    trials : Trials
        Trials to use; by default they are made with the next numbers.
    styles : list of str
        Styles to search for; by default all that the rows have.
    n_trials : int
        Trials of each style.
    n_distractors : int
        Clips of other styles in a trial.
    seed : int
        Start of the trials' draws, the resampling and the random row.
    ks : tuple of int
        Ranks that count as found.
    n_resamples : int
        Draws behind a confidence interval; 0 leaves them out.
    duration_edges : tuple of float
        Where a new bin of durations begins, in seconds.
    duration_ks : tuple of int
        Ranks that count as found in the bins.

    Returns
    -------
    Report
        The figures.

    Raises
    ------
    ValueError
        If numbers or shapes do not fit, a vector is not finite or is zero,
        or there is nothing to evaluate.

    Example
    -------
    >>> rows = [{"ID": "a", "style": "sad", "duration": 1.0},
    ...         {"ID": "b", "style": "happy", "duration": 2.0}]
    >>> banks = {"train": {"sad": [[1.0, 0.0]], "happy": [[0.0, 1.0]]}}
    >>> report = evaluate([[0.9, 0.1], [0.2, 0.7]], rows, banks)
    >>> report.numbers["systems"]["train"]["macro"]["R@1"]
    1.0
    """
    rows = list(rows)
    if not rows:
        raise ValueError("there are no clips to evaluate")
    order = sorted(range(len(rows)), key=lambda i: str(rows[i]["ID"]))
    rows = [rows[i] for i in order]
    clip_ids = [str(row["ID"]) for row in rows]
    clip_styles = [str(row["style"]) for row in rows]
    if trials is None:
        trials = make_trials(rows, n_trials, n_distractors, seed, styles)
    _check_trials(trials, clip_ids, clip_styles)
    wanted = trials.styles if styles is None else sorted(styles)
    wanted = [style for style in wanted if style in trials.targets]
    clips, prompts, system_scores = None, {}, {}
    if clip_embeddings is not None:
        clips = as_array(clip_embeddings)
        if len(clips) != len(rows):
            raise ValueError(
                f"{len(clips)} embeddings for {len(rows)} clips; each row "
                "of the manifest needs one"
            )
        clips = unit_rows(clips[order], "clip", clip_ids)
    for bank, of_style in (prompt_embeddings or {}).items():
        if clips is None:
            raise ValueError(f"prompts of {bank!r} need embeddings of clips")
        prompts[bank] = {
            style: unit_rows(of_style[style], f"{bank} prompt of {style}")
            for style in wanted
            if style in of_style
        }
        system_scores[bank] = {
            style: score_clips(clips, of_unit.mean(axis=0))
            for style, of_unit in prompts[bank].items()
        }
    for name, of_style in (scores or {}).items():
        if name in system_scores:
            raise ValueError(f"{name!r} is the name of a bank and of scores")
        system_scores[name] = {
            style: _ordered(of_style[style], order, name, style)
            for style in wanted
            if style in of_style
        }
    if not system_scores:
        raise ValueError("give prompts or scores to evaluate")

    judge = _Judge(
        rows, trials, ks, n_resamples, seed, duration_edges, duration_ks
    )
    systems = {}
    for name, of_style in system_scores.items():
        if not of_style:
            raise ValueError(
                f"{name!r} knows none of the styles {', '.join(wanted)}"
            )
        systems[name] = judge(of_style)
        systems[name]["skipped"] = {
            **trials.skipped,
            **{s: "no query" for s in wanted if s not in of_style},
        }
        if name in prompts:
            texts = (prompt_texts or {}).get(name)
            systems[name]["single_prompts"] = _single_prompts(
                clips, clip_styles, prompts[name], texts
            )
    # One random row and one chance row serve all, for the styles that some
    # system knows.
    known = [s for s in wanted if any(s in of for of in system_scores.values())]
    numbers = {
        "format": FORMAT,
        "settings": {
            "clips": len(rows),
            "styles": sorted(set(clip_styles)),
            "styles_searched": known,
            "n_trials": trials.n_trials,
            "n_distractors": trials.n_distractors,
            "candidates": {s: trials.n_candidates(s) for s in known},
            "trials_seed": trials.seed,
            "seed": seed,
            "ks": list(ks),
            "n_resamples": n_resamples,
            "confidence": CONFIDENCE,
            "duration_edges": [float(edge) for edge in duration_edges],
        },
        "systems": systems,
        "random": judge(_random_scores(len(rows), known, clips, seed)),
        "chance": judge.chance(known),
        "ratios": _ratios(systems),
        "left_out": [],
    }
    return Report(
        numbers, trials, clips, tuple(clip_styles), prompts, system_scores
    )


def evaluate_retriever(
    retriever, rows, banks, out_folder=None, encode_options=None, **settings
):
    """Embeds clips and prompts with a retriever, and evaluates them.

    Arguments
    ---------
    retriever : EncoderRetriever
        Has `encode_clips(rows)`, which returns embeddings and the rows they
        are of, and `encode_text(list)`.
    rows : list of dict
        Manifest rows of the clips.
    banks : list of PromptBank
        Banks to ask with; their names become the names of the systems.
    out_folder : str
        Where to save the report; None saves nothing.
    encode_options : dict
        Further arguments of `encode_clips`, such as `on_error="skip"`; clips
        left out are named in the report.
    settings
        Further arguments of `evaluate`.

    Returns
    -------
    Report
        The figures.
    """
    rows = list(rows)
    embeddings, kept = retriever.encode_clips(rows, **(encode_options or {}))
    present = {str(row["style"]) for row in kept}
    if settings.get("styles") is not None:
        present &= set(settings["styles"])
    texts, prompts = {}, {}
    for bank in banks:
        if bank.name in texts:
            raise ValueError(f"two prompt banks are named {bank.name!r}")
        shared = sorted(present & set(bank.styles))
        texts[bank.name] = {style: bank.prompts(style) for style in shared}
        prompts[bank.name] = {
            style: retriever.encode_text(of_style)
            for style, of_style in texts[bank.name].items()
        }
    report = evaluate(embeddings, kept, prompts, texts, **settings)
    left_out = {str(row["ID"]) for row in rows} - {
        str(row["ID"]) for row in kept
    }
    report.numbers["left_out"] = sorted(left_out)
    if out_folder is not None:
        report.save(out_folder)
    return report


class _Judge:
    """Counts the figures of one system's scores on the trials of all."""

    def __init__(
        self, rows, trials, ks, n_resamples, seed, duration_edges, duration_ks
    ):
        self.clip_ids = [str(row["ID"]) for row in rows]
        self.clip_styles = [str(row["style"]) for row in rows]
        self.trials = trials
        self.ks = tuple(ks)
        self.resampling = dict(
            n_resamples=n_resamples, confidence=CONFIDENCE, seed=seed
        )
        self.edges = duration_edges
        self.duration_ks = duration_ks
        seconds = {str(row["ID"]): row.get("duration") for row in rows}
        is_timed = all(value is not None for value in seconds.values())
        self.seconds = seconds if is_timed else None

    def __call__(self, scores):
        """The figures of scores by style, as a dict ready for JSON."""
        found = evaluate_trials(
            self.trials, scores, self.clip_ids, self.ks, scores
        )
        ranking = rank_styles(scores, self.clip_styles)
        per_style = {
            style: {
                "clips": self.clip_styles.count(style),
                **{f"R@{k}": found.recall[style][k] for k in self.ks},
                **ranking[style],
            }
            for style in sorted(scores)
        }
        result = {
            "macro": _macro(per_style),
            "per_style": per_style,
            "durations": [],
        }
        if self.seconds is not None:
            result["durations"] = recall_by_duration(
                found.ranks,
                self.trials.targets,
                [float(self.seconds[name]) for name in self.trials.clip_ids],
                self.edges,
                self.duration_ks,
            )
        if self.resampling["n_resamples"]:
            by_style, macro = bootstrap_ranking(
                scores, self.clip_styles, **self.resampling
            )
            _, recalls = bootstrap_recall(
                found.ranks, self.trials.targets, self.ks, **self.resampling
            )
            result["interval"] = {
                **{f"R@{k}": list(recalls[k]) for k in self.ks},
                **{mean_name(key): list(macro[key]) for key in macro},
            }
            for style, intervals in by_style.items():
                per_style[style]["AP_interval"] = list(intervals["AP"])
        return result

    def chance(self, styles):
        """What random scores are expected to give."""
        n_clips = len(self.clip_ids)
        per_style = {}
        for style in styles:
            n_candidates = self.trials.n_candidates(style)
            n_own = self.clip_styles.count(style)
            recalls = {
                f"R@{k}": chance_recall(n_candidates, k) for k in self.ks
            }
            per_style[style] = {
                "clips": n_own,
                **recalls,
                **chance_metrics(n_own, n_clips),
            }
        return {"macro": _macro(per_style), "per_style": per_style}


def _single_prompts(clips, clip_styles, prompts, texts):
    """Average precision of each prompt alone: mean, best and worst."""
    of_clip = np.array(clip_styles, dtype=object)
    per_style = {}
    for style, vectors in prompts.items():
        if texts is not None and len(texts.get(style, ())) != len(vectors):
            raise ValueError(
                f"{len(texts.get(style, ()))} texts for {len(vectors)} "
                f"prompts of {style!r}"
            )
        scores = score_clips(clips, vectors).T
        positions = relevant_positions(scores, of_clip == style)
        values = ranking_metrics(positions)["AP"]

        def named(place, values=values, style=style):
            return {
                "style": style,
                "prompt": texts[style][place] if texts else f"number {place}",
                "AP": float(values[place]),
            }

        per_style[style] = {
            "prompts": len(values),
            "mean_AP": float(values.mean()),
            "best": named(int(values.argmax())),
            "worst": named(int(values.argmin())),
        }
    by_ap = {
        which: [each[which] for each in per_style.values()]
        for which in ("best", "worst")
    }
    return {
        "mAP": float(np.mean([each["mean_AP"] for each in per_style.values()])),
        "worst_mAP": float(np.mean([each["AP"] for each in by_ap["worst"]])),
        "best_mAP": float(np.mean([each["AP"] for each in by_ap["best"]])),
        "best": max(by_ap["best"], key=lambda each: each["AP"]),
        "worst": min(by_ap["worst"], key=lambda each: each["AP"]),
        "per_style": per_style,
    }


def _ratios(systems):
    """How much of the training bank's mAP is left with other banks."""
    if "train" not in systems:
        return {}
    train = systems["train"]["per_style"]
    ratios = {}
    for name, system in systems.items():
        shared = [style for style in system["per_style"] if style in train]
        if name == "train" or "single_prompts" not in system or not shared:
            continue
        before = np.mean([train[style]["AP"] for style in shared])
        after = np.mean([system["per_style"][s]["AP"] for s in shared])
        ratios[f"mAP {name} / train"] = float(after / before)
    return ratios


def _random_scores(n_clips, styles, clips, seed):
    """Cosines of random unit vectors in place of clips and queries."""
    width = 256 if clips is None else clips.shape[1]
    rng = np.random.Generator(np.random.PCG64(seed))
    vectors = rng.standard_normal((n_clips + len(styles), width))
    vectors = unit_rows(vectors, "random vector")
    return {
        style: score_clips(vectors[:n_clips], vectors[n_clips + i])
        for i, style in enumerate(styles)
    }


def _check_trials(trials, clip_ids, clip_styles):
    """Refuses trials that call a clip by another style than the rows do."""
    of_row = dict(zip(clip_ids, clip_styles, strict=True))
    for name, style in zip(trials.clip_ids, trials.clip_styles, strict=True):
        if of_row.get(name, style) != style:
            raise ValueError(
                f"clip {name!r} is {style!r} in the trials and "
                f"{of_row[name]!r} in the manifest; make the trials again"
            )


def _ordered(values, order, name, style):
    """One system's scores for one style, in the order of clip names."""
    values = as_array(values)
    if values.shape != (len(order),):
        raise ValueError(
            f"scores of {name!r} for {style!r} have shape {values.shape}; "
            f"there are {len(order)} clips"
        )
    return values[order]


def _macro(per_style):
    """Means over styles under the names of the tables."""
    means = mean_over_styles(per_style)
    return {mean_name(key): means[key] for key in means if key != "clips"}
