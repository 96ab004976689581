"""``esr figures``: the figures of the paper from training folders.

Authors
 * The esr_lobes contributors
"""

from pathlib import Path

from esr_lobes.devices import check_device
from esr_lobes.errors import MendableError
from esr_lobes.pages import did_you_mean
from esr_lobes.runs import HELD_OUT, RunFolder

DESCRIPTION = """\
Draws trainings beside each other, on the same test clips: recall by duration
(durations.png, as in Fig. 3 of Kang and Roy 2025) from their reports, and a
t-SNE of speech and text (embeddings.png, as in Fig. 4) with their retrievers.
Prints with the latter how far apart speech and text are: the distance of their
means, and how often a linear probe tells one from the other.

  esr figures results/Joint/roberta_e2v/1986 \\
      results/Joint/roberta_e2v-no_discriminator/1986 \\
      --test_set Expresso_test_read --out figures
"""


def add(commands):
    """Declares the command.

    Arguments
    ---------
    commands : argparse object
        Of ``add_subparsers``.
    """
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "figures",
        help="recall by duration and maps of several trainings",
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="output folder of a training"
    )
    parser.add_argument("--out", required=True, help="folder of the figures")
    parser.add_argument(
        "--test_set",
        default="test",
        help="which evaluation: a folder's name in RUN/evaluation (test)",
    )
    parser.add_argument(
        "--data_root",
        help="what $data_root in the manifest stands for; default: where the "
        "training's corpus lay",
    )
    parser.add_argument(
        "--bank",
        default="train",
        help="prompt bank of the map: train, held_out or a YAML file (train)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.set_defaults(run=run)


def run(options):
    """Draws the figures.

    Arguments
    ---------
    options : argparse.Namespace
        What the command line says.
    """
    from esr_lobes.plots import save_figure

    device = check_device(options.device)
    runs = _named(options.runs)
    out = Path(options.out)
    durations = _draw_durations(runs, options.test_set)
    save_figure(out / "durations.png", durations)
    print(f"Recall by duration: {out / 'durations.png'}")
    speaking = {}
    for name, training in runs.items():
        if training.retriever.is_dir():
            speaking[name] = training
        else:
            print(f"No map of {name}: it has no retriever.")
    if speaking:
        figure, table = _draw_maps(speaking, options, device)
        save_figure(out / "embeddings.png", figure)
        print(f"Speech and text: {out / 'embeddings.png'}\n\n{table}")


def _named(folders):
    """Folders by short names, which differ: page and seed, or the path."""
    names = ["/".join(Path(each).absolute().parts[-2:]) for each in folders]
    if len(set(names)) < len(names):
        names = [str(each) for each in folders]
    if len(set(names)) < len(names):
        raise MendableError("the same training is named twice: give each once")
    return dict(zip(names, map(RunFolder, folders), strict=True))


def _draw_durations(runs, test_set):
    """Bars of the trainings' own reports, judged on the same clips."""
    from esr_lobes.plots import duration_comparison
    from esr_lobes.published import read_report, system_of

    bins, judged = {}, {}
    for name, training in runs.items():
        path = training.evaluation(test_set) / "report.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no report at {path}: evaluate the training, or "
                "give another --test_set."
            )
        numbers = read_report(path)
        bins[name] = numbers["systems"][system_of(numbers)]["durations"]
        if not bins[name]:
            raise MendableError(f"{path} has no recall by duration")
        settings = numbers["settings"]
        keys = ("clips", "n_trials", "n_distractors", "duration_edges")
        judged[name] = [settings[key] for key in keys]
    first = next(iter(judged))
    for name, how in judged.items():
        if how != judged[first]:
            raise MendableError(
                f"{first} and {name} were not judged on the same clips, "
                "trials and bins: evaluate them alike"
            )
    return duration_comparison(bins, f"Recall by duration: {test_set}")


def _draw_maps(runs, options, device):
    """Maps of the same clips and prompts, and a table of their distances."""
    from esr_lobes import EncoderRetriever
    from esr_lobes.maps import embedding_maps
    from esr_lobes.modality import modality_gap, probe_accuracy
    from esr_lobes.prompts import PromptBank
    from esr_lobes.reports import markdown_table

    bank = PromptBank.load(options.bank, unique=False)
    rows = _same_rows(runs, options, bank)
    styles = sorted({row["style"] for row in rows})
    of_clip = [row["style"] for row in rows]
    panels, lines = {}, []
    for name, training in runs.items():
        retriever = EncoderRetriever.from_hparams(
            source=str(training.retriever), run_opts={"device": device}
        )
        clips, _ = retriever.encode_clips(rows)
        prompts = {
            style: retriever.encode_text(bank.prompts(style)).cpu().numpy()
            for style in styles
        }
        gap = modality_gap(clips, prompts)
        probe = probe_accuracy(clips, of_clip, prompts)
        title = f"{name}\ngap of means {gap:.3f}, probe right in {probe:.1%}"
        panels[title] = (clips.numpy(), prompts)
        lines.append([name, str(len(clips)), f"{gap:.4f}", f"{probe:.4f}"])
    header = ["", "clips", "gap of means", "probe's accuracy"]
    return embedding_maps(panels, of_clip), markdown_table(header, lines)


def _same_rows(runs, options, bank):
    """The test clips, which must be the same in all trainings."""
    wanted = options.test_set.removesuffix(HELD_OUT)
    rows = {}
    for name, run in runs.items():
        sets = run.test_sets(bank.styles, options.data_root)
        if wanted not in sets:
            raise MendableError(
                f"{name} has no test clips {options.test_set!r} for a map; "
                + did_you_mean(options.test_set, sets)
            )
        rows[name] = sets[wanted]
    first = next(iter(rows))
    for name, of_run in rows.items():
        if _ids(of_run) != _ids(rows[first]):
            raise MendableError(
                f"{first} and {name} have different test clips: only "
                "trainings with the same can be drawn together"
            )
    return rows[first]


def _ids(rows):
    return [row["ID"] for row in rows]
