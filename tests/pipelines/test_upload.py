import re

import pytest
import yaml

from pipelines.upload import app


@pytest.fixture
def tagged(package, tmp_path):
    """The pipeline on an image of some tag."""

    def write(tag):
        path = tmp_path / f"{tag}.yaml"
        path.write_text(re.sub(r"image: \S+", f"image: mtlrank:{tag}", package.read_text()))
        return path

    return write


def names(things):
    return [thing["display_name"] for thing in things.values()]


def test_a_new_pipeline_has_one_version_called_as_the_tag(server, invoke, tagged):
    result = invoke(app, "--package", tagged("0.1.0-gabc"))
    assert result.exit_code == 0, result.output
    assert names(server.store.pipelines) == ["mtl-ranking"]
    assert names(server.store.versions) == ["0.1.0-gabc"]
    version = server.only("versions")
    assert "uploaded mtl-ranking, version 0.1.0-gabc" in result.stdout
    assert f"#/pipelines/details/{version['pipeline_id']}/version/{version['pipeline_version_id']}" in result.stdout
    sent = [version["pipeline_spec"][part] for part in ("pipeline_spec", "platform_spec")]
    assert sent == list(yaml.safe_load_all(tagged("0.1.0-gabc").read_text()))


def test_the_same_again_says_so(server, invoke, tagged):
    for _ in range(2):
        result = invoke(app, "--package", tagged("1"))
        assert result.exit_code == 0, result.output
    assert "mtl-ranking has this version already: 1" in result.stdout
    assert names(server.store.versions) == ["1"]


def test_another_tag_is_another_version_of_the_pipeline(server, invoke, tagged):
    for tag in ("1", "2", "3", "2"):
        assert invoke(app, "--package", tagged(tag)).exit_code == 0
    assert names(server.store.pipelines) == ["mtl-ranking"]
    assert names(server.store.versions) == ["1", "2", "3"]


def test_a_version_does_not_change(server, invoke, tagged):
    invoke(app, "--package", tagged("1"), "--version", "stable")
    result = invoke(app, "--package", tagged("2"), "--version", "stable")
    assert result.exit_code == 2
    assert "has a version stable already, with other content" in result.stderr
    assert "mtlrank:1" in str(server.only("versions")["pipeline_spec"])


def test_the_platforms_part_counts(server, invoke, tagged):
    """Node selectors, secrets and the like are in a document of their own."""
    path = tagged("1")
    assert [invoke(app, "--package", path).exit_code for _ in range(2)] == [0, 0]
    spec, platform = yaml.safe_load_all(path.read_text())
    platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]["imagePullPolicy"] = "Always"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    assert invoke(app, "--package", path).exit_code == 2
    assert [invoke(app, "--package", path, "--version", "2").exit_code for _ in range(2)] == [0, 0]


def test_which_kfp_compiled_it_does_not_matter(server, invoke, tagged):
    path = tagged("1")
    invoke(app, "--package", path)
    text = path.read_text()
    assert "sdkVersion: kfp-" in text
    path.write_text(text.replace("sdkVersion: kfp-", "sdkVersion: kfp-9"))
    assert invoke(app, "--package", path).exit_code == 0


def test_a_pipeline_without_a_tag_needs_a_version(server, invoke, package, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(re.sub(r"image: \S+", "image: mtlrank", package.read_text()))
    result = invoke(app, "--package", path)
    assert result.exit_code == 2
    assert "--version" in result.stderr
    assert server.log == []
    assert invoke(app, "--package", path, "--version", "1", "--name", "try").exit_code == 0
    assert names(server.store.pipelines) == ["try"]


def test_an_upload_that_was_cut_off_is_finished_by_the_next(server, invoke, tagged):
    server.fail("upload_version", "lose")
    assert invoke(app, "--package", tagged("1")).exit_code == 7
    assert invoke(app, "--package", tagged("1")).exit_code == 0
    assert names(server.store.versions) == ["1"]
