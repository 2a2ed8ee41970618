"""Is TAR at FAR what counting pairs one by one gives, and are templates pooled a medium at a time?"""

import argparse
import json

import numpy as np
import pytest
from evaluation_data import command

from retinaface_tf.evaluation.verification import (
    evaluate_verification,
    pair_similarities,
    pool_templates,
    tar_at_far,
    wilson_interval,
)


def test_tar_by_hand():
    similarities = [0.9, 0.8, 0.4, 0.2, 0.85, 0.5, 0.3, 0.1]
    same = [1, 1, 1, 1, 0, 0, 0, 0]
    rows = tar_at_far(similarities, same, [0.1, 0.25, 0.5])
    assert [row["tar"] for row in rows] == [0.25, 0.5, 0.75]  # above 0.85, 0.5 and 0.3
    assert [row["false_accepts"] for row in rows] == [0, 1, 2]
    assert [row["measurable"] for row in rows] == [False, True, True]


@pytest.mark.parametrize("seed", range(5))
def test_tar_is_the_best_that_any_threshold_reaches(seed):
    rng = np.random.default_rng(seed)
    similarities = rng.integers(0, 40, 300) / 40  # with ties
    same = rng.random(300) < 0.3
    for far, row in zip((0.01, 0.1, 0.37), tar_at_far(similarities, same, [0.01, 0.1, 0.37]), strict=True):
        best = 0.0
        for threshold in [*np.unique(similarities)]:
            accepted = similarities > threshold
            if (accepted & ~same).sum() <= far * (~same).sum():
                best = max(best, (accepted & same).sum() / same.sum())
        assert row["tar"] == best


def test_bad_pairs_are_named():
    with pytest.raises(ValueError, match="genuine"):
        tar_at_far([0.5], [True])
    with pytest.raises(ValueError, match="fars"):
        tar_at_far([0.5, 0.1], [True, False], [1.5])
    with pytest.raises(ValueError, match="template 9"):
        pair_similarities([1, 2], np.eye(2, dtype=np.float32), [1], [9])
    with pytest.raises(ValueError, match="one embedding per image"):
        pool_templates(np.zeros((2, 3)), [1], [1])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_lists_are_read_in_any_encoding_and_with_any_line_ends(encoding, tmp_path):
    np.save(tmp_path / "e.npy", np.eye(3, dtype=np.float32))
    (tmp_path / "t.txt").write_bytes("é.jpg 1 1\rb.jpg 2 2\rc.jpg 3 3\r".encode(encoding))
    (tmp_path / "p.txt").write_bytes("1 2 1\r\n1 3 0\r\n".encode(encoding))
    result = evaluate_verification([tmp_path / "e.npy"], tmp_path / "t.txt", tmp_path / "p.txt", fars=[0.5])
    assert (result["images"], result["pairs"]) == (3, 2)


@pytest.mark.parametrize("word", ["2", "-1"])
def test_a_pair_that_is_neither_of_one_person_nor_of_two_is_refused(word, tmp_path):
    np.save(tmp_path / "e.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "t.txt").write_text("a.jpg 1 1\nb.jpg 2 2\n")
    (tmp_path / "p.txt").write_text(f"1 1 1\n1 2 {word}\n")
    with pytest.raises(ValueError, match=rf"p\.txt: pair 2: expected 0 or 1. Received: {word}"):
        evaluate_verification([tmp_path / "e.npy"], tmp_path / "t.txt", tmp_path / "p.txt")


def test_a_video_counts_once():
    # Template 7: a photo pointing along x, and a video of three frames along y: equal parts, not 1 to 3.
    embeddings = [[2.0, 0], [0, 1], [0, 5], [0, 1], [1, 1]]
    ids, features = pool_templates(embeddings, [7, 7, 7, 7, 3], [1, 2, 2, 2, 1])
    assert ids.tolist() == [3, 7]
    np.testing.assert_allclose(features, np.full((2, 2), np.sqrt(0.5)), atol=1e-6)


def test_faces_not_found_are_left_out_and_weights_count():
    embeddings = [[1.0, 0], [np.nan, np.nan], [0, 1], [np.nan, np.nan]]
    ids, features = pool_templates(embeddings, [1, 1, 1, 2], [1, 2, 3, 1], weights=[0.6, 1, 0.8, 1])
    np.testing.assert_allclose(features, [[0.6, 0.8], [0, 0]], atol=1e-6)
    assert pair_similarities(ids, features, [1, 1], [1, 2], chunk=1).tolist() == pytest.approx([1, 0])


def test_the_wilson_interval_of_its_textbook_case():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    low, high = wilson_interval(10, 10)
    assert 0.7 < low < 1 and high == pytest.approx(1)


def test_the_command_compares_two_alignments(tmp_path, capsys):
    rng = np.random.default_rng(0)
    people = rng.normal(size=(20, 16))
    person = np.arange(80) % 20
    np.save(tmp_path / "good.npy", people[person] + 0.3 * rng.normal(size=(80, 16)))
    np.save(tmp_path / "bad.npy", people[person] + 2.0 * rng.normal(size=(80, 16)))
    lines = [f"img{i}.jpg {i} {i}" for i in range(80)]
    (tmp_path / "templates.txt").write_text("\n".join(lines))
    pairs = [(i, j) for i in range(80) for j in range(i)]
    (tmp_path / "pairs.txt").write_text("\n".join(f"{i} {j} {int(i % 20 == j % 20)}" for i, j in pairs))
    parser = argparse.ArgumentParser()
    command("verification").add_arguments(parser)
    words = ["--embeddings", tmp_path / "good.npy", tmp_path / "bad.npy", "--templates", tmp_path / "templates.txt"]
    words = [str(word) for word in [*words, "--pairs", tmp_path / "pairs.txt"]]
    assert command("verification").run(parser.parse_args([*words, "--far", "0.01", "1e-6"])) == 0
    text = capsys.readouterr().out
    assert "FAR 0.01" in text and "too few impostors" in text
    command("verification").run(parser.parse_args([*words, "--far", "0.01", "--json", "-"]))
    good, bad = (run["rates"][0]["tar"] for run in json.loads(capsys.readouterr().out)["runs"].values())
    assert good > 0.95 > bad
    (tmp_path / "pairs.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match=r"pairs\.txt: expected lines of template, template") as error:
        command("verification").run(parser.parse_args(words))
    assert "\n" not in str(error.value)
