import pytest
import yaml

from mtlrank.errors import ConfigError
from pipelines.mtl_ranking import mtl_ranking
from pipelines.package import load, opened


def test_a_pipeline_is_found_by_its_file():
    assert load("mtl_ranking") is mtl_ranking


@pytest.mark.parametrize(
    ("name", "words"), [("mtl_rankin", "Did you mean 'mtl_ranking'?"), ("compile", "Expected one of: mtl_ranking")]
)
def test_another_name_lists_the_pipelines(name, words):
    with pytest.raises(ConfigError) as caught:
        load(name)
    assert words in str(caught.value)


def test_a_file_declares_what_its_pipeline_does(package):
    with opened("mtl_ranking", None) as compiled, opened("", package) as read:
        assert compiled.documents() == read.documents()
        assert compiled.name == read.name == "mtl-ranking"
        assert set(compiled.inputs) == set(read.inputs)
        assert {key: spec.optional for key, spec in read.inputs.items()} == dict.fromkeys(compiled.inputs, True)


@pytest.mark.parametrize("text", ["", "a: [", "components: {}", "- 1", None])
def test_a_file_that_is_no_pipeline_is_one_line(tmp_path, text):
    file = tmp_path / "file.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match="is not a compiled pipeline") as caught, opened("", file):
        pass
    assert "make pipeline" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "tag"),
    [
        (["r.example.com:5000/mtlrank:0.1.0-gabc"], "0.1.0-gabc"),
        (["r.example.com:5000/mtlrank"], None),
        (["mtlrank"], None),
        (["mtlrank:1", "mtlrank:2"], None),
        (["{{$.inputs.parameters['image']}}"], None),
    ],
)
def test_the_tag_of_the_image(package, tmp_path, images, tag):
    spec, *platform = yaml.safe_load_all(package.read_text())
    for number, executor in enumerate(spec["deploymentSpec"]["executors"].values()):
        executor["container"]["image"] = images[number % len(images)]
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump_all([spec, *platform]))
    with opened("", file) as read:
        assert read.image_tag() == tag


@pytest.mark.parametrize("enabled", [True, False])
def test_caching_is_set_for_every_step(package, enabled):
    """In pipelines within the pipeline too; nothing else changes."""
    with opened("", package) as read, opened("", package, enabled) as other:
        changed = other.documents()
        assert options(changed) == {"enableCache": enabled} if enabled else not options(changed)
        forget(changed)
        assert changed == forget(read.documents())


def tasks(documents):
    for component in (documents[0]["root"], *documents[0]["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).values()


def options(documents):
    """The caching options of all tasks, which must be the same."""
    found = [task["cachingOptions"] for task in tasks(documents)]
    assert len(found) > 5
    assert all(each == found[0] for each in found)
    return found[0]


def forget(documents):
    for task in tasks(documents):
        task.pop("cachingOptions", None)
    return documents
