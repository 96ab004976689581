"""A page is checked whole: misspelt keys do not pass at any depth.

Authors
 * The esr_lobes contributors
"""

import math

import pytest

from esr_lobes.pages import PageError, flatten_page, load_page

PAGE = """
seed: 1
lr: 0.1
weights: {style: 0.5, contrast: 1.0}
data_folder: here
is_fast: False
actors: [1]
rate: !name:math.sqrt
chain: !new:collections.Counter [[1, 2]]
recipe: !include:parts/recipe.yaml
    encoder: !include:parts/encoder.yaml {}
    lr: !ref <lr>
modules: !ref <recipe[modules]>
"""
RECIPE = """
# The page gives: encoder, lr.  A comment may name <nothing>.
width: 4
head: !new:torch.nn.Linear
    in_features: !ref <encoder[width]>
    out_features: !ref <width>
modules:
    encoder: !ref <encoder[model]>
    head: !ref <head>
optimizer: !name:torch.optim.AdamW
    lr: !ref <lr>
"""
ENCODER = """
width: 3
model: !new:torch.nn.Linear
    in_features: 2
    out_features: !ref <width>
"""


@pytest.fixture
def page(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "page.yaml").write_text(PAGE)
    (tmp_path / "parts" / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "parts" / "encoder.yaml").write_text(ENCODER)
    return tmp_path / "page.yaml"


def test_parts_give_the_same_objects_everywhere(page):
    hparams, _ = load_page(page)
    recipe = hparams["recipe"]
    assert hparams["modules"]["head"] is recipe["head"]
    assert hparams["modules"]["encoder"] is recipe["encoder"]["model"]
    assert recipe["head"].in_features == 3
    assert recipe["optimizer"].keywords == {"lr": 0.1}


@pytest.mark.parametrize(
    "overrides",
    [
        "recipe: {encoder: {width: 7}}",
        "recipe: {encoder: {model: {out_features: 7}, width: 7}}",
        {"recipe": {"encoder": {"width": 7}}},
    ],
)
def test_overrides_reach_into_parts(page, overrides):
    hparams, _ = load_page(page, overrides)
    assert hparams["modules"]["encoder"].out_features == 7
    assert hparams["modules"]["head"].in_features == 7


@pytest.mark.parametrize(
    "overrides, key, expected",
    [
        ("weights: null", "weights", None),
        ("lr: null", "lr", None),
        ("lr: 1e-3", "lr", 0.001),
        ("lr: !ref <seed>", "lr", 1),
        ("weights: !ref <seed>", "weights", 1),
        ("data_folder: 2024", "data_folder", 2024),
        ("weights: !new:collections.Counter {a: 2}", "weights", {"a": 2}),
        ("rate: null", "rate", None),
        ("rate: !name:math.exp", "rate", math.exp),
        ("chain: !new:collections.Counter {b: 1}", "chain", {"b": 1}),
    ],
)
def test_null_and_tags_may_stand_for_anything(page, overrides, key, expected):
    assert load_page(page, overrides)[0][key] == expected


def test_the_flat_page_loads_alone(page, tmp_path):
    _, flat = load_page(page, "lr: 0.3")
    alone = tmp_path / "elsewhere" / "flat.yaml"
    alone.parent.mkdir()
    alone.write_text(flat)
    assert "!include" not in flat and "!ref" not in flat
    hparams, _ = load_page(alone)
    assert hparams["recipe"]["optimizer"].keywords == {"lr": 0.3}
    assert hparams["modules"]["head"] is hparams["recipe"]["head"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        ("lrr: 1", "page.yaml: no key 'lrr'; did you mean 'lr'"),
        ("weights: {stile: 1}", "weights: no key 'stile'.*'style'"),
        ("recipe: {wdith: 1}", "recipe.yaml: recipe: no key 'wdith'.*'width'"),
        ("recipe: {encoder: {wide: 1}}", "encoder.yaml: .*no key 'wide'"),
        (
            "recipe: {encoder: {model: {out_feature: 1}}}",
            "no key 'out_feature' in torch.nn.Linear.*'out_features'",
        ),
        ("recipe: {optimizer: {rate: 1}}", "no key 'rate' in torch.optim"),
        ("[1, 2]", "no keys and values"),
        ("a: {", "no valid YAML"),
        ("lr: 1\nlr: 2", "no valid YAML: found duplicate key .*line 2.$"),
        ("weights: 3", "page.yaml: weights must be keys and values, not a num"),
        ("weights: [1]", "weights must be keys and values, not a list"),
        ("recipe: 3", "page.yaml: recipe must be keys and values"),
        ("recipe: {encoder: 3}", "recipe: encoder must be keys and values"),
        ("recipe: {head: 3}", "recipe.yaml: recipe: head must be keys and val"),
        ("recipe: {width: wide}", "recipe: width must be a number, not text"),
        ("lr: abc", "page.yaml: lr must be a number, not text: abc"),
        ("lr: True", "lr must be a number, not True or False: True"),
        ("is_fast: no", "is_fast must be True or False, not text: no"),
        ("actors: 3", "actors must be a list, not a number"),
        ("data_folder: [1]", "data_folder must be text, not a list"),
        (
            "recipe: !include:parts/recipe.yaml 3",
            "takes keys and values, not 3",
        ),
        ("recipe: !include:parts/recipe.yaml [1]", "takes keys and values"),
        ("recipe: !include:parts/recipe.yaml", "recipe.yaml needs encoder, lr"),
        ("recipe: {width: -1}", "page.yaml: .*negative dimension"),
        ("rate: {warmup: 0.2}", "rate is !name:math.sqrt, .*not keys and val"),
        ("rate: 3", "rate is !name:math.sqrt, .*'!new:package.Class"),
        ("chain: [1]", "chain is !new:collections.Counter, .*not a list"),
    ],
)
def test_misspelt_and_unfit_overrides_are_refused(page, overrides, message):
    with pytest.raises(PageError, match=message):
        load_page(page, overrides)


def test_misspelt_keys_of_the_page_itself_are_refused(page):
    text = page.read_text()
    page.write_text(text.replace("    lr: !ref", "    lrate: !ref"))
    with pytest.raises(PageError, match="no key 'lrate'"):
        load_page(page)
    page.write_text(text.replace("    lr: !ref <lr>\n", ""))
    with pytest.raises(PageError, match="needs lr"):
        load_page(page)
    page.write_text(text.replace("<recipe[modules]>", "<recipe[modulse]>"))
    with pytest.raises(PageError, match="recipe\\[modulse\\].*not valid"):
        load_page(page)


def test_a_class_that_is_not_there_is_named(page):
    page.write_text(page.read_text() + "x: !new:torch.nn.Linaer {a: 1}\n")
    with pytest.raises(PageError, match="there is no torch.nn.Linaer"):
        load_page(page)


def test_what_a_page_leaves_open_must_be_given(page):
    page.write_text(page.read_text().replace("here", "!PLACEHOLDER"))
    with pytest.raises(PageError, match="--data_folder"):
        load_page(page)
    load_page(page, "data_folder: there")


def test_a_recipe_lays_its_keys_over_the_page(page, tmp_path):
    corpus = tmp_path / "corpus.yaml"
    corpus.write_text("data_folder: !ref corpora/<seed>\nactors: [1, 2]\n")
    hparams, flat = load_page(page, "actors: [3]", corpus)
    assert hparams["data_folder"] == "corpora/1"
    assert list(hparams["actors"]) == [3]
    with pytest.raises(PageError, match="no key 'actor'"):
        load_page(page, "actor: [3]", corpus)
    for key in ("base", "variant"):  # it would be read by nobody
        corpus.write_text(f"{key}: page.yaml\n")
        with pytest.raises(PageError, match=f"corpus.yaml .* no '{key}'"):
            load_page(page, corpus=corpus)


def test_a_page_is_flat_without_being_built(page):
    page.write_text(page.read_text() + "x: !new:fractions.Fraction [1, 0]\n")
    flat = flatten_page(page, "lr: 0.3")
    assert "!include" not in flat and "lr: 0.3" in flat
    with pytest.raises(PageError, match="page.yaml: Fraction"):
        load_page(page, "lr: 0.3")


def test_an_alias_keeps_its_values(page):
    """It once changed along with the mapping whose values it had."""
    text = "x: &d {a: 1, b: {c: 2}}\ny: *d\nz: {<<: *d, e: 3}\n"
    page.write_text(text)
    hparams, _ = load_page(page, "x: {a: 5, b: {c: 6}}\nz: {e: 4}")
    assert hparams["x"] == {"a": 5, "b": {"c": 6}}
    assert hparams["y"] == {"a": 1, "b": {"c": 2}}
    assert hparams["z"] == {"a": 1, "b": {"c": 2}, "e": 4}


@pytest.mark.parametrize("other", ["!ref <x>", "*d"])
def test_an_object_named_twice_stays_one(page, other):
    page.write_text(f"x: &d !new:collections.Counter {{a: 1}}\ny: {other}\n")
    hparams, _ = load_page(page, "x: {a: 5}")
    assert hparams["x"] is hparams["y"] and hparams["x"]["a"] == 5


def test_missing_empty_and_broken_pages(tmp_path):
    with pytest.raises(FileNotFoundError, match="no page at"):
        load_page(tmp_path / "none.yaml")
    for text, message in [
        ("", "empty"),
        ("- 1", "no map"),
        ("a: [", "no valid"),
    ]:
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(PageError, match=message):
            load_page(path)


BASE = """
name: !PLACEHOLDER
lr: 0.1
weights: {style: 0.5, contrast: 1.0}
encoder: !PLACEHOLDER
head: !new:torch.nn.Linear
    in_features: !ref <encoder[width]>
    out_features: 4
modules:
    head: !ref <head>
"""
MIDDLE = """
base: bases/base.yaml
scale: 2
modules:
    encoder: !ref <encoder[model]>
"""
LEAF = """
base: bases/middle.yaml
name: leaf
lr: 0.2
weights: {contrast: 2.0}
encoder: !include:parts/encoder.yaml {}
"""


@pytest.fixture
def leaf(page):
    folder = page.parent
    for name in ("bases", "variants"):
        (folder / name).mkdir()
    (folder / "bases" / "base.yaml").write_text(BASE)
    (folder / "bases" / "middle.yaml").write_text(MIDDLE)
    (folder / "leaf.yaml").write_text(LEAF)
    (folder / "variants" / "slow.yaml").write_text("lr: 0.01\n")
    (folder / "variants" / "no_style.yaml").write_text("weights: {style: 0}\n")
    return folder / "leaf.yaml"


def test_a_page_changes_its_base_and_a_base_adds_to_its_own(leaf):
    hparams, flat = load_page(leaf)
    assert hparams["lr"] == 0.2 and hparams["scale"] == 2
    assert hparams["weights"] == {"style": 0.5, "contrast": 2.0}
    assert hparams["modules"]["head"].in_features == 3
    assert set(hparams["modules"]) == {"head", "encoder"}
    assert "base" not in hparams and "base:" not in flat


def test_a_page_may_not_misspell_what_its_base_says(leaf):
    leaf.write_text(LEAF + "lrr: 1\n")
    with pytest.raises(PageError, match="leaf.yaml: no key 'lrr'; did you m"):
        load_page(leaf)


def test_a_base_that_is_not_there_is_named(leaf):
    leaf.write_text("base: bases/bas.yaml\n")
    with pytest.raises(FileNotFoundError, match="bas.yaml"):
        load_page(leaf)


def test_a_base_that_leads_back_to_itself_is_named(leaf):
    middle = leaf.parent / "bases" / "middle.yaml"
    middle.write_text("base: leaf.yaml\n")
    names = "leaf.yaml -> middle.yaml -> leaf.yaml"
    with pytest.raises(PageError, match=names):
        load_page(leaf)
    middle.write_text("base: bases/../bases/middle.yaml\n")
    with pytest.raises(PageError, match=": .*middle.yaml -> middle.yaml$"):
        load_page(leaf)


def test_an_open_place_of_the_base_is_asked_for(leaf):
    leaf.write_text(LEAF.replace("name: leaf\n", ""))
    with pytest.raises(PageError, match="--name VALUE"):
        load_page(leaf)


def test_variants_lie_between_page_and_command_line(leaf):
    hparams, _ = load_page(leaf, "variant: slow+no_style")
    assert hparams["name"] == "leaf-slow-no_style"
    assert hparams["lr"] == 0.01 and hparams["weights"]["style"] == 0
    hparams, _ = load_page(leaf, "variant: slow\nlr: 3")
    assert hparams["lr"] == 3
    assert "variant" not in hparams
    hparams, _ = load_page(leaf, "variant: slow\nname: mine")
    assert hparams["name"] == "mine" and hparams["lr"] == 0.01


@pytest.mark.parametrize(
    "variant, message",
    [
        ("slow+slow", "variant 'slow' is asked for twice"),
        ("[slow, no_style]", "several as a.b, not .*slow"),
        ("{slow: 1}", "variant is one name, or several"),
    ],
)
def test_variants_are_distinct_names(leaf, variant, message):
    with pytest.raises(PageError, match=message):
        load_page(leaf, f"variant: {variant}")


@pytest.mark.parametrize("name", ["", "name: !PLACEHOLDER\n"])
def test_a_variant_needs_a_page_with_a_name(leaf, name):
    leaf.write_text(name + "lr: 1.0\n")
    with pytest.raises(PageError, match="leaf.yaml has no name"):
        load_page(leaf, "variant: slow")


def test_a_variant_that_is_not_there_is_named(leaf):
    with pytest.raises(PageError, match="no variant 'slo'.*mean 'slow'"):
        load_page(leaf, "variant: slo")


def test_a_variant_may_not_add_keys(leaf):
    (leaf.parent / "variants" / "slow.yaml").write_text("lrr: 1\n")
    with pytest.raises(PageError, match="slow.yaml: no key 'lrr'"):
        load_page(leaf, "variant: slow")


def test_weights_are_drawn_behind_the_seed(leaf):
    """Parts are built first, and once came before it."""
    seed = "__set_seed: !apply:torch.manual_seed [!ref <scale>]\n"
    path = leaf.parent / "bases" / "middle.yaml"
    path.write_text(MIDDLE + seed)
    weights = []
    for _ in range(2):
        encoder = load_page(leaf)[0]["modules"]["encoder"]
        weights.append(encoder.weight.detach().clone())
    assert weights[0].equal(weights[1])
